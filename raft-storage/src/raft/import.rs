//! Replacing the whole state by a backup, through the log.
//!
//! **Invariant:** nothing is proposed that this member's disk has no room for. At the commit every member builds a whole
//! new store, and one that cannot stops there, at every start again, until it has room.

use futures::StreamExt as _;
use openraft::ServerState;

use super::shared::{Metrics, Shared};
use crate::command::Command;
use crate::state::{Outcome, Uploader};
use crate::{ProposeError, ReplicaError, SnapshotStream};

/// Free bytes, beyond what writes always need, for each byte of a backup that came: for the store that is built of it,
/// and for compacting that meanwhile. The log and what is staged have taken their part of the disk by then.
const ROOM_PER_BYTE: u64 = 2;

impl Shared {
    pub(super) async fn import(&self, stream: SnapshotStream) -> Result<(), ReplicaError> {
        self.check_room(0)?;
        let import = self.import_step(&Command::ImportBegin).await?;
        let result = self.upload(import, stream).await;
        if result.is_err() {
            // Best effort: the next import forgets what this one staged.
            if let Err(err) = self.import_step(&Command::ImportAbort { import }).await {
                tracing::warn!(%err, import, "an import that failed could not be cleared away");
            }
        }
        result
    }

    async fn upload(&self, import: u64, mut stream: SnapshotStream) -> Result<(), ReplicaError> {
        let damaged = |err: crate::state::StateError| ReplicaError::Snapshot(err.to_string());
        let mut uploader = Uploader::new(import);
        let mut staged = 0_u64;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(ReplicaError::Snapshot)?;
            for command in uploader.push(&chunk).map_err(damaged)? {
                if let Command::ImportChunk { bytes, .. } = &command {
                    staged = staged.saturating_add(bytes.len() as u64);
                }
                self.check_room(staged)?;
                self.import_step(&command).await?;
            }
        }
        let commit = uploader.finish().map_err(damaged)?;
        self.check_room(staged)?;
        self.commit(&commit).await
    }

    /// A whole store is built before this is answered, which takes as long as it takes: only the loss of leadership
    /// leaves doubt.
    async fn commit(&self, command: &Command) -> Result<(), ReplicaError> {
        let bytes = command.encode().map_err(|err| ReplicaError::Snapshot(err.to_string()))?;
        let is_over = |metrics: &Metrics| (metrics.state != ServerState::Leader).then_some(());
        // In this order: what was written counts, even if leadership is lost in the same moment.
        let written = tokio::select! {
            biased;
            written = self.write(bytes) => written,
            over = self.metrics_when(is_over) => {
                over?;
                Err(ProposeError::OutcomeUnknown)
            }
        };
        let unknown = "leadership was lost while the backup was restored: it may or may not have happened";
        match written {
            Ok((_, outcome)) => checked(outcome),
            Err(ProposeError::OutcomeUnknown) => Err(ReplicaError::Snapshot(unknown.to_owned())),
            Err(err) => Err(self.not_leading(&err)),
        }
    }

    /// Whether there is room for a backup of which so many bytes came.
    fn check_room(&self, staged: u64) -> Result<(), ReplicaError> {
        let needed = self.config.low_water_bytes.saturating_add(staged.saturating_mul(ROOM_PER_BYTE));
        match self.log.free_space() {
            Ok(free) if free >= needed && !self.gate.is_disk_full.get() => Ok(()),
            Ok(free) => Err(ReplicaError::Snapshot(format!(
                "the disk has {free} bytes free, and {needed} are needed for what came of the backup so far"
            ))),
            Err(err) => Err(ReplicaError::Snapshot(format!("cannot tell how much room the disk has: {err}"))),
        }
    }

    async fn import_step(&self, command: &Command) -> Result<u64, ReplicaError> {
        let (index, outcome) = self.command(command).await?;
        checked(outcome).map(|()| index)
    }
}

fn checked(outcome: Outcome) -> Result<(), ReplicaError> {
    match outcome {
        Outcome::Import(Err(reason)) => Err(ReplicaError::Snapshot(reason)),
        Outcome::Import(Ok(())) | Outcome::Nothing | Outcome::Sets(_) => Ok(()),
    }
}
