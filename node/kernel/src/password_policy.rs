//! Password policies: rules in HCL or JSON by which passwords are made, at `sys/policies/password/…`.
//!
//! A policy gives a length and rules; each rule names characters and how many of them there must be at least. Characters
//! are drawn evenly from all that any rule names; a draw that breaks a rule is thrown away whole, so that every
//! password that keeps the rules is as likely as every other. Rules that are hardly ever met so are met on purpose in the
//! end: each rule's share is drawn first, the rest from all, and their order is drawn last. Work is thus bounded, whoever
//! writes the policy.

use std::collections::{BTreeMap, BTreeSet};

use arca_barrier::Class;
use arca_engine_api::{EngineError, Entropy};
use arca_hcl::{Block, Body, ParseError, Value};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::tx::Tx;

/// Shortest password a policy may ask for.
pub const LENGTH_MIN: usize = 4;
/// Longest password a policy may ask for.
pub const LENGTH_MAX: usize = 100;
/// Most different characters.
const CHARS_MAX: usize = 256;
/// Most different rules.
const RULES_MAX: usize = 64;
/// Draws that may break a rule before the rules are met on purpose. The built-in policy takes four.
const DRAWS_MAX: usize = 64;

/// What makes a password when no policy is named: 20 characters, of each kind at least one.
pub const BUILT_IN: &str = r#"
length = 20
rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" min-chars = 1 }
rule "charset" { charset = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" min-chars = 1 }
rule "charset" { charset = "0123456789" min-chars = 1 }
rule "charset" { charset = "-" min-chars = 1 }
"#;

/// A stored policy, at `<namespace id>/password-policy/<name>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasswordPolicyRecord {
    /// The text as written.
    pub policy: String,
}

/// So many of these, at least.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Charset {
    chars: BTreeSet<char>,
    min: usize,
}

/// A rule among the characters of its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    /// Where in [`PasswordPolicy::chars`] its characters are.
    places: Vec<usize>,
    /// By place, whether it is one of them.
    holds: Vec<bool>,
    min: usize,
}

/// A parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    length: usize,
    /// Of rules that ask for anything; each set of characters once.
    shares: Vec<Share>,
    /// All characters of all rules.
    chars: Vec<char>,
}

/// Even draws out of a stock of random bytes.
struct Dice<'a> {
    entropy: &'a dyn Entropy,
    bytes: Zeroizing<[u8; 64]>,
    used: usize,
}

impl<'a> Dice<'a> {
    fn new(entropy: &'a dyn Entropy) -> Self {
        let bytes = Zeroizing::new([0; 64]);
        Self { entropy, used: bytes.len(), bytes }
    }

    /// A number below `count`, from 1 to 256, each as likely as every other.
    fn below(&mut self, count: usize) -> Result<usize, EngineError> {
        let limit = 256 - 256 % count;
        loop {
            let Some(byte) = self.bytes.get(self.used).copied() else {
                self.entropy.fill(self.bytes.as_mut_slice())?;
                self.used = 0;
                continue;
            };
            self.used += 1;
            if usize::from(byte) < limit {
                return Ok(usize::from(byte) % count);
            }
        }
    }

    /// One of these, each as likely as every other.
    fn one_of(&mut self, places: &[usize]) -> Result<usize, EngineError> {
        let drawn = self.below(places.len())?;
        places.get(drawn).copied().ok_or_else(|| EngineError::Bug("drawn from nothing".to_owned()))
    }
}

/// Where a policy is stored.
#[must_use]
pub(crate) fn path(namespace_id: &str, name: &str) -> String {
    format!("{namespace_id}/password-policy/{name}")
}

/// A password by a stored policy, or by [`BUILT_IN`] when `name` is empty.
pub(crate) fn generate(
    tx: &Tx,
    entropy: &dyn Entropy,
    namespace_id: &str,
    name: &str,
) -> Result<Zeroizing<String>, EngineError> {
    if name.is_empty() {
        return parsed(BUILT_IN)?.generate(entropy);
    }
    let record: Option<PasswordPolicyRecord> = tx.get_record(Class::Replicated, &path(namespace_id, name))?;
    let record = record.ok_or_else(|| EngineError::invalid("no password policy found"))?;
    parsed(&record.policy)?.generate(entropy)
}

fn parsed(text: &str) -> Result<PasswordPolicy, EngineError> {
    PasswordPolicy::parse(text)
        .map_err(|err| EngineError::invalid(format!("failed to parse provided policy: {err}")))
}

