//! Who this node is to its peers: its TLS key and certificate, opened from `node.json` at every unseal.
//!
//! A restored backup may take the keys away under which that TLS key was sealed, or bring another cluster's CA. The node
//! then makes a new key and signs it with the CA in the state, for the member it is: who can unseal a node can read
//! that CA's key anyway. ADR 12 says how members get from one CA to the other.

use std::sync::Arc;

use arca_barrier::{Barrier, Class};
use arca_kernel::tx::{Mode, Tx};
use arca_rpc::{Authority, NodeIdentity, NodeKey};

use crate::join::{CA_CERTIFICATE_PATH, CA_KEY_PATH};
use crate::node::{Node, NodeError};
use crate::node_file::NodeRecord;
use crate::unsealed::NODE_KEY_NAME;

/// The identity that `record` holds, or a new one under the CA of the state if that is another, or if `barrier` does
/// not open it. A new one is on the disk when this returns.
pub(crate) fn establish(
    node: &Node,
    record: NodeRecord,
    barrier: &Arc<Barrier>,
) -> Result<(NodeRecord, NodeIdentity), NodeError> {
    let own = open(&record, barrier);
    let stored = stored_authority(node, &record, barrier);
    match (own, stored) {
        (Ok(own), Ok(Some(authority))) if authority.certificate() == own.ca => Ok((record, own)),
        // A joiner that has received nothing yet.
        (Ok(own), Ok(None)) => Ok((record, own)),
        (Ok(own), Err(err)) => {
            tracing::error!(error = %err, "the cluster's CA cannot be read: no node can join until it can");
            Ok((record, own))
        }
        (_, Ok(Some(authority))) => {
            tracing::warn!(
                member = %record.member,
                "this node's certificate is of another CA than the state's, or its key does not open: it gets new ones"
            );
            reissue(node, record, barrier, &authority)
        }
        (Err(err), _) => Err(err),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, NodeError> {
    hex::decode(text).map_err(|err| NodeError::failed("reading node.json", err))
}

fn open(record: &NodeRecord, barrier: &Barrier) -> Result<NodeIdentity, NodeError> {
    let key = barrier
        .open_value(NODE_KEY_NAME, &bytes(&record.sealed_key)?)
        .map_err(|err| NodeError::failed("opening this node's TLS key", err))?;
    Ok(NodeIdentity {
        cluster_id: record.cluster_id.clone(),
        member: record.member,
        ca: bytes(&record.ca)?,
        certificate: bytes(&record.certificate)?,
        key,
    })
}

/// The CA as the state on this disk has it.
fn stored_authority(
    node: &Node,
    record: &NodeRecord,
    barrier: &Arc<Barrier>,
) -> Result<Option<Authority>, NodeError> {
    let state = node.disk.open_state()?;
    let tx = Tx::new(Arc::clone(barrier), state.view(), Mode::ReadOnly);
    let read = |path: &str| {
        tx.peek(Class::Local, path).map_err(|err| NodeError::failed("reading the cluster's CA", err))
    };
    let (Some(certificate), Some(key)) = (read(CA_CERTIFICATE_PATH)?, read(CA_KEY_PATH)?) else {
        return Ok(None);
    };
    Ok(Some(Authority::from_parts(&record.cluster_id, certificate.to_vec(), key)))
}

fn reissue(
    node: &Node,
    mut record: NodeRecord,
    barrier: &Barrier,
    authority: &Authority,
) -> Result<(NodeRecord, NodeIdentity), NodeError> {
    let failed = |err: arca_rpc::IdentityError| NodeError::failed("making this node's certificate", err);
    let key = NodeKey::generate().map_err(failed)?;
    let certificate =
        authority.issue(&key.signing_request().map_err(failed)?, record.member).map_err(failed)?;
    // The key is exposed to be sealed, and to TLS.
    let sealed_key = barrier
        .seal_value(NODE_KEY_NAME, &key.expose())
        .map_err(|err| NodeError::failed("sealing this node's key", err))?;
    record.ca = hex::encode(authority.certificate());
    record.certificate = hex::encode(&certificate);
    record.sealed_key = hex::encode(sealed_key);
    node.disk.write_record(&record)?;
    let identity = NodeIdentity {
        cluster_id: record.cluster_id.clone(),
        member: record.member,
        ca: authority.certificate().to_vec(),
        certificate,
        key: key.expose(),
    };
    Ok((record, identity))
}
