//! What one request changes: applied whole, or refused whole.
//!
//! Optimistic concurrency: the set lists the version of every key the request read. `apply` compares them on every
//! replica, in log order; one that moved refuses the set, and the caller runs the request again on fresh state.

/// A physical key: class byte and sealed name. Opaque here.
pub type Key = Vec<u8>;
/// A sealed value. Opaque here.
pub type Value = Vec<u8>;

/// Log index of the entry that last wrote a key; zero means the key is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a key that is not there.
    pub const ABSENT: Self = Self(0);
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Remove the key; fine if it is not there.
    Delete(Key),
    /// Store the value.
    Put(Key, Value),
}

impl Write {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Delete(key) | Self::Put(key, _) => key,
        }
    }
}

/// The reads and writes of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// Keys whose version the request relied on.
    pub reads: Vec<(Key, Version)>,
    /// Changes, in order. A later one wins over an earlier one on the same key.
    pub writes: Vec<Write>,
}