impl PasswordPolicy {
    /// Reads a policy's text.
    ///
    /// # Errors
    /// Names the line and what was expected there.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let body = arca_hcl::parse(text)?;
        if let Some(item) = body.unknown(&["length", "rule"]) {
            return Err(ParseError::at_line(item.line, "unknown key: a policy has a length and rules"));
        }
        let length =
            count(&body, "length")?.ok_or_else(|| ParseError::at_line(1, "a policy needs a length"))?;
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            let text = format!("length must be from {LENGTH_MIN} to {LENGTH_MAX}");
            return Err(ParseError::at_line(1, text));
        }
        let rules: Vec<Charset> = body.blocks("rule", 1)?.iter().map(rule).collect::<Result<_, _>>()?;
        let chars: BTreeSet<char> = rules.iter().flat_map(|rule| rule.chars.iter().copied()).collect();
        if chars.is_empty() {
            return Err(ParseError::at_line(1, "a policy needs at least one rule with characters"));
        }
        if chars.len() > CHARS_MAX {
            return Err(ParseError::at_line(1, format!("at most {CHARS_MAX} different characters")));
        }
        let mut mins = BTreeMap::<&BTreeSet<char>, usize>::new();
        for rule in &rules {
            let min = mins.entry(&rule.chars).or_default();
            *min = rule.min.max(*min);
        }
        if mins.len() > RULES_MAX {
            return Err(ParseError::at_line(1, format!("at most {RULES_MAX} different rules")));
        }
        let wanted = rules.iter().fold(0_usize, |sum, rule| sum.saturating_add(rule.min));
        if wanted > length {
            return Err(ParseError::at_line(1, "the rules ask for more characters than length allows"));
        }
        let share = |(own, min): (&BTreeSet<char>, usize)| {
            let holds: Vec<bool> = chars.iter().map(|char| own.contains(char)).collect();
            let places = holds.iter().enumerate().filter_map(|(at, holds)| holds.then_some(at)).collect();
            Share { places, holds, min }
        };
        let shares = mins.into_iter().filter(|(_, min)| *min > 0).map(share).collect();
        Ok(Self { length, shares, chars: chars.into_iter().collect() })
    }

    /// A password that keeps the rules.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn generate(&self, entropy: &dyn Entropy) -> Result<Zeroizing<String>, EngineError> {
        let mut dice = Dice::new(entropy);
        let mut drawn = Zeroizing::new(Vec::with_capacity(self.length));
        for _ in 0..DRAWS_MAX {
            drawn.clear();
            while drawn.len() < self.length {
                drawn.push(dice.below(self.chars.len())?);
            }
            if self.keeps(&drawn) {
                return Ok(self.text(&drawn));
            }
        }
        self.meet(&mut dice, &mut drawn)?;
        Ok(self.text(&drawn))
    }

    fn keeps(&self, drawn: &[usize]) -> bool {
        let is_held = |share: &Share, at: &usize| share.holds.get(*at).is_some_and(|holds| *holds);
        let held = |share: &Share| drawn.iter().filter(|at| is_held(share, at)).count();
        self.shares.iter().all(|share| held(share) >= share.min)
    }

    /// Draws each rule's share, then the rest, then their order.
    fn meet(&self, dice: &mut Dice<'_>, drawn: &mut Vec<usize>) -> Result<(), EngineError> {
        drawn.clear();
        for share in &self.shares {
            for _ in 0..share.min {
                drawn.push(dice.one_of(&share.places)?);
            }
        }
        while drawn.len() < self.length {
            drawn.push(dice.below(self.chars.len())?);
        }
        for last in (1..drawn.len()).rev() {
            drawn.swap(last, dice.below(last + 1)?);
        }
        Ok(())
    }

    fn text(&self, drawn: &[usize]) -> Zeroizing<String> {
        // Room for the longest characters, so that growing leaves no copies behind.
        let mut text = Zeroizing::new(String::with_capacity(self.length * 4));
        text.extend(drawn.iter().filter_map(|at| self.chars.get(*at)));
        text
    }
}

fn rule(block: &Block<'_>) -> Result<Charset, ParseError> {
    if block.labels.first() != Some(&"charset") {
        return Err(ParseError::at_line(block.line, "unknown kind of rule: expected \"charset\""));
    }
    if let Some(item) = block.body.unknown(&["charset", "min-chars"]) {
        return Err(ParseError::at_line(item.line, "unknown key: a charset has charset and min-chars"));
    }
    let text = block.body.attribute("charset").and_then(|item| item.value.as_text()).unwrap_or_default();
    let chars: BTreeSet<char> = text.chars().collect();
    if chars.is_empty() {
        return Err(ParseError::at_line(block.line, "charset must name characters"));
    }
    if chars.iter().any(|char| char.is_control()) {
        return Err(ParseError::at_line(block.line, "charset must hold printable characters only"));
    }
    Ok(Charset { chars, min: count(block.body, "min-chars")?.unwrap_or(0) })
}

