//! What a username template may call.

use arca_engine_api::{EngineError, Entropy, UnixMillis};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::DateTime;
use sha2::{Digest as _, Sha256};

use super::template::{Facts, Value};

/// Most letters of one `random`.
const RANDOM_MAX: i64 = 256;
/// Letters of a hash that `truncate_sha256` keeps.
const HASH_KEPT: usize = 8;
/// Longest text that anything in a template may give, in bytes: far more than any name, and not more with each call.
pub(super) const TEXT_MAX: usize = 4_096;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Declares the functions with their names and the number of their arguments (`None`: one or more).
macro_rules! functions {
    ($($variant:ident $name:literal $count:expr),* $(,)?) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Function {
            $(#[doc = $name] $variant),*
        }

        impl Function {
            /// The function of that name.
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Every name.
            pub(super) fn all() -> String {
                [$($name),*].join(", ")
            }

            fn count(self) -> Option<usize> {
                match self {
                    $(Self::$variant => $count),*
                }
            }
        }
    };
}

functions![
    Base64 "base64" Some(1),
    DecodeBase64 "decode_base64" Some(1),
    DecodeHex "decode_hex" Some(1),
    Hex "hex" Some(1),
    Lowercase "lowercase" Some(1),
    Printf "printf" None,
    Random "random" Some(1),
    Replace "replace" Some(3),
    Sha256Hex "sha256" Some(1),
    Timestamp "timestamp" Some(1),
    Truncate "truncate" Some(2),
    TruncateSha256 "truncate_sha256" Some(2),
    UnixTime "unix_time" Some(0),
    UnixTimeMillis "unix_time_millis" Some(0),
    Uppercase "uppercase" Some(1),
    Uuid "uuid" Some(0),
];

impl Function {
    /// Whether it takes so many arguments.
    pub(super) fn takes(self, count: usize) -> bool {
        self.count().map_or(count >= 1, |wanted| wanted == count)
    }

    /// What it gives.
    ///
    /// # Errors
    /// When an argument is of the wrong type or outside its limits.
    pub(super) fn call(self, arguments: Vec<Value>, facts: &Facts<'_>) -> Result<Value, EngineError> {
        if !self.takes(arguments.len()) {
            return Err(refused("wrong number of arguments for a function"));
        }
        let mut arguments = Arguments(arguments.into_iter());
        let made = match self {
            Self::Base64 => BASE64_STANDARD.encode(arguments.text()?),
            Self::DecodeBase64 => utf8(BASE64_STANDARD.decode(arguments.text()?).ok())?,
            Self::DecodeHex => utf8(from_hex(&arguments.text()?))?,
            Self::Hex => to_hex(arguments.text()?.as_bytes()),
            Self::Lowercase => arguments.text()?.to_lowercase(),
            Self::Printf => printf(&arguments.text()?, arguments)?,
            Self::Random => random(arguments.number()?, facts.entropy)?,
            Self::Replace => {
                let (find, with) = (arguments.text()?, arguments.text()?);
                replace(&arguments.text()?, &find, &with)?
            }
            Self::Sha256Hex => sha256(&arguments.text()?),
            Self::Timestamp => timestamp(&arguments.text()?, facts.now)?,
            Self::Truncate => {
                let most = arguments.number()?;
                let most = usize::try_from(most).ok().filter(|most| *most > 0);
                let most = most.ok_or_else(|| refused("max length must be > 0"))?;
                kept(&arguments.text()?, most).to_owned()
            }
            Self::TruncateSha256 => {
                let most = usize::try_from(arguments.number()?).ok().filter(|most| *most > HASH_KEPT);
                truncate_sha256(most.ok_or_else(|| refused("max length must be > 8"))?, arguments.text()?)
            }
            Self::UnixTime => (facts.now.0 / 1_000).to_string(),
            Self::UnixTimeMillis => facts.now.0.to_string(),
            Self::Uppercase => arguments.text()?.to_uppercase(),
            Self::Uuid => uuid(facts.entropy)?,
        };
        check_length(made.len())?;
        Ok(Value::Text(made))
    }
}

fn refused(what: &str) -> EngineError {
    EngineError::Invalid(format!("unable to apply template: {what}"))
}

