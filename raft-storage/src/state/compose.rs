//! A backup made of entries that come from elsewhere: what [`crate::Replica::import`] takes.

use bytes::Bytes;

use super::StateError;
use super::export::Scope;
use super::frame::{Encoder, PAYLOAD_BYTES_MAX};
use super::load::check_entry;
use super::meta::{self, Header, Meta};
use crate::Version;
use crate::codec;
use crate::write_set::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Makes the frames of one backup. Holds less than a frame and an entry.
#[derive(Debug)]
pub struct Composer {
    encoder: Encoder,
    /// Not given out yet.
    pending: Vec<u8>,
    last_key: Vec<u8>,
    entries: u64,
}

impl Composer {
    /// With the first frame. `cluster` is what the entries' cluster calls itself, `index` how far they are in its log.
    #[must_use]
    pub fn new(cluster: &[u8], index: u64) -> (Self, Bytes) {
        let mut encoder = Encoder::default();
        let meta = Meta { index, ..Meta::default() };
        let frame = encoder.header(Scope::Backup, &Header { cluster: cluster.to_vec(), meta });
        (Self { encoder, pending: Vec::new(), last_key: Vec::new(), entries: 0 }, frame)
    }

    /// Takes the next entry, and answers the frames that are full.
    ///
    /// # Errors
    /// When keys do not ascend, one is not of those that a backup holds, or something is longer than can be stored.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<Vec<Bytes>, StateError> {
        if self.entries > 0 && key <= self.last_key.as_slice() {
            return Err(StateError::Damaged(format!("entry {}: keys do not ascend", self.entries)));
        }
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(StateError::Damaged(format!("entry {}: too long", self.entries)));
        }
        // An import gives every entry its own version: this one only has to be one.
        let stored = meta::stored(Version(1), value);
        check_entry(Scope::Backup, key, &stored)?;
        codec::put_bytes(&mut self.pending, key);
        codec::put_bytes(&mut self.pending, &stored);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        let mut frames = Vec::new();
        while self.pending.len() >= PAYLOAD_BYTES_MAX {
            frames.push(self.frame());
        }
        Ok(frames)
    }

    /// The last frames.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        let mut frames = Vec::new();
        if !self.pending.is_empty() {
            frames.push(self.frame());
        }
        frames.push(self.encoder.trailer(self.entries));
        frames
    }

    fn frame(&mut self) -> Bytes {
        let rest = self.pending.split_off(self.pending.len().min(PAYLOAD_BYTES_MAX));
        let payload = std::mem::replace(&mut self.pending, rest);
        self.encoder.data(&payload)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::Command;
    use crate::kv::ModelHome;
    use crate::state::{Apply, Outcome, Payload, State, Uploader};
    use crate::{ReadView as _, Visit, Write, WriteSet};

    fn run(state: &State, command: Command) -> Outcome {
        let index = state.view().index() + 1;
        let bytes = command.encode().unwrap();
        state.apply(Apply { index, log_id: b"id", payload: Payload::Command(&bytes) }).unwrap()
    }

    fn composed(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<Bytes> {
        let (mut composer, head) = Composer::new(b"other", 7);
        let mut frames = vec![head];
        for (key, value) in entries {
            frames.extend(composer.push(key, value).unwrap());
        }
        frames.extend(composer.finish());
        frames
    }

    #[test]
    fn what_was_composed_is_what_an_import_leaves() {
        let state = State::open(Arc::new(ModelHome::new())).unwrap();
        let old = WriteSet {
            writes: vec![Write::Put(vec![1, 9], vec![]), Write::Put(vec![3, 1], b"own".to_vec())],
            ..WriteSet::default()
        };
        run(&state, Command::Batch(vec![old]));
        let mut entries = vec![(vec![0, 1], vec![5; 3 << 20]), (vec![0, 2], vec![])];
        entries.extend((0..2_000_u16).map(|n| ([&[2], &n.to_be_bytes()[..]].concat(), vec![6; 900])));
        run(&state, Command::ImportBegin);
        let mut uploader = Uploader::new(state.view().index());
        for frame in composed(&entries) {
            assert!(frame.len() <= 1 << 20);
            for command in uploader.push(&frame).unwrap() {
                assert_eq!(run(&state, command), Outcome::Import(Ok(())));
            }
        }
        assert_eq!(uploader.header().unwrap().cluster, b"other");
        let commit = uploader.finish().unwrap();
        assert_eq!(run(&state, commit), Outcome::Import(Ok(())));
        let mut found = Vec::new();
        let mut visitor = |key: &[u8], value: &[u8], _: Version| {
            found.push((key.to_vec(), value.to_vec()));
            Visit::Next
        };
        state.view().visit(&[], None, &mut visitor).unwrap();
        entries.push((vec![3, 1], b"own".to_vec()));
        assert!(found == entries, "{} entries, not {}", found.len(), entries.len());
    }

    #[test]
    fn what_no_backup_holds_is_refused() {
        let check = |keys: &[&[u8]], is_fine: bool| {
            let (mut composer, _) = Composer::new(b"c", 1);
            let last = keys.iter().map(|key| composer.push(key, b"v")).last().unwrap();
            assert_eq!(last.is_ok(), is_fine, "{keys:?}");
        };
        check(&[&[1], &[1, 0], &[2]], true);
        check(&[&[1], &[1]], false);
        check(&[&[2], &[1]], false);
        check(&[&[]], false);
        check(&[&[3]], false);
        check(&[&[1; KEY_BYTES_MAX]], true);
        check(&[&[1; KEY_BYTES_MAX + 1]], false);
    }
}
