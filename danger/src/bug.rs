//! The faults, each with what it does and what it would cost.

/// What kind of promise a fault breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// Something happens that must not: a run that merely gets stuck has not shown it.
    Safety,
    /// Something does not happen that must.
    Progress,
}

/// Makes the list once: an enum, [`Bug::ALL`], and the names.
macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident $name:literal $breaks:ident,)+) => {
        /// A fault that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[$doc])* $variant,)+
        }

        impl Bug {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name, as orders and tables have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it breaks.
            #[must_use]
            pub const fn breaks(self) -> Breaks {
                match self {
                    $(Self::$variant => Breaks::$breaks,)+
                }
            }
        }
    };
}

bugs! {
    // The log.
    /// Entries count as durable while they are still being written: a power loss takes what was acknowledged.
    AcknowledgeBeforeSync "acknowledge-before-sync" Safety,
    /// A failed sync is repeated, and the second answer believed: the kernel has let go of the pages by then,
    /// and what was acknowledged vanishes at the next power loss.
    FailedSyncRepeated "failed-sync-repeated" Safety,
    /// Everybody who waits for a batch is told that it is durable although its sync failed.
    FailedSyncAcknowledged "failed-sync-acknowledged" Safety,
    /// After a restart the first vote of the log counts, not the last: a member votes twice in a term.
    OldVoteAfterRestart "old-vote-after-restart" Safety,
    /// Checksums of entries are not compared, so that a torn tail is taken for entries: a member applies
    /// rubbish.
    TornTailAccepted "torn-tail-accepted" Safety,
    /// That entries were dropped is not written down: after a restart they are back.
    TruncationNotLogged "truncation-not-logged" Safety,
    /// A vote is answered while it is still being written: after a power loss the member votes again in the
    /// same term.
    VoteBeforeSync "vote-before-sync" Safety,

    // The state machine and its snapshots.
    /// The applied index is written before the data, in a batch of its own: a crash between the two loses the
    /// data for good.
    AppliedIndexBeforeData "applied-index-before-data" Safety,
    /// A conflict check passes where the key was deleted meanwhile: what may be taken once is taken twice.
    ConflictIgnoresDeletes "conflict-ignores-deletes" Safety,
    /// A conflict check does not see what is applied in the same batch: of two check-and-sets both succeed.
    ConflictIgnoresPending "conflict-ignores-pending" Safety,
    /// Conflicts are not checked at all: updates are lost.
    ConflictUnchecked "conflict-unchecked" Safety,
    /// Versions remembered for conflict checks are not brought up to date: members that remember differently
    /// decide differently, and part for ever.
    VersionsNotRemembered "versions-not-remembered" Safety,
    /// The log is purged up to what is applied, durable or not: after a power loss the entries are nowhere.
    PurgeBeforeFlush "purge-before-flush" Safety,
    /// A received state does not evict what was cached from the one before: a member answers with old values.
    SnapshotKeepsCaches "snapshot-keeps-caches" Safety,
    /// A received state is filled into the one before: deleted entries come back on that member.
    SnapshotOverOldState "snapshot-over-old-state" Safety,
    /// A received state lacks the membership once the member restarts.
    SnapshotWithoutMembership "snapshot-without-membership" Safety,

    // Replication and elections.
    /// An append without an answer in time counts as done: a leader commits with a minority.
    SilenceCountsAsAppended "silence-counts-as-appended" Safety,
    /// A vote without an answer in time counts as granted: a minority elects.
    SilenceCountsAsVote "silence-counts-as-vote" Safety,
    /// A follower keeps the entries it has, whatever its leader sends in their place: logs part.
    ConflictingEntriesKept "conflicting-entries-kept" Safety,
    /// A vote is granted whatever the candidate has in its log: one without acknowledged entries is elected.
    VoteIgnoresLog "vote-ignores-log" Safety,
    /// A member that has just started votes at once, although it may have granted a lease in its last life:
    /// while its leader answers reads from the lease, another commits.
    FreshMemberVotes "fresh-member-votes" Safety,

    // Reads.
    /// A member that does not lead reads what it has, without asking how far it must be.
    FollowerReadsLocally "follower-reads-locally" Safety,
    /// A leader's lease never runs out: one that is cut off answers with old values.
    LeaseNeverEnds "lease-never-ends" Safety,
    /// A leader's lease goes on although it asked another member to take over.
    LeaseOutlivesHandOver "lease-outlives-hand-over" Safety,
    /// A new leader answers from its lease before it has applied what its predecessors committed.
    NewLeaderReadsEarly "new-leader-reads-early" Safety,
    /// A leader answers from what it has applied, although others were told of more and may have shown it.
    ToldCommitIgnored "told-commit-ignored" Safety,
    /// A read joins a question that was asked before it came: what was committed in between is missing.
    ReadIndexJoinedLate "read-index-joined-late" Safety,
    /// A read waits for one entry too few.
    ReadIndexOneShort "read-index-one-short" Safety,
    /// A member that believes that it leads answers for the commit index without asking a quorum.
    ReadIndexUnconfirmed "read-index-unconfirmed" Safety,

    // Proposals and requests.
    /// A request is answered before what it wrote is committed.
    AnswerBeforeCommit "answer-before-commit" Safety,
    /// A write set that was refused for a conflict is answered as written.
    ConflictAnsweredAsWritten "conflict-answered-as-written" Safety,
    /// A forwarded request without an answer is sent again: a write happens twice.
    ForwardedTwice "forwarded-twice" Safety,
    /// A proposal whose outcome is unknown counts as refused, and is made again: a write happens twice.
    UnknownTakenForRefused "unknown-taken-for-refused" Safety,
    /// Applying an entry does not evict what was opened before: reads show old values.
    CacheNotEvicted "cache-not-evicted" Safety,

    // Tokens, leases and wrapped answers.
    /// Decoded records stay cached although they were changed: a revoked token is still accepted.
    RevokedTokenCached "revoked-token-cached" Safety,
    /// A use is taken from the record that was read for the check, unguarded: parallel requests share one.
    UseTakenUnguarded "use-taken-unguarded" Safety,
    /// A standby answers reads of a token that counts its uses without taking one.
    UseNotTakenOnStandby "use-not-taken-on-standby" Safety,
    /// A wrapped answer stays where it is when it is taken out.
    WrappingTakenTwice "wrapping-taken-twice" Safety,
    /// A token is accepted after its deadline, as long as nobody has taken it away.
    TokenExpiryIgnored "token-expiry-ignored" Safety,
    /// A node that leads a second time does not keep house again: nothing that is due is revoked.
    HousekeepingOnce "housekeeping-once" Progress,

    // Logins, and what engines do outside.
    /// What is kept decoded is read unguarded: of several logins at once with the last use of a secret id, all succeed.
    DecodedReadUnguarded "decoded-read-unguarded" Safety,
    /// What is to be made outside is made before the intent is committed: after a crash in between nobody knows of it.
    EffectBeforeIntent "effect-before-intent" Safety,
    /// What did not answer in time counts as ended, and is undone at once: made after that, it stays for good.
    GivenUpCountsAsEnded "given-up-counts-as-ended" Safety,
    /// A lease goes before its engine has undone what it granted: after a crash in between nobody undoes it.
    LeaseGoneBeforeUndone "lease-gone-before-undone" Safety,
    /// A revocation by request and housekeeping undo the same lease at the same time.
    UndoneByTwo "undone-by-two" Safety,

    // Secrets and their keys.
    /// A check-and-set passes if the version is at least the one named.
    CasAcceptsOlder "cas-accepts-older" Safety,
    /// Whether a version is deleted is decided by each node's own clock.
    DeletionByClock "deletion-by-clock" Safety,
    /// A write after a deletion takes over the number of the deleted version.
    VersionReusedAfterDelete "version-reused-after-delete" Safety,
    /// Nonces are counted, and counted from zero after each start: two values are sealed under one, which
    /// gives both away.
    NonceCounterRestarts "nonce-counter-restarts" Safety,

    // Between clusters. Only runs with two of them can find these: all at the end ([`Bug::is_between_clusters`]).
    /// A secondary says that it has for good what it has only received: after a crash and a promotion it is gone.
    AcknowledgedBeforeDurable "acknowledged-before-durable" Safety,
    /// A comparison takes over what differs and keeps what the primary has deleted.
    ComparisonForgetsDeletes "comparison-forgets-deletes" Safety,
    /// The cursor behind a comparison is of a later state than the one that was compared: what came in between is left out.
    ComparisonTooNew "comparison-too-new" Safety,
    /// The cursor behind a copy is of a later state than the one that was copied.
    CopyTooNew "copy-too-new" Safety,
    /// The cursor moves in an entry behind the writes: after a crash in between a segment is applied twice.
    CursorApart "cursor-apart" Safety,
    /// The cursor moves in an entry before the writes: after a crash in between a segment is left out.
    CursorBeforeWrites "cursor-before-writes" Safety,
    /// A promotion in order does not wait for what the demoted primary wrote last.
    DrainSkipped "drain-skipped" Safety,
    /// A promotion does not raise the epoch: the old primary cannot be told from the new one.
    EpochNotRaised "epoch-not-raised" Safety,
    /// A primary that hears of its successor does not write that down, and goes on writing.
    FenceNotWrittenDown "fence-not-written-down" Progress,
    /// Write sets that were refused for a conflict are shipped like others.
    RefusedSetsShipped "refused-sets-shipped" Safety,
    /// What is a cluster's own, its CA, goes to its secondaries.
    SievePassesOwn "sieve-passes-own" Safety,
    /// What is a node's own, role and cursor, goes to its secondaries.
    SievePassesNode "sieve-passes-node" Safety,
    /// What is local, tokens and leases, goes to a performance secondary.
    SievePassesLocal "sieve-passes-local" Safety,
    /// A filter is not applied: mounts that a region must not have are shipped there.
    WithheldIgnored "withheld-ignored" Safety,
    /// A write does not depend on the role it was let through in: it is in the log behind a demotion or a fence.
    WritesUnguarded "writes-unguarded" Safety,
}

impl Bug {
    /// Whether only a run with two clusters can find it.
    #[must_use]
    pub const fn is_between_clusters(self) -> bool {
        self as u8 >= Self::AcknowledgedBeforeDurable as u8
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for (at, bug) in Bug::ALL.iter().enumerate() {
            assert_eq!(usize::from(*bug as u8), at);
            assert_eq!(Bug::named(bug.name()), Some(*bug));
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(bug.name().chars().all(is_plain), "{}", bug.name());
        }
        assert_eq!(Bug::named("no-such-bug"), None);
    }
}
