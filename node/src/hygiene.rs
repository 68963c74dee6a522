//! Keeps secrets in memory out of swap, core dumps and other processes' reach.

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
