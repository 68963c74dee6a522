//! `sys/init`: makes the cluster, with this node as its first member and only voter.
//!
//! Nothing is acknowledged before everything is durable: a crash in the middle leaves a record that says `beginning`,
//! and the next start begins anew.

use std::sync::Arc;

use arca_api::{InitRequest, InitResponse};
use arca_barrier::{Barrier, Keyring, RootKey, SealConfig, ShamirSeal, Suite, boot_key};
use arca_kernel::key_keeper::ROOT_KEY_PATH;
use arca_kernel::tx::{Mode, Tx};
use arca_raft_storage::{MemberId, Nobody, Replica as _, Write, WriteSet};
use arca_rpc::{Authority, NodeKey};
use zeroize::Zeroizing;

use crate::join::{CA_CERTIFICATE_PATH, CA_KEY_PATH};
use crate::node::{Node, NodeError, Phase};
use crate::node_file::{NodeRecord, Stage};
use crate::unsealed::{NODE_KEY_NAME, member_of, open_replica};
use crate::world::SystemEntropy;

/// The first member's id. Every later one is the index of a log entry, and the first entries are this init's.
const FIRST_MEMBER: MemberId = MemberId(1);

/// A new cluster's keys, before they are stored.
struct NewKeys {
    shares: Vec<Zeroizing<Vec<u8>>>,
    root: RootKey,
    seal_config: Vec<u8>,
    wrapped_root_key: Vec<u8>,
    sealed_keyring: Vec<u8>,
    barrier: Arc<Barrier>,
}

impl Node {
    /// Makes the cluster. The node is sealed afterwards.
    ///
    /// # Errors
    /// When it already belongs to one, when the numbers make no sense, or when the disk fails.
    pub async fn init(self: &Arc<Self>, request: InitRequest) -> Result<InitResponse, NodeError> {
        let mut phase = self.phase.lock().await;
        if !matches!(*phase, Phase::New) {
            return Err(NodeError::Invalid("Vault is already initialized".to_owned()));
        }
        let keys = self.new_keys(&request)?;
        let cluster_id = self.uuid()?;
        let authority = Authority::create(&cluster_id)
            .map_err(|err| NodeError::failed("making the cluster's CA", err))?;
        let mut record = self.first_record(&keys, &authority, &cluster_id)?;
        self.disk.write_record(&record)?;
        let made = self.bootstrap(&keys, &record, &authority).await;
        let root_token = match made {
            Ok(token) => token,
            Err(err) => {
                self.disk.clear()?;
                return Err(err);
            }
        };
        record.stage = Stage::Member;
        self.disk.write_record(&record)?;
        self.disk.closed().await;
        *phase = Phase::Sealed(Box::new(self.sealed_parts(record)?));
        self.show(&phase);
        tracing::info!(cluster_id, "initialized a new cluster");
        Ok(InitResponse { shares: keys.shares, root_token })
    }

    fn new_keys(&self, request: &InitRequest) -> Result<NewKeys, NodeError> {
        if request.recovery_shares.is_some_and(|shares| shares > 0)
            || request.recovery_threshold.is_some_and(|t| t > 0)
        {
            let text = "parameters recovery_shares,recovery_threshold not applicable to seal type shamir";
            return Err(NodeError::Invalid(text.to_owned()));
        }
        let invalid = |err: arca_barrier::BarrierError| NodeError::Invalid(err.to_string());
        let failed = |err: arca_barrier::BarrierError| NodeError::failed("making keys", err);
        let shares = request.secret_shares.unwrap_or(5);
        let threshold = request.secret_threshold.unwrap_or(if shares == 1 { 1 } else { 3 });
        let config = SealConfig::shamir(shares, threshold).map_err(invalid)?;
        let seal = ShamirSeal::generate(&SystemEntropy).map_err(failed)?;
        let root = RootKey::generate(&SystemEntropy).map_err(|err| NodeError::failed("making keys", err))?;
        let keyring =
            Keyring::generate(&SystemEntropy, self.now().0, Suite::XChaCha20Poly1305).map_err(failed)?;
        let split = seal.split(shares, threshold, &SystemEntropy).map_err(invalid)?;
        Ok(NewKeys {
            // The caller gets the shares; this is the one time they are shown.
            shares: split.iter().map(|share| Zeroizing::new(share.expose().to_vec())).collect(),
            seal_config: config.to_json().map_err(failed)?,
            wrapped_root_key: seal.wrap(&root, &SystemEntropy).map_err(failed)?,
            sealed_keyring: keyring.seal(&root, &SystemEntropy).map_err(failed)?,
            barrier: Arc::new(Barrier::new(keyring, Arc::new(SystemEntropy))),
            root,
        })
    }

