//! Auth methods that a path filter keeps from a performance secondary: who is who there is not for it to say, although
//! entities, groups and their aliases are shared with it.
//!
//! **Invariant:** whatever request changes an alias asks here first, of what it is and of what it becomes.

use super::record::AliasRecord;
use crate::KernelError;
use crate::builtin::BuiltinCtx;
use crate::replication::filter;

/// Refuses what a secondary has asked for about the auth method with an accessor, if that is kept from it.
pub(super) fn check_method(ctx: &BuiltinCtx<'_>, accessor: &str) -> Result<(), KernelError> {
    let Some(secondary_id) = ctx.secondary_id else { return Ok(()) };
    let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
    // Also of one that is being moved, which requests do not reach meanwhile.
    match router.by_accessor(&ctx.namespace.id, accessor) {
        Some(mount) if filter::withholds(ctx.tx, secondary_id, mount)? => {
            Err(KernelError::invalid(filter::METHOD_KEPT))
        }
        _ => Ok(()),
    }
}

/// The same about the auth methods of some aliases.
pub(super) fn check_aliases<'a>(
    ctx: &BuiltinCtx<'_>,
    aliases: impl IntoIterator<Item = &'a AliasRecord>,
) -> Result<(), KernelError> {
    aliases.into_iter().try_for_each(|alias| check_method(ctx, &alias.mount_accessor))
}
