//! The bytes of a segment: its header and the frame around every record. See `docs/formats/raft-log.md`.
//!
//! Every frame's checksum covers the segment number and the offset it stands at, so a record that turns up somewhere
//! else is damage. Kinds and flags are on disk for ever: never renumber, never reuse.

use bytes::Bytes;

use super::{ClusterId, EntryId};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 96;
/// Bytes of a record before its payload.
pub const FRAME_BYTES: usize = 48;
/// Most bytes one record may carry.
pub const PAYLOAD_MAX: usize = 64 << 20;
/// The format written, and the newest read.
pub const FORMAT_VERSION: u8 = 1;

pub(super) const HASH_BYTES: usize = 32;
pub(super) type Hash = [u8; HASH_BYTES];

const MAGIC: [u8; 7] = *b"ARCALOG";
const FLAG_LAST_OF_BATCH: u8 = 1;
const FLAG_NONE: u8 = 2;

/// The first bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u32,
    pub(super) cluster: ClusterId,
    /// What the previous segment's seal says; zeros in the first segment ever.
    pub(super) previous: Hash,
}

/// Why bytes are no header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Checksum,
    Magic,
    Newer(u8),
    Short,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(FORMAT_VERSION);
        bytes.extend_from_slice(&u64::from(self.number).to_le_bytes());
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.previous);
        bytes.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let mut fields = Fields(bytes);
        let magic: [u8; 7] = fields.take().ok_or(BadHeader::Short)?;
        if magic != MAGIC {
            return Err(BadHeader::Magic);
        }
        let [version] = fields.take().ok_or(BadHeader::Short)?;
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let number = fields.u64().ok_or(BadHeader::Short)?;
        let cluster = ClusterId(fields.take().ok_or(BadHeader::Short)?);
        let previous = fields.take().ok_or(BadHeader::Short)?;
        let reserved: [u8; 28] = fields.take().ok_or(BadHeader::Short)?;
        let crc = fields.u32().ok_or(BadHeader::Short)?;
        let covered = bytes.get(..HEADER_BYTES - 4).ok_or(BadHeader::Short)?;
        let is_sound = crc == crc32c::crc32c(covered) && version == FORMAT_VERSION && reserved == [0; 28];
        let number = u32::try_from(number).map_err(|_| BadHeader::Checksum)?;
        if is_sound { Ok(Self { number, cluster, previous }) } else { Err(BadHeader::Checksum) }
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Entry = 1,
    Vote = 2,
    Committed = 3,
    Truncate = 4,
    Purge = 5,
    Seal = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Entry, Self::Vote, Self::Committed, Self::Truncate, Self::Purge, Self::Seal]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Whose meaning is the writer's: what sort of payload an entry carries.
    pub(super) tag: u8,
    /// Batches are written and synced one after the other; a batch without its last record was never acknowledged.
    pub(super) is_last_of_batch: bool,
    pub(super) batch: u64,
    /// The entry, or the one committed, truncated after or purged up to. `None` is "nothing" or "everything".
    pub(super) id: Option<EntryId>,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
}

/// Why bytes are no frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadFrame {
    /// The checksum holds, so a newer Arca wrote it.
    Newer(u8),
    Unreadable,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

impl Frame {
    /// Bytes of the whole record.
    pub(super) fn record_len(&self) -> usize {
        FRAME_BYTES + self.payload_len as usize
    }

    pub(super) fn is_payload(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len as usize && crc32c::crc32c(payload) == self.payload_crc
    }

    /// The first byte is never zero and the last four are a checksum, so that no written stretch of a frame is all
    /// zeros where a sector border cuts it: zeros mean "never written" ([`super::scan`]).
    fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(FRAME_BYTES);
        let last = if self.is_last_of_batch { FLAG_LAST_OF_BATCH } else { 0 };
        let none = if self.id.is_none() { FLAG_NONE } else { 0 };
        body.extend_from_slice(&[self.kind as u8, self.tag, last | none, 0]);
        body.extend_from_slice(&self.payload_len.to_le_bytes());
        let id = self.id.unwrap_or_default();
        for field in [self.batch, id.index, id.term, id.leader] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        body.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&body);
        out.extend_from_slice(&frame_crc(place, &body).to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8], place: Place) -> Result<Self, BadFrame> {
        let body = bytes.get(..FRAME_BYTES - 4).ok_or(BadFrame::Unreadable)?;
        Self::fields(bytes, place, body).unwrap_or(Err(BadFrame::Unreadable))
    }

    fn fields(bytes: &[u8], place: Place, body: &[u8]) -> Option<Result<Self, BadFrame>> {
        let mut fields = Fields(bytes);
        let [kind, tag, flags, reserved] = fields.take()?;
        let payload_len = fields.u32()?;
        // The cheap tests first: the search for a record after damage tries every offset.
        if kind == 0 || payload_len as usize > PAYLOAD_MAX {
            return None;
        }
        let batch = fields.u64()?;
        let (index, term, leader) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let payload_crc = fields.u32()?;
        if fields.u32()? != frame_crc(place, body) {
            return None;
        }
        let Some(known) = Kind::from_byte(kind).filter(|_| reserved == 0 && flags <= 3) else {
            return Some(Err(BadFrame::Newer(kind)));
        };
        Some(Ok(Self {
            kind: known,
            tag,
            is_last_of_batch: flags & FLAG_LAST_OF_BATCH != 0,
            batch,
            id: (flags & FLAG_NONE == 0).then_some(EntryId { term, leader, index }),
            payload_len,
            payload_crc,
        }))
    }
}