    fn first_record(
        &self,
        keys: &NewKeys,
        authority: &Authority,
        cluster_id: &str,
    ) -> Result<NodeRecord, NodeError> {
        let failed = |err: arca_rpc::IdentityError| NodeError::failed("making this node's certificate", err);
        let key = NodeKey::generate().map_err(failed)?;
        let certificate =
            authority.issue(&key.signing_request().map_err(failed)?, FIRST_MEMBER).map_err(failed)?;
        let sealed_key = keys
            .barrier
            .seal_value(NODE_KEY_NAME, &key.expose())
            .map_err(|err| NodeError::failed("sealing this node's key", err))?;
        Ok(NodeRecord {
            version: NodeRecord::VERSION,
            stage: Stage::Beginning,
            cluster_id: cluster_id.to_owned(),
            member: FIRST_MEMBER,
            node_name: self.config.node_name.clone(),
            ca: hex::encode(authority.certificate()),
            certificate: hex::encode(certificate),
            sealed_key: hex::encode(sealed_key),
            seal_config: hex::encode(&keys.seal_config),
            root_key: hex::encode(&keys.wrapped_root_key),
            keyring: hex::encode(&keys.sealed_keyring),
        })
    }

    /// Writes the first state through Raft; durable when this returns.
    async fn bootstrap(
        &self,
        keys: &NewKeys,
        record: &NodeRecord,
        authority: &Authority,
    ) -> Result<Zeroizing<String>, NodeError> {
        let replica = open_replica(self, record, Arc::new(Nobody)).await?;
        let tx = Tx::new(Arc::clone(&keys.barrier), replica.view(), Mode::ReadWrite);
        let cluster_name = match &self.config.cluster_name {
            Some(name) => name.clone(),
            None => format!("arca-cluster-{}", record.cluster_id.get(..8).unwrap_or_default()),
        };
        let root_token = arca_kernel::initial_state(
            &tx,
            self.clock.as_ref(),
            self.entropy.as_ref(),
            &arca_kernel::NewCluster {
                cluster_id: record.cluster_id.clone(),
                cluster_name,
                engines: &self.engines,
                root_token: self.config.dev.as_ref().and_then(|dev| dev.root_token.clone()),
            },
        )
        .map_err(|err| NodeError::failed("making the first state", err))?;
        let stored = tx
            .put(
                arca_barrier::Class::Local,
                CA_CERTIFICATE_PATH,
                Zeroizing::new(authority.certificate().to_vec()),
            )
            .and_then(|()| {
                // The CA's key is exposed to be stored behind the barrier.
                let key = Zeroizing::new(authority.expose_key().to_vec());
                tx.put(arca_barrier::Class::Local, CA_KEY_PATH, key)
            })
            .and_then(|()| {
                // The same holds for the root key.
                let key = Zeroizing::new(keys.root.expose().to_vec());
                tx.put(arca_barrier::Class::Local, ROOT_KEY_PATH, key)
            })
            .and_then(|()| tx.into_write_set());
        let mut set: WriteSet = stored.map_err(|err| NodeError::failed("making the first state", err))?;
        // A first member reads nothing it could conflict with.
        set.reads.clear();
        for (name, value) in [
            ("seal-config", &keys.seal_config),
            ("root-key", &keys.wrapped_root_key),
            ("keyring", &keys.sealed_keyring),
            ("ca", &authority.certificate().to_vec()),
        ] {
            set.writes.push(Write::Put(boot_key(name), value.clone()));
        }
        let me = member_of(&self.config, FIRST_MEMBER);
        let outcome = replica.bootstrap(me, set).await;
        replica.shutdown().await;
        outcome.map_err(|err| NodeError::failed("writing the first state", err))?;
        Ok(root_token)
    }
}
