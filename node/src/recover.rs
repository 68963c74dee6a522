//! Recovery after a lost quorum: this member goes on alone. One command, on a stopped node, confirmed by its name.

use std::sync::Arc;

use arca_raft_storage::Nobody;

use crate::config::Config;
use crate::disk::Disk;
use crate::node::NodeError;
use crate::node_file::Stage;

/// Makes the node whose data `config` names the only member of its cluster. `confirmed` must be its `node_id`.
///
/// # Errors
/// When it is not confirmed, holds no member, or its files cannot be written.
pub async fn alone(config: &Config, confirmed: &str) -> Result<String, NodeError> {
    if confirmed != config.node_name {
        return Err(NodeError::Invalid(format!(
            "nothing was changed: to confirm, name this node's node_id ({:?}). Every other member is then out of the \
             cluster for good, and what never reached this node is lost",
            config.node_name
        )));
    }
    let disk = Disk::new(&config.storage);
    let record = disk.record()?.filter(|record| record.stage == Stage::Member);
    let record =
        record.ok_or_else(|| NodeError::Invalid("this node is no member of a cluster".to_owned()))?;
    record.check_name(&config.node_name).map_err(|err| NodeError::Invalid(err.to_string()))?;
    let raft = crate::unsealed::raft_config(config, &record);
    let me = crate::unsealed::member_of(config, record.member);
    let index = arca_raft_storage::raft::recover_single(raft, disk.raft_parts(Arc::new(Nobody)), me)
        .await
        .map_err(|err| NodeError::failed("recovering", err))?;
    Ok(format!(
        "Node {:?} is now the only member of its cluster (log index {index}).\n\
         1. Never start the other members with their old data: there would be two clusters.\n\
         2. Start this node as usual and unseal it.\n\
         3. Empty the other nodes' data directories and let them join anew.",
        config.node_name
    ))
}
