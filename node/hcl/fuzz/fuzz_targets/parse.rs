//! Arbitrary text must parse or be refused: no panic, no hang, no growth beyond the limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _outcome = arca_hcl::parse(text);
});
