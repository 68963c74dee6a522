//! Physical keys that hide their paths: each segment sealed by AES-SIV, bound to the segment before it.
//!
//! **Invariant:** a folder's key is a byte prefix of the key of everything below it, and of nothing else. Sealing is
//! deterministic, so a name has one key; equal names below different parents look different. What the bytes still
//! show: the class, how deep a path is, each segment's length rounded up to 16, and which entries share a folder.
//! Read next: `recent.rs` for the cache, `timed.rs` for the keys that sort by time.

use std::sync::Arc;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use hkdf::Hkdf;
use parking_lot::Mutex;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::reader::Reader;
use crate::recent::Recent;
use crate::root_key::Secret;
use crate::{BarrierError, Class};

/// Largest path segment, its `/` included, bytes.
pub const SEGMENT_SIZE_MAX: usize = 4096;
/// Largest path, bytes.
pub const PATH_SIZE_MAX: usize = 16 * 1024;
/// Most segments in a path: a sealed segment is at least 34 bytes, so this bounds the key.
pub const SEGMENTS_MAX: usize = 256;

/// First byte after the class in keys that are no names. A segment's size begins with at most 0x10.
pub(crate) const NOT_A_NAME: u8 = 0xff;

const SIV_SIZE: usize = 16;
const BLOCK_SIZE: usize = 16;
/// Ends the name inside the padding; zeros follow up to the next whole block.
const PAD: u8 = 0x80;

/// The synthetic IV of a sealed segment: stands for the whole path up to it.
pub(crate) type Siv = [u8; SIV_SIZE];

/// What the first segment is bound to.
pub(crate) const ROOT: Siv = [0; SIV_SIZE];

/// A name directly below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The name; a folder's ends in `/`. Empty for the entry at the prefix itself.
    pub name: String,
    /// For a folder, the smallest key after every key below it; `None` for a leaf.
    pub subtree_end: Option<Vec<u8>>,
}

/// The ciphers for names of all classes. Made once from the name key.
pub(crate) struct Names {
    replicated: ClassNames,
    local: ClassNames,
    node: ClassNames,
}

struct ClassNames {
    class: Class,
    segments: Ciphers,
    timed: Ciphers,
    folders: Mutex<Recent<Folder>>,
    /// Keys of whole paths, leaves included.
    keys: Mutex<Recent<Arc<[u8]>>>,
}

/// A sealed folder.
#[derive(Clone)]
struct Folder {
    /// Its physical key.
    key: Arc<[u8]>,
    /// The synthetic IV of its last segment, to which children are bound.
    siv: Siv,
}

impl Names {
    pub(crate) fn new(name_key: &Secret) -> Result<Self, BarrierError> {
        Ok(Self {
            replicated: ClassNames::new(name_key, Class::Replicated)?,
            local: ClassNames::new(name_key, Class::Local)?,
            node: ClassNames::new(name_key, Class::Node)?,
        })
    }

    const fn class(&self, class: Class) -> &ClassNames {
        match class {
            Class::Replicated => &self.replicated,
            Class::Local => &self.local,
            Class::Node => &self.node,
        }
    }

    pub(crate) fn timed(&self, class: Class) -> &Ciphers {
        &self.class(class).timed
    }

    /// The key of `path`; of a folder when it ends in `/`, of the whole class when it is empty.
    pub(crate) fn seal(&self, class: Class, path: &str) -> Result<Vec<u8>, BarrierError> {
        check_size(path)?;
        if path.split_inclusive('/').count() > SEGMENTS_MAX {
            return Err(BarrierError::PathTooDeep { limit: SEGMENTS_MAX });
        }
        let names = self.class(class);
        if let Some(key) = names.keys.lock().find(path) {
            return Ok(key.to_vec());
        }
        let (folder, leaf) = path.split_at(path.rfind('/').map_or(0, |at| at + 1));
        let folder = names.seal_folder(folder)?;
        let mut key = Vec::with_capacity(folder.key.len() + sealed_size(leaf));
        key.extend_from_slice(&folder.key);
        if !leaf.is_empty() {
            names.seal_segment(&folder.siv, leaf, &mut key)?;
        }
        names.keys.lock().remember(path, key.as_slice().into());
        Ok(key)
    }