fn frame_crc(place: Place, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&place.segment.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &place.offset.to_le_bytes()), body)
}

/// A record before it has a place.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) tag: u8,
    pub(super) id: Option<EntryId>,
    pub(super) payload: Bytes,
}

impl Record {
    pub(super) fn bare(kind: Kind, id: Option<EntryId>) -> Self {
        Self { kind, tag: 0, id, payload: Bytes::new() }
    }

    pub(super) fn vote(vote: Bytes) -> Self {
        Self { kind: Kind::Vote, tag: 0, id: None, payload: vote }
    }
}

/// Records that go to the disk together: one write, one sync.
pub(super) struct BatchWriter {
    start: Place,
    batch: u64,
    bytes: Vec<u8>,
    held: Option<Record>,
}

impl BatchWriter {
    /// `buffer` is reused, not read.
    pub(super) fn new(start: Place, batch: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { start, batch, bytes: buffer, held: None }
    }

    /// Adds a record and returns the offset it will stand at.
    pub(super) fn push(&mut self, record: Record) -> u64 {
        self.settle(false);
        self.held = Some(record);
        self.offset()
    }

    /// Ends the batch: its bytes from the start place on.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.settle(true);
        self.bytes
    }

    /// Adds the seal and ends the batch. `hasher` has seen the segment up to the batch.
    pub(super) fn finish_sealed(
        mut self,
        last: Option<EntryId>,
        mut hasher: blake3::Hasher,
    ) -> (Vec<u8>, Hash) {
        self.settle(false);
        let hash = *hasher.update(&self.bytes).finalize().as_bytes();
        self.held = Some(Record { payload: Bytes::copy_from_slice(&hash), ..Record::bare(Kind::Seal, last) });
        (self.finish(), hash)
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.held.as_ref().map_or(0, |record| FRAME_BYTES + record.payload.len())
    }

    fn offset(&self) -> u64 {
        self.start.offset + self.bytes.len() as u64
    }

    fn settle(&mut self, is_last_of_batch: bool) {
        let Some(record) = self.held.take() else { return };
        let frame = Frame {
            kind: record.kind,
            tag: record.tag,
            is_last_of_batch,
            batch: self.batch,
            id: record.id,
            // Payloads over `PAYLOAD_MAX` are refused where they come in.
            payload_len: u32::try_from(record.payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(&record.payload),
        };
        frame.encode(Place { segment: self.start.segment, offset: self.offset() }, &mut self.bytes);
        self.bytes.extend_from_slice(&record.payload);
    }
}

/// Little-endian fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_header() {
        let header = Header { number: 7, cluster: ClusterId([0xc1; 16]), previous: [0x33; 32] };
        let bytes = header.encode();
        assert_eq!(hex(&bytes), include_str!("golden/header_v1.hex").trim());
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn golden_batch() {
        let start = Place { segment: 7, offset: 96 };
        let mut batch = BatchWriter::new(start, 5, Vec::new());
        let id = EntryId { term: 3, leader: 2, index: 41 };
        batch.push(Record::vote(Bytes::from_static(b"vote")));
        batch.push(Record { kind: Kind::Entry, tag: 1, id: Some(id), payload: Bytes::from_static(b"entry") });
        batch.push(Record::bare(Kind::Committed, Some(id)));
        batch.push(Record::bare(Kind::Truncate, None));
        batch.push(Record::bare(Kind::Purge, Some(id)));
        let (bytes, _) = batch.finish_sealed(Some(id), blake3::Hasher::new());
        assert_eq!(hex(&bytes), include_str!("golden/batch_v1.hex").trim());
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = Header { number: 1, cluster: ClusterId([0; 16]), previous: [0; 32] }.encode();
        bytes[7] = 2;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(2)));
        assert_eq!(Header::decode(b"SQLite format 3\0"), Err(BadHeader::Magic));
    }

    #[test]
    fn a_record_elsewhere_is_no_record() {
        let place = Place { segment: 1, offset: 96 };
        let mut batch = BatchWriter::new(place, 1, Vec::new());
        batch.push(Record::vote(Bytes::from_static(b"v")));
        let bytes = batch.finish();
        assert!(Frame::decode(&bytes, place).is_ok());
        assert_eq!(Frame::decode(&bytes, Place { offset: 97, ..place }), Err(BadFrame::Unreadable));
        assert_eq!(Frame::decode(&bytes, Place { segment: 2, ..place }), Err(BadFrame::Unreadable));
    }
}
