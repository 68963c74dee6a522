//! The frames a whole state travels in, between members and in backups.
//!
//! ```text
//! frame   := kind u8 | length u32 | payload | CRC32C u32 over all before
//! stream  := header, data…, trailer
//! header  := "ARCASTAT" | format u32 | scope u8 | cluster | index | log id | membership
//! data    := piece of (key length, key, value length, value)…, ascending by key
//! trailer := number of entries u64 | BLAKE3 of every frame before
//! ```
//! Fixed-size numbers are big endian, the rest varints. A reader need not be given whole frames.

use bytes::{Buf, Bytes, BytesMut};

use super::export::Scope;
use super::{Header, Meta, StateError, meta};
use crate::codec::{self, Malformed, Reader};

/// Largest frame.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Largest payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES - CHECKSUM_BYTES;
const HEAD_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 4;
const MAGIC: &[u8; 8] = b"ARCASTAT";
/// Newest format this build knows.
const FORMAT: u32 = 1;
/// Longest name of a cluster.
const CLUSTER_BYTES_MAX: usize = 256;

// In backups for ever: never renumber, never reuse.
const HEADER: u8 = 1;
const DATA: u8 = 2;
const TRAILER: u8 = 3;

/// Makes the frames of one stream.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    hasher: blake3::Hasher,
}

impl Encoder {
    pub(super) fn header(&mut self, scope: Scope, header: &Header) -> Bytes {
        let mut payload = MAGIC.to_vec();
        payload.extend_from_slice(&FORMAT.to_be_bytes());
        payload.push(scope as u8);
        codec::put_bytes(&mut payload, &header.cluster);
        codec::put_varint(&mut payload, header.meta.index);
        codec::put_bytes(&mut payload, &header.meta.log_id);
        codec::put_bytes(&mut payload, &header.meta.membership);
        self.frame(HEADER, &payload)
    }

    pub(super) fn data(&mut self, payload: &[u8]) -> Bytes {
        self.frame(DATA, payload)
    }

    pub(super) fn trailer(&mut self, entries: u64) -> Bytes {
        let mut payload = entries.to_be_bytes().to_vec();
        payload.extend_from_slice(self.hasher.finalize().as_bytes());
        self.frame(TRAILER, &payload)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Bytes {
        let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len() + CHECKSUM_BYTES);
        frame.push(kind);
        // Callers keep to PAYLOAD_BYTES_MAX, and a reader refuses what is over it.
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&crc32c::crc32c(&frame).to_be_bytes());
        self.hasher.update(&frame);
        frame.into()
    }
}

/// One verified frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Header(Scope, Header),
    Data(Bytes),
    Trailer { entries: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Header,
    Data,
    Nothing,
}

/// Takes a stream apart, verifying every frame before giving it out, and the whole at the trailer.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: BytesMut,
    hasher: blake3::Hasher,
    expect: Expect,
    frames: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        let (buffer, hasher) = (BytesMut::new(), blake3::Hasher::new());
        Self { buffer, hasher, expect: Expect::Header, frames: 0 }
    }
}

impl Decoder {
    /// Adds bytes. Take out all parts before adding more: what is kept is then less than a frame.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part, if all of it is there.
    pub(super) fn part(&mut self) -> Result<Option<Part>, StateError> {
        if self.expect == Expect::Nothing {
            return if self.buffer.is_empty() {
                Ok(None)
            } else {
                Err(self.damaged("bytes follow the trailer"))
            };
        }
        let mut head = Reader::new(&self.buffer);
        let (Ok(kind), Ok(length)) = (head.byte(), head.array()) else { return Ok(None) };
        let length = u32::from_be_bytes(length) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("length is over the limit"));
        }
        let (Ok(_), Ok(checksum)) = (head.take(length), head.array()) else { return Ok(None) };
        let mut frame = self.buffer.split_to(HEAD_BYTES + length + CHECKSUM_BYTES).freeze();
        let covered = frame.slice(..HEAD_BYTES + length);
        if crc32c::crc32c(&covered) != u32::from_be_bytes(checksum) {
            return Err(self.damaged("checksum does not match"));
        }
        let whole = self.hasher.finalize();
        self.hasher.update(&frame);
        frame.advance(HEAD_BYTES);
        frame.truncate(length);
        let part = match (self.expect, kind) {
            (Expect::Header, HEADER) => {
                let (scope, header) = self.header(&frame)?;
                self.expect = Expect::Data;
                Part::Header(scope, header)
            }
            (Expect::Data, DATA) => Part::Data(frame),
            (Expect::Data, TRAILER) => {
                self.expect = Expect::Nothing;
                self.trailer(&frame, &whole)?
            }
            _ => return Err(self.damaged("not the kind that belongs here")),
        };
        self.frames += 1;
        Ok(Some(part))
    }

    /// Whether the stream ended where it should.
    pub(super) fn finish(&self) -> Result<(), StateError> {
        if self.expect == Expect::Nothing && self.buffer.is_empty() {
            return Ok(());
        }
        Err(self.damaged("the stream ends early"))
    }

    fn header(&self, payload: &[u8]) -> Result<(Scope, Header), StateError> {
        let mut reader = Reader::new(payload);
        let magic = reader.array::<8>().map_err(|problem| self.damaged(problem.0))?;
        if magic != *MAGIC {
            return Err(self.damaged("not a state of Arca"));
        }
        let format = reader.array().map(u32::from_be_bytes).map_err(|problem| self.damaged(problem.0))?;
        if format > FORMAT {
            return Err(StateError::NewerFormat { found: format, known: FORMAT });
        }
        decode_header(reader).map_err(|problem| self.damaged(problem.0))
    }

    fn trailer(&self, payload: &[u8], whole: &blake3::Hash) -> Result<Part, StateError> {
        let mut reader = Reader::new(payload);
        let parsed =
            reader.array().and_then(|entries| Ok((u64::from_be_bytes(entries), reader.array::<32>()?)));
        let (entries, digest) = parsed.map_err(|problem| self.damaged(problem.0))?;
        reader.finish().map_err(|problem| self.damaged(problem.0))?;
        if *whole != digest {
            return Err(self.damaged("the hash over everything does not match"));
        }
        Ok(Part::Trailer { entries })
    }

    fn damaged(&self, problem: &str) -> StateError {
        StateError::Damaged(format!("frame {}: {problem}", self.frames))
    }
}

fn decode_header(mut reader: Reader<'_>) -> Result<(Scope, Header), Malformed> {
    let scope = Scope::from_tag(reader.byte()?).ok_or(Malformed("unknown scope"))?;
    let cluster = reader.bytes(CLUSTER_BYTES_MAX)?.to_vec();
    let index = reader.varint()?;
    let log_id = reader.bytes(meta::OPAQUE_BYTES_MAX)?.to_vec();
    let membership = reader.bytes(meta::OPAQUE_BYTES_MAX)?.to_vec();
    reader.finish()?;
    Ok((scope, Header { cluster, meta: Meta { index, log_id, membership } }))
}
