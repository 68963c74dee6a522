//! The keys of an unsealed node, kept equal to the replicated ones: the root key, and the barrier's keyring.
//!
//! A rekey makes a new root key. Whoever is unsealed then has no shares of it, so the entry that replaces the seal also
//! stores the new root key behind the barrier, at [`ROOT_KEY_PATH`], before the keyring that it seals. A sealed node
//! finds nothing of use there: the keyring that opens it is sealed by the very key it holds.
//!
//! **Invariants.** Keys change within the very step that applies a change to them: no reader can meet a value of a
//! term it does not hold, and nothing is sealed under a term that the state has lost. Keys of an older state than those
//! in use are passed over, however late they come.
//!
//! A copy of another cluster's state comes with keys that are not ours. The node that fetches it has them: before the copy
//! it stores their root key at [`SUCCESSOR_PATH`], under the keyring of today. A member that is locked out by the copy
//! finds it there, if it opens the copy's keyring, and can unseal itself anew.
//! Read next: ADR 14, for why a rekey makes a new root key.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arca_barrier::{Barrier, BarrierError, Class, Entropy, Keyring, RootKey, boot_key};
use arca_raft_storage::{ApplyObserver, Change, ReadView, Replica, Version, Write, WriteSet};
use parking_lot::Mutex;

use crate::KernelError;

/// Where the root key is stored, behind the barrier.
pub const ROOT_KEY_PATH: &str = "root/core/root-key";

/// Where the root key of a state that is to come is stored, sealed under the keyring of the state it replaces. Class
/// `Node`: no backup holds it, and the copy leaves it in place.
pub const SUCCESSOR_PATH: &str = "root/core/successor";

/// Why the keys of this node do not open the state.
#[derive(Debug)]
pub enum LockedOut {
    /// It belongs to other key shares: somebody has to bring them.
    Lost,
    /// It is the one that was announced, and this root key opens it.
    Successor(RootKey),
}

/// See the file's header.
pub struct KeyKeeper {
    barrier: Arc<Barrier>,
    replica: Mutex<Option<Weak<dyn Replica>>>,
    keyring_key: Vec<u8>,
    root_key_key: Vec<u8>,
    successor_key: Vec<u8>,
    held: Mutex<Held>,
    is_locked_out: AtomicBool,
    locked_out: Box<dyn Fn(LockedOut) + Send + Sync>,
}

impl fmt::Debug for KeyKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyKeeper")
    }
}

struct Held {
    root: Arc<RootKey>,
    /// The root key of the entry being applied, until its keyring comes.
    brought: Option<RootKey>,
    /// The root key that was announced for the state to come, since this node is unsealed.
    announced: Option<RootKey>,
    /// Index of the state whose keys are in use.
    installed_at: u64,
}

impl KeyKeeper {
    /// Holds `root`, the key of the seal written at `version`, and the keyring it opened, in `barrier`. Calls `locked_out`
    /// once, when the state becomes one that these keys do not open.
    ///
    /// # Errors
    /// When the root key's name cannot be sealed.
    pub fn new(
        root: RootKey,
        version: Version,
        barrier: &Arc<Barrier>,
        locked_out: impl Fn(LockedOut) + Send + Sync + 'static,
    ) -> Result<Self, BarrierError> {
        Ok(Self {
            barrier: Arc::clone(barrier),
            replica: Mutex::default(),
            keyring_key: boot_key("keyring"),
            root_key_key: barrier.seal_name(Class::Local, ROOT_KEY_PATH)?,
            successor_key: barrier.seal_name(Class::Node, SUCCESSOR_PATH)?,
            held: Mutex::new(Held {
                root: Arc::new(root),
                brought: None,
                announced: None,
                installed_at: version.0,
            }),
            is_locked_out: AtomicBool::new(false),
            locked_out: Box::new(locked_out),
        })
    }