    /// The class and path of a key that [`Self::seal`] made.
    pub(crate) fn open(&self, key: &[u8]) -> Result<(Class, String), BarrierError> {
        let mut reader = Reader::new(key);
        let class = Class::from_tag(reader.byte()?)?;
        let names = self.class(class);
        let mut path = String::new();
        let mut parent = ROOT;
        while !reader.rest().is_empty() {
            if !path.is_empty() && !path.ends_with('/') {
                return Err(BarrierError::Malformed("segment below a leaf"));
            }
            let segment = Segment::read(&mut reader)?;
            names.open_segment(&parent, &segment, &mut path)?;
            parent = *segment.siv;
        }
        Ok((class, path))
    }

    /// The first name after `prefix` in `key`. Opens one segment, however deep the key goes.
    pub(crate) fn open_child(&self, prefix: &[u8], key: &[u8]) -> Result<Child, BarrierError> {
        let rest = key.strip_prefix(prefix).ok_or(BarrierError::Malformed("key is outside the prefix"))?;
        let mut above = Reader::new(prefix);
        let names = self.class(Class::from_tag(above.byte()?)?);
        let mut parent = ROOT;
        while !above.rest().is_empty() {
            parent = *Segment::read(&mut above)?.siv;
        }
        let mut name = String::new();
        if rest.is_empty() {
            return Ok(Child { name, subtree_end: None });
        }
        let mut below = Reader::new(rest);
        names.open_segment(&parent, &Segment::read(&mut below)?, &mut name)?;
        if name.ends_with('/') {
            let folder = key.strip_suffix(below.rest()).unwrap_or(key);
            return Ok(Child { name, subtree_end: Some(subtree_end(folder)) });
        }
        if below.rest().is_empty() {
            return Ok(Child { name, subtree_end: None });
        }
        Err(BarrierError::Malformed("segment below a leaf"))
    }
}

impl ClassNames {
    fn new(name_key: &Secret, class: Class) -> Result<Self, BarrierError> {
        Ok(Self {
            class,
            segments: Ciphers::new(name_key, b"arca names v1", class)?,
            timed: Ciphers::new(name_key, b"arca timed v1", class)?,
            folders: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    /// The key of `path`, which is empty or ends in `/`: from the longest folder already known, downwards.
    fn seal_folder(&self, path: &str) -> Result<Folder, BarrierError> {
        let mut known = path;
        let mut folder = loop {
            if known.is_empty() {
                break Folder { key: [self.class.tag()].into(), siv: ROOT };
            }
            if let Some(folder) = self.folders.lock().find(known) {
                break folder;
            }
            let above = known.strip_suffix('/').unwrap_or(known);
            known = above.rfind('/').and_then(|at| above.get(..=at)).unwrap_or_default();
        };
        let mut end = known.len();
        for segment in path.strip_prefix(known).unwrap_or_default().split_inclusive('/') {
            let mut key = Vec::with_capacity(folder.key.len() + sealed_size(segment));
            key.extend_from_slice(&folder.key);
            let siv = self.seal_segment(&folder.siv, segment, &mut key)?;
            folder = Folder { key: key.into(), siv };
            end += segment.len();
            self.folders.lock().remember(path.get(..end).unwrap_or(path), folder.clone());
        }
        Ok(folder)
    }

    fn seal_segment(&self, parent: &Siv, name: &str, key: &mut Vec<u8>) -> Result<Siv, BarrierError> {
        let limit = SEGMENT_SIZE_MAX;
        if name.len() > limit {
            return Err(BarrierError::SegmentTooLong { size: name.len(), limit });
        }
        let size = u16::try_from(SIV_SIZE + padded_size(name)).map_err(|_| BarrierError::Cipher)?;
        key.extend_from_slice(&size.to_be_bytes());
        self.segments.seal(&self.bound_to(parent), name, key)
    }

    fn open_segment(
        &self,
        parent: &Siv,
        segment: &Segment<'_>,
        path: &mut String,
    ) -> Result<(), BarrierError> {
        self.segments.open(&self.bound_to(parent), segment.siv, segment.body, path)
    }

    /// What authenticates along with a segment: its class and the segment above.
    fn bound_to(&self, parent: &Siv) -> [u8; 1 + SIV_SIZE] {
        let mut aad = [self.class.tag(); 1 + SIV_SIZE];
        if let Some(tail) = aad.last_chunk_mut() {
            *tail = *parent;
        }
        aad
    }
}

/// A sealed segment, checked for size only.
struct Segment<'a> {
    siv: &'a Siv,
    body: &'a [u8],
}

impl<'a> Segment<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, BarrierError> {
        let size = usize::from(reader.be_u16()?);
        let size = size.checked_sub(SIV_SIZE).ok_or(BarrierError::Malformed("segment size"))?;
        if size == 0 || size % BLOCK_SIZE != 0 || size > SEGMENT_SIZE_MAX + BLOCK_SIZE {
            return Err(BarrierError::Malformed("segment size"));
        }
        Ok(Self { siv: reader.array()?, body: reader.take(size)? })
    }
}

