//! Stored seal settings.

#![no_main]

use arca_barrier::SealConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = SealConfig::from_json(bytes) {
        assert_eq!(SealConfig::from_json(&config.to_json().unwrap()).unwrap(), config);
    }
});
