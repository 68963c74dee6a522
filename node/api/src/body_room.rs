//! Room for the request bodies being read and served: however many clients send at once, their bodies together take no
//! more memory than the listener allows.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a body that need no room: small requests are served whatever large ones are under way. Their memory is
/// bounded by the number of requests, and of bodies still coming.
pub(crate) const SMALL_BODY_SIZE: usize = 16 << 10;
/// Bytes in one unit of room.
const UNIT: usize = 1 << 10;

/// No room is left at the moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// All the room of a listener.
#[derive(Clone)]
pub(crate) struct BodyRoom(Arc<Semaphore>);

impl BodyRoom {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for one body, which has no bytes yet.
    pub(crate) fn place(&self) -> Place {
        Place { room: Arc::clone(&self.0), taken: None }
    }
}

/// The room one body takes; given back when dropped.
pub(crate) struct Place {
    room: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Takes what a body of `size` bytes needs. Only bytes that have come count: a large announcement takes no room
    /// from others.
    pub(crate) fn grow(&mut self, size: usize) -> Result<(), NoRoom> {
        let needed = size.saturating_sub(SMALL_BODY_SIZE).div_ceil(UNIT);
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(needed.saturating_sub(taken)).map_err(|_| NoRoom)?;
        if more == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.room).try_acquire_many_owned(more).map_err(|_| NoRoom)?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_the_room_and_small_ones_need_none() {
        let room = BodyRoom::new(100 * UNIT);
        let (mut first, mut second) = (room.place(), room.place());
        assert_eq!(first.grow(SMALL_BODY_SIZE + 60 * UNIT), Ok(()));
        assert_eq!(second.grow(SMALL_BODY_SIZE + 40 * UNIT), Ok(()));
        assert_eq!(second.grow(SMALL_BODY_SIZE + 40 * UNIT + 1), Err(NoRoom));
        assert_eq!(room.place().grow(SMALL_BODY_SIZE), Ok(()));
        assert_eq!(room.place().grow(SMALL_BODY_SIZE + 1), Err(NoRoom));
        drop(first);
        assert_eq!(second.grow(SMALL_BODY_SIZE + 100 * UNIT), Ok(()));
        assert_eq!(second.grow(usize::MAX), Err(NoRoom));
    }
}