/// Refuses text that is too long, if possible before it is made: each call could double the one before.
pub(super) fn check_length(length: usize) -> Result<(), EngineError> {
    if length > TEXT_MAX { Err(refused("the text gets too long")) } else { Ok(()) }
}

fn replace(text: &str, find: &str, with: &str) -> Result<String, EngineError> {
    check_length(text.matches(find).count().saturating_mul(with.len()))?;
    Ok(text.replace(find, with))
}

struct Arguments(std::vec::IntoIter<Value>);

impl Arguments {
    fn next(&mut self) -> Result<Value, EngineError> {
        self.0.next().ok_or_else(|| refused("an argument is missing"))
    }

    fn text(&mut self) -> Result<String, EngineError> {
        match self.next()? {
            Value::Text(text) => Ok(text),
            Value::Number(_) => Err(refused("a number where text is expected")),
        }
    }

    fn number(&mut self) -> Result<i64, EngineError> {
        match self.next()? {
            Value::Number(number) => Ok(number),
            Value::Text(_) => Err(refused("text where a number is expected")),
        }
    }
}

/// The beginning of `text`, of `most` bytes or, if that is inside a letter, fewer.
fn kept(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn truncate_sha256(most: usize, text: String) -> String {
    if text.len() <= most {
        return text;
    }
    let head = kept(&text, most - HASH_KEPT);
    let hash = sha256(text.get(head.len()..).unwrap_or_default());
    format!("{head}{}", kept(&hash, HASH_KEPT))
}

fn sha256(text: &str) -> String {
    to_hex(&Sha256::digest(text.as_bytes()))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|letter| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect()
}

fn utf8(bytes: Option<Vec<u8>>) -> Result<String, EngineError> {
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| refused("what is decoded is no text"))
}

/// Letters and digits, each as likely as any other.
fn random(count: i64, entropy: &dyn Entropy) -> Result<String, EngineError> {
    let count = usize::try_from(count).ok().filter(|_| (1..=RANDOM_MAX).contains(&count));
    let count = count.ok_or_else(|| {
        EngineError::Invalid(format!("unable to apply template: random takes 1 to {RANDOM_MAX}"))
    })?;
    let mut made = String::with_capacity(count);
    while made.len() < count {
        let mut bytes = [0; 64];
        entropy.fill(&mut bytes)?;
        // 248 is four times 62: bytes from there on would favour the first letters.
        let letters =
            bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| LETTERS.get(usize::from(byte % 62)));
        made.extend(letters.take(count - made.len()).map(|letter| char::from(*letter)));
    }
    Ok(made)
}

fn uuid(entropy: &dyn Entropy) -> Result<String, EngineError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    let hex = to_hex(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)))
}

fn printf(format: &str, mut arguments: Arguments) -> Result<String, EngineError> {
    let mut made = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        check_length(made.len())?;
        if letter != '%' {
            made.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => made.push('%'),
            Some('s' | 'v') => made.push_str(&arguments.next()?.into_text()),
            Some('d') => made.push_str(&arguments.number()?.to_string()),
            _ => return Err(refused("printf knows %s, %v, %d and %%")),
        }
    }
    match arguments.0.next() {
        None => Ok(made),
        Some(_) => Err(refused("printf has more arguments than places for them")),
    }
}

/// Go's way to write how a moment looks, longest first, and chrono's.
const LAYOUT: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Monday", "%A"),
    ("Z07:00", "Z"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("2006", "%Y"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    (".000", "%.3f"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("_2", "%e"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("%", "%%"),
];

fn timestamp(layout: &str, now: UnixMillis) -> Result<String, EngineError> {
    let moment = i64::try_from(now.0).ok().and_then(DateTime::from_timestamp_millis);
    let moment = moment.ok_or_else(|| refused("the clock is out of range"))?;
    let (mut format, mut rest) = (String::new(), layout);
    while let Some(letter) = rest.chars().next() {
        let known = LAYOUT.iter().find_map(|(go, ours)| Some((rest.strip_prefix(go)?, *ours)));
        if let Some((tail, ours)) = known {
            format.push_str(ours);
            rest = tail;
        } else {
            format.push(letter);
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
    }
    Ok(moment.format(&format).to_string())
}
