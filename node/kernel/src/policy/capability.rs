//! The words of `capabilities = […]` as a set of bits.

use arca_engine_api::Operation;

/// A set of capabilities. `deny` in a rule is always alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u16);

/// Every word in alphabetical order, which is the order they are shown in.
const WORDS: [(&str, Capabilities); 11] = [
    ("create", Capabilities::CREATE),
    ("delete", Capabilities::DELETE),
    ("deny", Capabilities::DENY),
    ("list", Capabilities::LIST),
    ("patch", Capabilities::PATCH),
    ("read", Capabilities::READ),
    ("recover", Capabilities::RECOVER),
    ("scan", Capabilities::SCAN),
    ("subscribe", Capabilities::SUBSCRIBE),
    ("sudo", Capabilities::SUDO),
    ("update", Capabilities::UPDATE),
];

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(0);
    /// Write where nothing is yet.
    pub const CREATE: Self = Self(1);
    /// Remove.
    pub const DELETE: Self = Self(1 << 1);
    /// Nothing at all, whatever other policies say about the same pattern.
    pub const DENY: Self = Self(1 << 2);
    /// Names under a path.
    pub const LIST: Self = Self(1 << 3);
    /// Merge into what is there.
    pub const PATCH: Self = Self(1 << 4);
    /// Fetch.
    pub const READ: Self = Self(1 << 5);
    /// Restore single entries from a snapshot.
    pub const RECOVER: Self = Self(1 << 6);
    /// All names below a path.
    pub const SCAN: Self = Self(1 << 7);
    /// Follow events.
    pub const SUBSCRIBE: Self = Self(1 << 8);
    /// Use protected paths.
    pub const SUDO: Self = Self(1 << 9);
    /// Write over what is there, or act.
    pub const UPDATE: Self = Self(1 << 10);

    /// The capability of that name, exactly as written.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, found)| *found)
    }

    /// What an operation needs; `None` for help, which anybody may ask for.
    #[must_use]
    pub const fn needed_for(operation: Operation) -> Option<Self> {
        Some(match operation {
            Operation::Create => Self::CREATE,
            Operation::Delete => Self::DELETE,
            Operation::Help => return None,
            Operation::List => Self::LIST,
            Operation::Patch => Self::PATCH,
            Operation::Read => Self::READ,
            Operation::Scan => Self::SCAN,
            Operation::Update => Self::UPDATE,
        })
    }

    /// Both together. `deny` swallows everything else.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        let both = self.0 | other.0;
        if both & Self::DENY.0 == 0 { Self(both) } else { Self::DENY }
    }

    /// Whether all of `wanted` are here.
    #[must_use]
    pub const fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Whether the rule denies.
    #[must_use]
    pub const fn is_deny(self) -> bool {
        self.contains(Self::DENY)
    }

    /// Whether nothing is granted.
    #[must_use]
    pub const fn grants_nothing(self) -> bool {
        self.0 == 0 || self.is_deny()
    }

    /// The words, in alphabetical order; `["deny"]` when nothing is granted.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        if self.grants_nothing() {
            return vec!["deny"];
        }
        WORDS.iter().filter(|(_, one)| self.contains(*one)).map(|(word, _)| *word).collect()
    }

    /// All words, for errors.
    #[must_use]
    pub fn all_words() -> String {
        WORDS.map(|(word, _)| word).join(", ")
    }
}
