//! What a disk is told to do wrong: errors, stalls, no space, flipped bits. Each is counted as it hits, so that a run can
//! tell a fault that was exercised from one that was merely ordered.

use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};

use crate::dice::Dice;

/// Which operations a trouble hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Whatever there is.
    Any,
    /// Reading a file.
    Read,
    /// Syncing a file or a directory.
    Sync,
    /// Writing, making, cutting and renaming files.
    Write,
}

/// Which files a trouble hits, by their place below the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// All of them.
    Any,
    /// Those of the Raft log.
    Log,
    /// Those of the state machine.
    State,
    /// Its sorted tables.
    Tables,
}

impl Files {
    fn has(self, path: &Path) -> bool {
        let below = |start: &str| path.components().any(|part| part.as_os_str() == start);
        match self {
            Self::Any => true,
            Self::Log => below("raft") && below("log"),
            Self::State => below("raft") && below("state"),
            Self::Tables => path.extension().is_some_and(|kind| kind == "sst"),
        }
    }
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No space is said to be left, yet operations succeed.
    AlmostFull,
    /// `EIO`.
    Broken,
    /// `ENOSPC`, and no space is said to be left.
    Full,
    /// No answer until the disk is healed.
    Stall,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Which operations.
    pub operation: Operation,
    /// Which files.
    pub files: Files,
    /// What happens.
    pub effect: Effect,
    /// How often; for ever if `None`.
    pub times: Option<u64>,
}

/// A stored bit that reads wrong.
#[derive(Clone, Debug)]
struct Flip {
    files: Files,
    /// File, offset and bit, once something of `files` was read.
    at: Option<(u64, u64, u8)>,
}

/// How often each trouble hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Errors answered.
    pub errors: u64,
    /// Reads with a flipped bit.
    pub flips: u64,
    /// Operations refused for want of space, and answers that there is none.
    pub refusals: u64,
    /// Operations held up.
    pub stalls: u64,
}

#[derive(Debug, Default)]
struct Inner {
    troubles: Vec<Trouble>,
    flips: Vec<Flip>,
    dice: Option<Dice>,
    hits: Hits,
    healings: u64,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    inner: Mutex<Inner>,
    healed: Condvar,
}

impl Troubles {
    pub(super) fn add(&self, trouble: Trouble) {
        self.inner.lock().troubles.push(trouble);
    }

    pub(super) fn flip(&self, files: Files, dice: Dice) {
        let mut inner = self.inner.lock();
        inner.flips.push(Flip { files, at: None });
        inner.dice = Some(dice);
    }

    pub(super) fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.troubles.clear();
        inner.flips.clear();
        inner.healings += 1;
        self.healed.notify_all();
    }

    pub(super) fn hits(&self) -> Hits {
        self.inner.lock().hits
    }

    /// To be asked before free space is told.
    pub(super) fn is_full(&self) -> bool {
        let mut inner = self.inner.lock();
        let is_full =
            inner.troubles.iter().any(|trouble| matches!(trouble.effect, Effect::AlmostFull | Effect::Full));
        inner.hits.refusals += u64::from(is_full);
        is_full
    }

    /// To be asked before anything is done.
    pub(super) fn meet(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let found = inner.troubles.iter().position(|trouble| {
            (trouble.operation == Operation::Any || trouble.operation == operation) && trouble.files.has(path)
        });
        let Some(at) = found else { return Ok(()) };
        let Some(trouble) = inner.troubles.get_mut(at) else { return Ok(()) };
        let effect = trouble.effect;
        if let Some(times) = &mut trouble.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                inner.troubles.remove(at);
            }
        }
        match effect {
            Effect::AlmostFull => Ok(()),
            Effect::Broken => {
                inner.hits.errors += 1;
                Err(rustix::io::Errno::IO.into())
            }
            Effect::Full => {
                inner.hits.refusals += 1;
                Err(rustix::io::Errno::NOSPC.into())
            }
            Effect::Stall => {
                inner.hits.stalls += 1;
                let healings = inner.healings;
                self.healed.wait_while(&mut inner, |inner| inner.healings == healings);
                Ok(())
            }
        }
    }

    /// Flips what is to be flipped of bytes read from `offset` of a file.
    pub(super) fn distort(&self, file: u64, path: &Path, offset: u64, bytes: &mut [u8]) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        for flip in inner.flips.iter_mut().filter(|flip| flip.files.has(path) && len > 0) {
            let dice = inner.dice.get_or_insert_with(|| Dice::new(0));
            let (of, at, bit) = *flip.at.get_or_insert_with(|| {
                (file, offset + dice.within(0..len), u8::try_from(dice.within(0..8)).unwrap_or_default())
            });
            if of != file || at < offset {
                continue;
            }
            if let Some(byte) = usize::try_from(at - offset).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << bit;
                inner.hits.flips += 1;
            }
        }
    }

    /// What is overwritten reads right again.
    pub(super) fn overwritten(&self, file: u64, offset: u64, len: u64) {
        self.inner.lock().flips.retain(|flip| {
            flip.at
                .is_none_or(|(of, at, _)| of != file || !(offset..offset.saturating_add(len)).contains(&at))
        });
    }
}
