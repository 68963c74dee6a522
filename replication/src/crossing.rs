//! What is in the messages that a primary sends: for those who check what leaves a cluster, as the simulation does.

use arca_raft_storage::{Key, Write};
use bytes::Bytes;

use crate::codec::Malformed;
use crate::link::Call;
use crate::segment::Segment;
use crate::{compare, copy};

/// The keys of every entry in a primary's answer to `call`, or in a message of its stream.
///
/// # Errors
/// When it is none that this version reads.
pub fn keys(call: Call, payload: &Bytes) -> Result<Vec<Key>, Malformed> {
    match call {
        Call::Follow => {
            let (_, segment) = Segment::decode(payload.clone())?;
            Ok(segment
                .entries
                .iter()
                .flat_map(|entry| &entry.writes)
                .map(Write::key)
                .map(<[u8]>::to_vec)
                .collect())
        }
        Call::Copy => copy::keys(payload.clone()),
        Call::Compare => compare::keys(payload.clone()),
        Call::Acknowledge | Call::Announce | Call::Ask | Call::Present => Ok(Vec::new()),
    }
}
