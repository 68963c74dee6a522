//! Replacing the whole state by a backup, through the log.

use futures::StreamExt as _;

use super::shared::Shared;
use crate::command::Command;
use crate::state::{Outcome, Uploader};
use crate::{ReplicaError, SnapshotStream};

impl Shared {
    pub(super) async fn import(&self, stream: SnapshotStream) -> Result<(), ReplicaError> {
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
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(ReplicaError::Snapshot)?;
            for command in uploader.push(&chunk).map_err(damaged)? {
                self.import_step(&command).await?;
            }
        }
        let commit = uploader.finish().map_err(damaged)?;
        self.import_step(&commit).await.map(drop)
    }

    async fn import_step(&self, command: &Command) -> Result<u64, ReplicaError> {
        let (index, outcome) = self.command(command).await?;
        match outcome {
            Outcome::Import(Err(reason)) => Err(ReplicaError::Snapshot(reason)),
            Outcome::Import(Ok(())) | Outcome::Nothing | Outcome::Sets(_) => Ok(index),
        }
    }
}