/// AES-256-SIV under one key. The crate's cipher wants `&mut`, so a few stand ready and are taken in turn.
pub(crate) struct Ciphers {
    key: Box<Zeroizing<[u8; 64]>>,
    ready: [Mutex<Aes256Siv>; 4],
}

impl Ciphers {
    fn new(name_key: &Secret, label: &[u8], class: Class) -> Result<Self, BarrierError> {
        let mut key = Box::new(Zeroizing::new([0; 64]));
        Hkdf::<Sha256>::new(None, name_key.expose())
            .expand_multi_info(&[label, &[class.tag()]], key.as_mut_slice())
            .map_err(|_| BarrierError::Cipher)?;
        let ready = std::array::from_fn(|_| Mutex::new(Self::cipher(&key)));
        Ok(Self { key, ready })
    }

    fn cipher(key: &[u8; 64]) -> Aes256Siv {
        Aes256Siv::new(key.into())
    }

    fn with<T>(&self, run: impl FnOnce(&mut Aes256Siv) -> T) -> T {
        for cipher in &self.ready {
            if let Some(mut cipher) = cipher.try_lock() {
                return run(&mut cipher);
            }
        }
        run(&mut Self::cipher(&self.key))
    }

    /// Appends `siv | ciphertext` of the padded name to `out`.
    pub(crate) fn seal(&self, aad: &[u8], name: &str, out: &mut Vec<u8>) -> Result<Siv, BarrierError> {
        let start = out.len();
        out.extend_from_slice(&ROOT);
        out.extend_from_slice(name.as_bytes());
        out.push(PAD);
        out.resize(start + SIV_SIZE + padded_size(name), 0);
        let (head, body) = out
            .get_mut(start..)
            .and_then(<[u8]>::split_first_chunk_mut::<SIV_SIZE>)
            .ok_or(BarrierError::Cipher)?;
        let siv = self.with(|cipher| cipher.encrypt_inout_detached([aad], body.into()));
        *head = siv.map_err(|_| BarrierError::Cipher)?.into();
        Ok(*head)
    }

    /// Appends the name of `body` to `path`.
    pub(crate) fn open(
        &self,
        aad: &[u8],
        siv: &Siv,
        body: &[u8],
        path: &mut String,
    ) -> Result<(), BarrierError> {
        let mut plain = Zeroizing::new(body.to_vec());
        self.with(|cipher| cipher.decrypt_inout_detached([aad], plain.as_mut_slice().into(), &(*siv).into()))
            .map_err(|_| BarrierError::Authentication)?;
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(BarrierError::Malformed("padding"))?;
        match plain.split_at_checked(end) {
            Some((name, [PAD, zeros @ ..])) if zeros.len() < BLOCK_SIZE => {
                path.push_str(
                    std::str::from_utf8(name).map_err(|_| BarrierError::Malformed("name is not UTF-8"))?,
                );
                Ok(())
            }
            _ => Err(BarrierError::Malformed("padding")),
        }
    }
}

pub(crate) const fn check_size(path: &str) -> Result<(), BarrierError> {
    if path.len() > PATH_SIZE_MAX {
        return Err(BarrierError::PathTooLong { size: path.len(), limit: PATH_SIZE_MAX });
    }
    Ok(())
}

const fn padded_size(name: &str) -> usize {
    (name.len() / BLOCK_SIZE + 1) * BLOCK_SIZE
}

/// Bytes of a sealed segment with its size in front.
const fn sealed_size(name: &str) -> usize {
    if name.is_empty() { 0 } else { 2 + SIV_SIZE + padded_size(name) }
}

/// The smallest key after every name that starts with `prefix`, a key made from a folder's path.
pub(crate) fn subtree_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if end.len() == 1 {
        // The whole class: other keys share its byte, after all names.
        end.push(NOT_A_NAME);
        return end;
    }
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}
