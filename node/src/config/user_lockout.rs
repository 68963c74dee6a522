//! `user_lockout` blocks: when failed logins lock a name, for every auth method or one of them.

use arca_kernel::lockout::{LockoutDefaults, LockoutTuning};

use super::section::{ConfigError, Section};

/// Auth methods a block can be for.
const METHODS: &[&str] = &["approle", "ldap", "userpass"];

/// Reads them all; of a setting that is repeated the last one counts.
pub(super) fn read(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<LockoutDefaults, ConfigError> {
    let mut defaults = LockoutDefaults::default();
    for (method, section) in top.labelled("user_lockout")? {
        let tuning = match METHODS.iter().find(|known| **known == method) {
            Some(known) => defaults.by_method.entry((*known).to_owned()).or_default(),
            None if method == "all" => &mut defaults.all,
            None => {
                let text = format!(
                    "user_lockout {method:?}: expected \"all\", \"approle\", \"ldap\" or \"userpass\""
                );
                return Err(section.place.error(text));
            }
        };
        one(&section, tuning)?;
        warnings.extend(section.warnings());
    }
    Ok(defaults)
}

fn one(section: &Section<'_>, tuning: &mut LockoutTuning) -> Result<(), ConfigError> {
    if let Some(threshold) = section.number("lockout_threshold")? {
        tuning.threshold = threshold;
    }
    if let Some(duration) = section.duration("lockout_duration")? {
        tuning.duration_s = duration.as_secs();
    }
    if let Some(reset) = section.duration("lockout_counter_reset")? {
        tuning.counter_reset_s = reset.as_secs();
    }
    if let Some(is_disabled) = section.flag("disable_lockout")? {
        tuning.is_disabled = is_disabled;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const START: &str = "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = true }\n";

    fn check(text: &str, want: &Result<LockoutDefaults, &str>) {
        let parsed = super::super::parse(&[(Path::new("a.hcl"), &format!("{START}{text}"))], None);
        let got = parsed.map(|(config, warnings)| {
            assert!(warnings.is_empty(), "{warnings:?}");
            config.user_lockout
        });
        assert_eq!(got.map_err(|err| err.to_string()), want.clone().map_err(str::to_owned), "{text}");
    }

    #[test]
    fn blocks_are_for_all_methods_or_for_one() {
        let tuned = LockoutTuning { threshold: 3, duration_s: 600, ..LockoutTuning::default() };
        let all = LockoutTuning { counter_reset_s: 60, is_disabled: true, ..LockoutTuning::default() };
        check("", &Ok(LockoutDefaults::default()));
        check(
            "user_lockout \"all\" { disable_lockout = true\n lockout_counter_reset = \"1m\" }\n\
             user_lockout \"userpass\" { lockout_threshold = \"3\"\n lockout_duration = \"10m\" }\n",
            &Ok(LockoutDefaults { all, by_method: [("userpass".to_owned(), tuned)].into() }),
        );
        check(
            "user_lockout \"token\" {}",
            &Err("a.hcl:3: user_lockout \"token\": expected \"all\", \"approle\", \"ldap\" or \"userpass\""),
        );
        check(
            "user_lockout \"all\" { lockout_threshold = \"-1\" }",
            &Err("a.hcl:3: user_lockout \"all\" lockout_threshold: expected a whole number"),
        );
    }
}