    /// Where [`Self::reload`] finds the state.
    pub fn follow(&self, replica: &Arc<dyn Replica>) {
        *self.replica.lock() = Some(Arc::downgrade(replica));
    }

    fn replica(&self) -> Option<Arc<dyn Replica>> {
        self.replica.lock().as_ref().and_then(Weak::upgrade)
    }

    /// The barrier whose keyring this is.
    pub fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// The root key in use.
    pub fn root(&self) -> Arc<RootKey> {
        Arc::clone(&self.held.lock().root)
    }

    /// Whether the state is one that the keys of this node do not open.
    pub fn is_locked_out(&self) -> bool {
        self.is_locked_out.load(Ordering::Acquire)
    }

    /// Reads the keys from the state as it is now.
    pub fn reload(&self) {
        let Some(replica) = self.replica() else { return };
        self.install_from(replica.view().as_ref());
    }

    /// The entry that announces the root key of a state that is about to replace this one: to be committed before.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn successor_entry(&self, root: &RootKey) -> Result<Write, BarrierError> {
        // Bare only to be sealed: whoever opens it holds the keyring that it replaces.
        let sealed = self.barrier.seal_value(&self.successor_key, root.expose())?;
        Ok(Write::Put(self.successor_key.clone(), sealed))
    }

    /// The entry that takes it away: when nothing was replaced after all, or everybody has changed over.
    pub fn no_successor_entry(&self) -> Write {
        Write::Delete(self.successor_key.clone())
    }

    /// Stores a keyring made from the current one; applying the entry installs it, here and everywhere. `admit` lets the
    /// commit through, as [`crate::replication::Standing::admit`] does: no keyring may be behind a change of roles.
    ///
    /// # Errors
    /// When it is not let through, another was stored meanwhile, the keys are of another state, or it cannot be replicated.
    pub async fn store(
        &self,
        entropy: &dyn Entropy,
        admit: impl FnOnce(&mut WriteSet) -> Result<(), KernelError> + Send,
        make: impl FnOnce(&Barrier) -> Result<Keyring, BarrierError> + Send,
    ) -> Result<(), KernelError> {
        let replica = self.replica().ok_or(KernelError::Sealed)?;
        // Optimistic: two changes at once would make two different keys of one term. The version is read first, so that
        // a backup restored in between refuses the keyring of the state before it.
        let key = self.keyring_key.clone();
        let found = replica.view().get(&key).map_err(|err| KernelError::Replica(err.into()))?;
        let version = found.map(|found| found.version).unwrap_or_default();
        if self.is_locked_out() {
            return Err(KernelError::Sealed);
        }
        let sealed = make(&self.barrier)?.seal(&self.root(), entropy)?;
        let mut set = WriteSet { reads: vec![(key.clone(), version)], writes: vec![Write::Put(key, sealed)] };
        admit(&mut set)?;
        replica.propose(set).await?;
        Ok(())
    }

    /// Puts the keyring of the state at `index` to use, and the root key with it if that is another. A backup may bring
    /// back one with fewer terms.
    fn install(&self, index: u64, sealed: &[u8], brought: Option<RootKey>) -> Result<(), BarrierError> {
        let mut held = self.held.lock();
        if index < held.installed_at {
            return Ok(());
        }
        let (keyring, root) = match (Keyring::open(&held.root, sealed), brought) {
            (Ok(keyring), _) => (keyring, None),
            (Err(_), Some(root)) => (Keyring::open(&root, sealed)?, Some(root)),
            (Err(err), None) => return Err(err),
        };
        self.barrier.supersede_keyring(keyring)?;
        held.installed_at = index;
        if let Some(root) = root {
            held.root = Arc::new(root);
        }
        Ok(())
    }

    /// The same from a whole state. One that neither key opens belongs to other shares: the node seals itself.
    fn install_from(&self, state: &dyn ReadView) {
        let (keyring, root) = (state.get(&self.keyring_key), state.get(&self.root_key_key));
        let installed = match (keyring, root) {
            (Ok(Some(keyring)), Ok(root)) => {
                let brought = root.and_then(|found| self.opened(&found.value).ok());
                self.install(state.index(), &keyring.value, brought)
            }
            // A joiner that has received nothing yet.
            (Ok(None), _) => Ok(()),
            (Err(err), _) | (_, Err(err)) => {
                tracing::error!(error = %err, "the replicated keys cannot be read");
                return;
            }
        };
        if let Err(err) = installed
            && !self.is_locked_out.swap(true, Ordering::AcqRel)
        {
            let index = state.index();
            tracing::warn!(error = %err, index, "the keys of this node do not open the replicated keyring");
            (self.locked_out)(self.successor(state).map_or(LockedOut::Lost, LockedOut::Successor));
        }
    }

    /// The root key that was announced for this state, if it is that one: it must open the keyring.
    fn successor(&self, state: &dyn ReadView) -> Option<RootKey> {
        let (announced, keyring) = (state.get(&self.successor_key), state.get(&self.keyring_key));
        let root = self.announced_in(&announced.ok()??.value)?;
        Keyring::open(&root, &keyring.ok()??.value).ok()?;
        Some(root)
    }

    fn announced_in(&self, sealed: &[u8]) -> Option<RootKey> {
        RootKey::from_slice(&self.barrier.open_value(&self.successor_key, sealed).ok()?).ok()
    }

    fn opened(&self, sealed: &[u8]) -> Result<RootKey, BarrierError> {
        RootKey::from_slice(&self.barrier.open_value(&self.root_key_key, sealed)?)
    }
}

