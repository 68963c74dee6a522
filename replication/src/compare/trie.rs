//! Sums of hashes over a state, by the hash of the key: where two states differ is found by going down where sums do.
//!
//! An entry is put in one of 2^depth leaves by the first bits of the hash of its key, and adds the hash of key and value to
//! the leaf's sum, so that neither order nor former content matters. A node's sum is that of the leaves below it. Sums of
//! leaves are kept modulo 2^64, the sum of everything modulo 2^128: what the former should fail to see, the latter shows
//! at the end, and the next comparison hashes with another key. That key is why nobody can make entries whose hashes
//! cancel out.

use crate::codec::Malformed;

/// Most bits of a leaf's number. A state's sums take 8 MiB while it is read, and 8 bytes a leaf afterwards.
pub(crate) const DEPTH_MAX: u32 = 20;
/// Entries that there are to be in a leaf, until there are no more leaves: few of them have to be listed for one that
/// differs, and going down to twice the leaves costs as much as listing this many.
const LEAF_ENTRIES: u64 = 4;
/// Bits of a key's hash that are sent when its leaf is known.
const TAG_BITS: u32 = 48;
/// What is sent of an entry's hash.
const MARK_MASK: u64 = (1 << 48) - 1;

/// Hashes keys and entries under a key of one comparison.
#[derive(Clone)]
pub(crate) struct Hashes(pub(crate) [u8; 32]);

impl Hashes {
    pub(crate) fn key(&self, key: &[u8]) -> u64 {
        let hash = blake3::Hasher::new_keyed(&self.0).update(b"k").update(key).finalize();
        hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    pub(crate) fn entry(&self, key: &[u8], value: &[u8]) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"e").update(&(key.len() as u64).to_be_bytes()).update(key).update(value);
        hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
    }
}

/// What is sent of an entry's hash: enough to see whether two are the same.
pub(crate) const fn mark(entry: u128) -> u64 {
    entry as u64 & MARK_MASK
}

/// Number, size and sum of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) sum: u128,
}

impl Total {
    pub(crate) fn add(&mut self, size: usize, entry: u128) {
        self.entries = self.entries.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(size as u64);
        self.sum = self.sum.wrapping_add(entry);
    }

    pub(crate) fn remove(&mut self, size: usize, entry: u128) {
        self.entries = self.entries.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(size as u64);
        self.sum = self.sum.wrapping_sub(entry);
    }

    /// The depth at which a state of this size is compared.
    pub(crate) fn depth(&self) -> u32 {
        let leaves = self.entries.div_ceil(LEAF_ENTRIES).max(1);
        leaves.checked_next_power_of_two().map_or(DEPTH_MAX, u64::ilog2).min(DEPTH_MAX)
    }
}

/// Sums of a state that is being read, at the greatest depth.
pub(crate) struct Sums {
    pub(crate) total: Total,
    leaves: Vec<u64>,
}

impl Sums {
    pub(crate) fn new() -> Self {
        Self { total: Total::default(), leaves: vec![0; 1 << DEPTH_MAX] }
    }

    pub(crate) fn add(&mut self, hashes: &Hashes, key: &[u8], value: &[u8]) {
        let entry = hashes.entry(key, value);
        self.total.add(key.len() + value.len(), entry);
        if let Some(leaf) = self.leaves.get_mut(leaf(hashes.key(key), DEPTH_MAX) as usize) {
            *leaf = leaf.wrapping_add(entry as u64);
        }
    }

    /// Everything was read.
    pub(crate) fn finish(&self, depth: u32) -> Trie {
        let width = 1_usize << (DEPTH_MAX - depth.min(DEPTH_MAX));
        let mut before = 0_u64;
        let ends = self.leaves.chunks(width).map(|leaves| {
            before = leaves.iter().fold(before, |sum, leaf| sum.wrapping_add(*leaf));
            before
        });
        Trie { depth, ends: ends.collect() }
    }
}

/// Sums of a whole state.
pub(crate) struct Trie {
    pub(crate) depth: u32,
    /// For each leaf, the sum of all leaves up to it: so every node's is a difference of two.
    ends: Vec<u64>,
}

impl Trie {
    /// The sum of a node, `level` bits from the root.
    pub(crate) fn node(&self, level: u32, index: u32) -> u64 {
        let below = self.depth.saturating_sub(level);
        let (first, end) = (u64::from(index) << below, (u64::from(index) + 1) << below);
        let up_to = |end: u64| {
            let last = usize::try_from(end).ok().and_then(|end| end.checked_sub(1));
            last.and_then(|last| self.ends.get(last)).copied().unwrap_or_default()
        };
        up_to(end).wrapping_sub(up_to(first))
    }
}

