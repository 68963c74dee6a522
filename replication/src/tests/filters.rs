//! A filter that changes: nothing that came behind the change goes out as the one before it says.

use std::sync::Arc;

use arca_raft_storage::{MemberId, ReadView, Replica as _, Write};
use bytes::Bytes;
use futures::StreamExt as _;

use super::region::{Region, key, put};
use super::road::Road;
use crate::{
    Cursor, CursorMessage, History, Kind, LinkError, PayloadStream, Primary, Refusal, Rules, Segment, Sieve,
    Sieved, Sieves,
};

const FILTER: &[u8] = b"\x01filter";

/// Keeps back what the record at [`FILTER`] names.
#[derive(Debug)]
struct ByRecord;

impl Sieves for ByRecord {
    fn of(&self, view: &Arc<dyn ReadView>) -> Result<Sieved, String> {
        let found = view.get(FILTER).map_err(|err| err.to_string())?;
        let (prefix, since) = found.map_or_else(Default::default, |found| (found.value, found.version.0));
        let rules: Rules = (!prefix.is_empty()).then_some((prefix, false)).into_iter().collect();
        Ok(Sieved { sieve: Sieve { rules, ..Sieve::new(Kind::Performance) }, since })
    }
}

pub(super) async fn primary() -> Region {
    let mut east = Region::new("east", 1).await;
    east.lead(1, &[Road::new("west", Sieve::new(Kind::Dr))]).await;
    for source in east.sources() {
        let secondaries = ["far".to_owned()].into();
        source.set_primary(Kind::Performance, Some(Primary { secondaries, ..Primary::default() }));
    }
    east
}

/// Where a secondary is that has the state as it is now.
pub(super) async fn cursor(east: &Region) -> Cursor {
    let leader = east.leader().await;
    let view = leader.view();
    let generation = History::at(leader.as_ref(), view.as_ref()).unwrap();
    Cursor::after_copy(crate::Epoch(0), generation, view.index())
}

pub(super) async fn follow(east: &Region, cursor: Cursor) -> PayloadStream {
    let source = east.source(MemberId(1));
    let payload: Bytes = CursorMessage(cursor).encode().into();
    source.follow("far", Kind::Performance, Arc::new(ByRecord), payload).await.unwrap()
}

/// Keys of the next segment that has any.
pub(super) async fn next(stream: &mut PayloadStream) -> Result<Vec<Vec<u8>>, LinkError> {
    loop {
        let segment = Segment::decode(stream.next().await.unwrap()?).unwrap().1;
        let writes = segment.entries.iter().flat_map(|entry| &entry.writes);
        let keys: Vec<_> = writes.map(|write| write.key().to_vec()).collect();
        if !keys.is_empty() {
            return Ok(keys);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_where_the_filter_changes() {
    let east = primary().await;
    let before = cursor(&east).await;
    let mut stream = follow(&east, before).await;
    east.write(key(1, "secret/a"), b"1").await;
    assert_eq!(next(&mut stream).await, Ok(vec![key(1, "secret/a")]));
    // In one entry with what must not go out any more.
    let mut set = put(FILTER.to_vec(), b"\x01secret/");
    set.writes.push(Write::Put(key(1, "secret/a"), b"2".to_vec()));
    east.leader().await.propose(set).await.unwrap();
    assert_eq!(next(&mut stream).await, Err(LinkError::Refused(Refusal::Gone)));
    assert!(stream.next().await.is_none());

    // Nor by a stream from before it, or from right before it.
    let mut stream = follow(&east, before).await;
    assert_eq!(next(&mut stream).await, Err(LinkError::Refused(Refusal::Gone)));
    let after = cursor(&east).await;
    let mut stream = follow(&east, Cursor { index: after.index - 1, ..after }).await;
    assert_eq!(next(&mut stream).await, Err(LinkError::Refused(Refusal::Gone)));

    // Who has compared since goes on, and gets what passes.
    let mut stream = follow(&east, after).await;
    east.write(key(1, "secret/a"), b"3").await;
    east.write(key(1, "other"), b"1").await;
    assert_eq!(next(&mut stream).await, Ok(vec![key(1, "other")]));
    east.write(FILTER.to_vec(), b"").await;
    assert_eq!(next(&mut stream).await, Err(LinkError::Refused(Refusal::Gone)));
}

/// It is not the filter that changed, but everything: an operator has to look.
#[tokio::test(start_paused = true)]
async fn a_restored_backup_is_no_change_of_a_filter() {
    let east = primary().await;
    east.write(FILTER.to_vec(), b"\x01secret/").await;
    let leader = east.leader().await;
    let (backup, before) = (leader.export().await.unwrap(), cursor(&east).await);
    leader.import(backup).await.unwrap();
    east.write(key(1, "a"), b"after").await;
    let mut stream = follow(&east, before).await;
    assert_eq!(next(&mut stream).await, Err(LinkError::Refused(Refusal::Replaced)));
}