/// A count, written as a number or as text.
fn count(body: &Body, name: &str) -> Result<Option<usize>, ParseError> {
    let Some(item) = body.attribute(name) else { return Ok(None) };
    let value = match &item.value {
        Value::Int(number) => usize::try_from(*number).ok(),
        other => other.as_text().and_then(|text| text.trim().parse().ok()),
    };
    value.map(Some).ok_or_else(|| ParseError::at_line(item.line, format!("{name} must be a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeededEntropy;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let made = PasswordPolicy::parse(text).map_err(|err| err.to_string()).and_then(|policy| {
            let made = policy.generate(&SeededEntropy::default()).map_err(|err| err.to_string())?;
            Ok(made.chars().count().to_string())
        });
        assert_eq!(made.unwrap_or_else(|err| err), want, "{text}");
    }

    #[test]
    fn policies_are_read_and_kept() {
        check(BUILT_IN, "20");
        check(r#"length = 8 rule "charset" { charset = "äöü€" min-chars = 8 }"#, "8");
        check(r#"{"length": 5, "rule": [{"charset": {"charset": "ab", "min-chars": 2}}]}"#, "5");
        check("length = 20", "line 1, column 1: a policy needs at least one rule with characters");
        check(r#"rule "charset" { charset = "a" }"#, "line 1, column 1: a policy needs a length");
        check(
            r#"length = 3 rule "charset" { charset = "a" }"#,
            "line 1, column 1: length must be from 4 to 100",
        );
        check(
            r#"length = 9 rule "charset" { charset = "a" min-chars = 9 } rule "charset" { charset = "b" min-chars = 1 }"#,
            "line 1, column 1: the rules ask for more characters than length allows",
        );
        check("length = \"x\"", "line 1, column 1: length must be a whole number");
        check(
            "length = 8\nrule \"words\" { charset = \"a\" }",
            "line 2, column 1: unknown kind of rule: expected \"charset\"",
        );
        check(
            "length = 8\nrule \"charset\" { charset = \"a\\n\" }",
            "line 2, column 1: charset must hold printable characters only",
        );
        check("length = 8\nsize = 9", "line 2, column 1: unknown key: a policy has a length and rules");
    }

    #[test]
    fn rules_that_are_hardly_ever_met_are_met_in_time() {
        let wide: String = (0..200).filter_map(|at| char::from_u32(0x4e00 + at)).collect();
        let rule = |chars: &str, min: usize| {
            format!("rule \"charset\" {{ charset = \"{chars}\" min-chars = {min} }}\n")
        };
        let text = format!("length = 12\n{}{}{}", rule("a", 9), rule("b", 1), rule(&wide, 1));
        let policy = PasswordPolicy::parse(&text).unwrap();
        let entropy = SeededEntropy::default();
        let mut first = 0;
        for _ in 0..600 {
            let made = policy.generate(&entropy).unwrap();
            let count = |is: &dyn Fn(char) -> bool| made.chars().filter(|char| is(*char)).count();
            assert!(count(&|char| char == 'a') >= 9 && count(&|char| char == 'b') >= 1, "{}", *made);
            assert!(made.chars().count() == 12 && count(&|char| char > 'b') >= 1, "{}", *made);
            first += usize::from(made.starts_with('b'));
        }
        // One in twelve, or a little more: about 50, with a deviation of about 7.
        assert!((25..80).contains(&first), "{first}");
    }

    #[test]
    fn the_same_rule_counts_once_and_so_many_are_too_many() {
        let same = "rule \"charset\" { charset = \"ab\" }\n".repeat(5_000);
        check(&format!("length = 8\n{same}"), "8");
        let rules = |count: u32| -> String {
            let char = |at| char::from_u32(0x4e00 + at).unwrap();
            (0..count).map(|at| format!("rule \"charset\" {{ charset = \"a{}\" }}\n", char(at))).collect()
        };
        check(&format!("length = 8\n{}", rules(64)), "8");
        check(&format!("length = 8\n{}", rules(65)), "line 1, column 1: at most 64 different rules");
    }

    #[test]
    fn characters_are_drawn_evenly() {
        let policy = PasswordPolicy::parse(r#"length = 100 rule "charset" { charset = "abcdefg" }"#).unwrap();
        let entropy = SeededEntropy::default();
        let mut counts = std::collections::BTreeMap::<char, usize>::new();
        for _ in 0..200 {
            for char in policy.generate(&entropy).unwrap().chars() {
                *counts.entry(char).or_default() += 1;
            }
        }
        // 20,000 draws of 7: about 2,857 each, with a deviation of about 50.
        assert!(
            counts.len() == 7 && counts.values().all(|count| (2_600..3_100).contains(count)),
            "{counts:?}"
        );
    }
}