impl ApplyObserver for KeyKeeper {
    fn applied(&self, index: u64, change: Change<'_>) {
        let Change::Write(write) = change else { return };
        if *write.key() == self.successor_key {
            self.held.lock().announced = match write {
                Write::Put(_, sealed) => self.announced_in(sealed),
                Write::Delete(_) => None,
            };
            return;
        }
        let Write::Put(key, value) = write else { return };
        if *key == self.root_key_key {
            // One that does not open is of other keys, and so is the keyring that follows.
            self.held.lock().brought = self.opened(value).ok();
        } else if *key == self.keyring_key {
            let brought = {
                let mut held = self.held.lock();
                // A comparison may bring both under a newer term than this node has: then only what was announced opens it.
                let brought = held.brought.take();
                brought.or_else(|| held.announced.take_if(|root| Keyring::open(root, value).is_ok()))
            };
            // Whoever follows the log from its beginning meets keys that are none of its business. Before this node is
            // active, the whole state is looked at once more.
            if let Err(err) = self.install(index, value, brought) {
                tracing::info!(error = %err, index, "passing over a keyring of other keys");
            }
        }
    }

    fn replaced(&self, _index: u64, state: &dyn ReadView) {
        self.install_from(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use arca_barrier::{OsEntropy, Suite};

    use super::*;

    struct Keys {
        keeper: KeyKeeper,
        barrier: Arc<Barrier>,
        locked_out: Arc<AtomicUsize>,
        /// Root keys that were handed out with it.
        successors: Arc<Mutex<Vec<RootKey>>>,
    }

    fn root(byte: u8) -> RootKey {
        RootKey::from_slice(&[byte; 32]).unwrap()
    }

    /// Holds root key 1 of the seal written at 5.
    fn keys() -> Keys {
        let keyring = Keyring::generate(&OsEntropy, 0, Suite::XChaCha20Poly1305).unwrap();
        let barrier = Arc::new(Barrier::new(keyring, Arc::new(OsEntropy)));
        let locked_out = Arc::new(AtomicUsize::new(0));
        let successors = Arc::<Mutex<Vec<RootKey>>>::default();
        let (counted, given) = (Arc::clone(&locked_out), Arc::clone(&successors));
        let count = move |why| {
            counted.fetch_add(1, Ordering::Relaxed);
            if let LockedOut::Successor(root) = why {
                given.lock().push(root);
            }
        };
        let keeper = KeyKeeper::new(root(1), Version(5), &barrier, count).unwrap();
        Keys { keeper, barrier, locked_out, successors }
    }

    impl Keys {
        fn stored_root(&self, byte: u8) -> Vec<u8> {
            self.barrier.seal_value(&self.keeper.root_key_key, &[byte; 32]).unwrap()
        }

        fn put(&self, index: u64, key: &[u8], value: Vec<u8>) {
            self.keeper.applied(index, Change::Write(&Write::Put(key.to_vec(), value)));
        }

        /// Applies a rekey that made root key `byte`.
        fn rekey(&self, index: u64, byte: u8) {
            self.put(index, &self.keeper.root_key_key, self.stored_root(byte));
            let keyring = self.barrier.keyring().seal(&root(byte), &OsEntropy).unwrap();
            self.put(index, &self.keeper.keyring_key, keyring);
        }

        /// Applies a rotation under root key `byte`.
        fn rotate(&self, index: u64, byte: u8) {
            let keyring = self.barrier.rotated(0).unwrap().seal(&root(byte), &OsEntropy).unwrap();
            self.put(index, &self.keeper.keyring_key, keyring);
        }

        fn holds(&self, byte: u8) -> bool {
            self.keeper.root().matches(&root(byte))
        }
    }

    #[test]
    fn a_rekey_changes_the_root_key_and_rotations_go_on_under_it() {
        let keys = keys();
        keys.rotate(6, 1);
        assert_eq!(keys.barrier.key_status().term, 2);
        keys.rekey(7, 2);
        assert!(keys.holds(2));
        keys.rotate(8, 2);
        assert_eq!(keys.barrier.key_status().term, 3);
        keys.rotate(9, 1);
        assert_eq!(keys.barrier.key_status().term, 3, "sealed by a root key of before");
    }

    #[test]
    fn what_is_older_than_the_seal_it_was_unsealed_with_is_passed_over() {
        let keys = keys();
        keys.rekey(4, 2);
        assert!(keys.holds(1));
        keys.rotate(5, 1);
        assert_eq!(keys.barrier.key_status().term, 2);
        assert_eq!(keys.locked_out.load(Ordering::Relaxed), 0, "nobody is locked out by history");
    }

    #[test]
    fn a_root_key_that_does_not_open_its_keyring_is_not_taken() {
        let keys = keys();
        keys.put(6, &keys.keeper.root_key_key, keys.stored_root(2));
        keys.rotate(6, 3);
        assert!(keys.holds(1));
        keys.put(7, &keys.keeper.root_key_key, b"nonsense".to_vec());
        keys.rotate(7, 1);
        assert!(keys.holds(1));
        assert_eq!(keys.barrier.key_status().term, 2);
    }

    /// A state with these boot entries, at an index.
    struct State(u64, Vec<(Vec<u8>, Vec<u8>)>);

    impl ReadView for State {
        fn index(&self) -> u64 {
            self.0
        }

        fn get(
            &self,
            key: &[u8],
        ) -> Result<Option<arca_raft_storage::Versioned>, arca_raft_storage::KvError> {
            let found = self.1.iter().find(|(known, _)| known == key);
            Ok(found.map(|(_, value)| arca_raft_storage::Versioned {
                value: value.clone(),
                version: Version(self.0),
            }))
        }

        fn visit(
            &self,
            _: &[u8],
            _: Option<&[u8]>,
            _: &mut arca_raft_storage::replica::VersionedVisitor<'_>,
        ) -> Result<(), arca_raft_storage::KvError> {
            Ok(())
        }
    }

    #[test]
    fn a_restored_state_brings_its_own_root_key() {
        let keys = keys();
        let state = |keys: &Keys, index, stored: u8, sealed_by: u8| {
            let keyring = keys.barrier.keyring().seal(&root(sealed_by), &OsEntropy).unwrap();
            let root_key = (keys.keeper.root_key_key.clone(), keys.stored_root(stored));
            State(index, vec![(keys.keeper.keyring_key.clone(), keyring), root_key])
        };
        keys.keeper.replaced(9, &state(&keys, 9, 7, 7));
        assert!(keys.holds(7) && !keys.keeper.is_locked_out());
        keys.keeper.replaced(8, &state(&keys, 8, 3, 4));
        assert!(!keys.keeper.is_locked_out(), "older than what is in use");
        keys.keeper.replaced(10, &state(&keys, 10, 3, 4));
        assert!(keys.keeper.is_locked_out());
        assert_eq!(keys.locked_out.load(Ordering::Relaxed), 1);
        assert!(keys.holds(7));
    }

    /// A state of other keys, its keyring sealed by root key `by`, with an announcement of root key `announced`.
    fn copied(keys: &Keys, index: u64, by: u8, announced: Option<u8>) -> State {
        let theirs = Keyring::generate(&OsEntropy, 0, Suite::XChaCha20Poly1305).unwrap();
        let keyring = theirs.seal(&root(by), &OsEntropy).unwrap();
        let mut entries = vec![(keys.keeper.keyring_key.clone(), keyring)];
        if let Some(announced) = announced {
            let Write::Put(key, value) = keys.keeper.successor_entry(&root(announced)).unwrap() else {
                panic!("not a put")
            };
            entries.push((key, value));
        }
        State(index, entries)
    }

    #[test]
    fn who_is_locked_out_by_an_announced_state_is_given_its_root_key() {
        let check = |by, announced, want: Option<u8>| {
            let keys = keys();
            keys.keeper.replaced(9, &copied(&keys, 9, by, announced));
            assert_eq!(keys.locked_out.load(Ordering::Relaxed), 1);
            let given = keys.successors.lock().pop();
            assert_eq!(given.is_some(), want.is_some(), "{by} {announced:?}");
            assert!(given.is_none_or(|given| given.matches(&root(want.unwrap()))));
            assert!(keys.holds(1), "the keys of today stay until the node is unsealed anew");
        };
        check(7, Some(7), Some(7));
        check(7, None, None);
        check(7, Some(8), None);
    }

    /// What a comparison brings from a primary that rotated and made a new root key meanwhile.
    #[test]
    fn an_announced_root_key_opens_a_keyring_whose_stored_root_key_is_sealed_by_it() {
        let keys = keys();
        let Write::Put(key, value) = keys.keeper.successor_entry(&root(7)).unwrap() else {
            panic!("not a put")
        };
        keys.put(6, &key, value);
        let newer = Barrier::new(keys.barrier.rotated(0).unwrap(), Arc::new(OsEntropy));
        let stored = newer.seal_value(&keys.keeper.root_key_key, &[7; 32]).unwrap();
        keys.put(7, &keys.keeper.root_key_key, stored);
        keys.put(7, &keys.keeper.keyring_key, newer.keyring().seal(&root(7), &OsEntropy).unwrap());
        assert!(keys.holds(7) && !keys.keeper.is_locked_out());
        assert_eq!(keys.barrier.key_status().term, 2);
    }

    #[test]
    fn an_announcement_alone_changes_nothing_and_a_forged_one_is_none() {
        let keys = keys();
        let Write::Put(key, value) = keys.keeper.successor_entry(&root(7)).unwrap() else {
            panic!("not a put")
        };
        keys.put(6, &key, value);
        keys.rotate(7, 1);
        assert!(keys.holds(1) && !keys.keeper.is_locked_out());
        let mut state = copied(&keys, 9, 7, Some(7));
        state.1[1].1 = b"nonsense".to_vec();
        keys.keeper.replaced(9, &state);
        assert!(keys.keeper.is_locked_out() && keys.successors.lock().is_empty());
        assert_eq!(keys.keeper.no_successor_entry().key(), key.as_slice());
    }
}
