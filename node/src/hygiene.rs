//! What the process asks of the system at start: secrets in memory stay out of swap, core dumps and other processes'
//! reach, and clients cannot take the file descriptors that the log and the database need.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Turns core dumps and debugger attachment off, and locks all pages. Call before any secret exists.
///
/// # Errors
/// When pages cannot be locked: the process lacks the right (`CAP_IPC_LOCK`) or a limit (`RLIMIT_MEMLOCK`) is too low.
pub(crate) fn protect(locks_memory: bool) -> Result<(), String> {
    // Whatever any library creates is this user's alone (CVE-2021-38553).
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
        .map_err(|err| format!("core dumps could not be turned off: {err}"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|err| format!("core dumps could not be turned off: {err}"))?;
    if locks_memory {
        use rustix::mm::MlockAllFlags;
        rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(|err| {
            format!(
                "memory could not be locked: {err}. Give the process CAP_IPC_LOCK or raise its memlock limit; with swap \
                 off or encrypted, `disable_mlock = true` is the alternative"
            )
        })?;
    }
    Ok(())
}

/// Keeps the kernel from backing the heap with huge pages: a node's many small allocations then hold twice the memory
/// they use. A kernel without the call goes on as it is.
pub(crate) fn decline_huge_pages() {
    if let Err(err) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(error = %err, "huge pages could not be declined");
    }
}

/// Most connections of all listeners together, whatever the system would allow.
const CONNECTIONS_MAX: u64 = 16_384;
/// Fewest connections of a listener, however little the system allows.
const CONNECTIONS_MIN: u64 = 16;
/// Below so many descriptors an operator should know.
const DESCRIPTORS_LOW: u64 = 4_096;

/// Raises the limit on file descriptors as far as the process may, and returns it.
#[must_use]
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let reached = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(err) => {
            tracing::warn!(error = %err, "the limit on file descriptors could not be raised");
            limit.current
        }
    };
    let reached = reached.unwrap_or(u64::MAX);
    if reached < DESCRIPTORS_LOW {
        tracing::warn!(
            limit = reached,
            connections = connections_within(reached, 1),
            "few file descriptors: raise the process's hard limit (LimitNOFILE=, ulimit -Hn) to serve more clients"
        );
    }
    reached
}

/// Most connections of each of `listeners`: clients get half of the descriptors, log, database and peers keep the rest.
#[must_use]
pub(crate) fn connections_within(descriptors: u64, listeners: usize) -> usize {
    let share = (descriptors / 2).min(CONNECTIONS_MAX) / u64::try_from(listeners.max(1)).unwrap_or(u64::MAX);
    usize::try_from(share.max(CONNECTIONS_MIN)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_half_of_the_descriptors() {
        for (descriptors, listeners, want) in [
            (1_024, 1, 512),
            (1_024, 2, 256),
            (20_000, 1, 10_000),
            (1_048_576, 1, 16_384),
            (u64::MAX, 4, 4_096),
            (64, 8, 16),
            (1_024, 0, 512),
        ] {
            let got = connections_within(descriptors, listeners);
            assert_eq!(got, want, "{listeners} listeners and {descriptors} descriptors");
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise_descriptor_limit(), hard);
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), hard);
    }
}