/// How many bits a step from `level` down goes: two, and one at first when the depth is odd.
pub(crate) const fn step(level: u32, depth: u32) -> u32 {
    if (depth - level) % 2 == 1 { 1 } else { 2 }
}

/// The leaf that a key belongs to.
pub(crate) const fn leaf(hash: u64, depth: u32) -> u32 {
    // Twice, since a shift by 64 is none.
    (hash >> 1 >> (63 - depth)) as u32
}

/// What is known of a key's hash when its leaf and its tag are.
pub(crate) const fn id(hash: u64, depth: u32) -> u64 {
    let kept = depth + TAG_BITS;
    if kept >= 64 { hash } else { hash >> (64 - kept) << (64 - kept) }
}

/// What is sent of an id beside its leaf.
pub(crate) const fn tag(id: u64, depth: u32) -> u64 {
    (id << depth) >> (64 - TAG_BITS)
}

/// The id with this leaf and tag.
pub(crate) fn id_of(leaf: u32, tag: u64, depth: u32) -> Result<u64, Malformed> {
    let high = u64::from(leaf) << 1 << (63 - depth);
    let id = high | (tag << (64 - TAG_BITS) >> depth);
    // Where leaf and tag have more than 64 bits together, the last ones are zero.
    if self::tag(id, depth) == tag { Ok(id) } else { Err(Malformed("a tag of too many bits")) }
}

/// A set of leaves.
#[derive(Clone, Debug)]
pub(crate) struct Leaves {
    depth: u32,
    bits: Vec<u64>,
}

impl Leaves {
    pub(crate) fn new(depth: u32, leaves: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self { depth, bits: vec![0; (1_usize << depth).div_ceil(64)] };
        for leaf in leaves {
            set.insert(leaf);
        }
        set
    }

    pub(crate) fn insert(&mut self, leaf: u32) {
        if let Some(word) = self.bits.get_mut(leaf as usize / 64) {
            *word |= 1 << (leaf % 64);
        }
    }

    /// Whether the leaf of a key with this hash is in it.
    pub(crate) fn holds(&self, hash: u64) -> bool {
        let leaf = leaf(hash, self.depth);
        self.bits.get(leaf as usize / 64).is_some_and(|word| word & (1 << (leaf % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_made_of_leaf_and_tag(hash: u64, depth in 0..=DEPTH_MAX) {
            let id = id(hash, depth);
            prop_assert_eq!(leaf(id, depth), leaf(hash, depth));
            prop_assert_eq!(id_of(leaf(id, depth), tag(id, depth), depth), Ok(id));
            prop_assert_eq!(Leaves::new(depth, [leaf(hash, depth)]).holds(hash), true);
            prop_assert_eq!(Leaves::new(depth, [leaf(hash, depth) ^ 1]).holds(hash), false);
        }

        #[test]
        fn a_node_is_the_sum_of_its_children(
            keys in proptest::collection::btree_set(any::<u32>(), 0..50), depth in 0..=DEPTH_MAX, path: u32,
        ) {
            let hashes = Hashes([1; 32]);
            let mut sums = Sums::new();
            for key in &keys {
                sums.add(&hashes, &key.to_be_bytes(), b"v");
            }
            let total = sums.total.sum as u64;
            let trie = sums.finish(depth);
            prop_assert_eq!(trie.node(0, 0), total);
            let mut level = 0;
            while level < depth {
                let step = step(level, depth);
                let index = path & ((1 << level) - 1);
                let children = (0..1 << step).map(|child| trie.node(level + step, (index << step) | child));
                let sum = children.fold(0_u64, u64::wrapping_add);
                prop_assert_eq!(trie.node(level, index), sum);
                level += step;
            }
            prop_assert_eq!(level, depth);
        }
    }

    #[test]
    fn depth_follows_from_the_number_of_entries() {
        let depth = |entries| Total { entries, ..Total::default() }.depth();
        for (entries, want) in
            [(0, 0), (4, 0), (5, 1), (100_000, 15), (4 << 20, 20), (1 << 40, 20), (u64::MAX, 20)]
        {
            assert_eq!(depth(entries), want, "{entries}");
        }
    }
}
