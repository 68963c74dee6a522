//! How long things took.

use crate::history::Operation;

/// Nanoseconds from invocation to end; none for what never ended.
pub(super) fn of(operation: &Operation) -> Option<u64> {
    operation.ended_ns.map(|ended| ended.saturating_sub(operation.invoked_ns))
}

/// The value below or at which so many per mille of `sorted` lie (nearest rank).
pub(super) fn per_mille(sorted: &[u64], wanted: usize) -> Option<u64> {
    let rank = (sorted.len() * wanted).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sorted: &[u64], wanted: usize, want: Option<u64>) {
        assert_eq!(per_mille(sorted, wanted), want, "{wanted} of {sorted:?}");
    }

    #[test]
    fn nearest_rank() {
        check(&[], 500, None);
        check(&[7], 500, Some(7));
        check(&[1, 2, 3, 4], 500, Some(2));
        check(&[1, 2, 3, 4], 990, Some(4));
        check(&[1, 2, 3, 4], 1_000, Some(4));
        check(&[1, 2, 3, 4], 0, Some(1));
    }
}
