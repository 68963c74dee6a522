//! How a secondary gets its certificate: it shows a token, once, and proves nothing else.
//!
//! What the primary answers opens everything it holds. It goes over TLS to whoever showed the secret, from a node that
//! showed a certificate of the CA that the token names.

use arca_barrier::{Class, boot_key};
use arca_engine_api::UnixMillis;
use arca_kernel::replication::{Kind, Mode, RoleRecord, UpstreamRecord};
use arca_kernel::tx::Tx;
use arca_kernel::{Kernel, KernelError};
use arca_raft_storage::Replica as _;
use arca_replication::{Follower, LinkError, Refusal, Unserved};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::records::{SECONDARIES_MAX, SecondaryRecord, TokenRecord};
use super::token::Token;
use super::{Authority, Replicator, TokenDoor};

/// The format of what is shipped. A secondary must know the primary's: it is upgraded first.
const FORMAT: u32 = 1;
/// Room for either message, bytes: it holds a certificate or a request for one, a keyring and addresses.
const MESSAGE_ROOM: usize = 256 << 10;

/// Shown with a token. Hexadecimal where bytes.
#[derive(Serialize, Deserialize)]
struct Request {
    accessor: String,
    secret: String,
    kind: String,
    signing_request: String,
    cluster_id: String,
    version: String,
    /// Newest format that the secondary reads.
    format: u32,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Answered to a good one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Activated {
    pub(crate) certificate: String,
    pub(crate) root_key: String,
    /// Sealed by the root key.
    pub(crate) keyring: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) epoch: u64,
    pub(crate) cluster_id: String,
}

impl Drop for Activated {
    fn drop(&mut self) {
        self.root_key.zeroize();
    }
}

/// A message that holds a secret, in one buffer that is wiped when nobody needs it any more.
fn wiped(message: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MESSAGE_ROOM));
    serde_json::to_writer(&mut *bytes, message)?;
    Ok(Bytes::from_owner(bytes))
}

/// Says why a token was not taken, in words for the secondary's operator.
fn refused(text: impl Into<String>) -> Unserved {
    Unserved::Refused(Refusal::Malformed(text.into()))
}

fn busy(err: impl std::fmt::Display) -> Unserved {
    Unserved::Refused(Refusal::Busy(err.to_string()))
}

const UNKNOWN: &str = "the primary does not know this activation token: it was not made there, a newer one was made for \
                       the same name, or it was so long ago that it was forgotten. Make a new one";
const USED: &str = "this activation token was used before: a token is good for one use. If it was not you who used it, \
                    revoke the secondary of this name on the primary now. Make a new token";
const LATE: &str = "this activation token has expired: make a new one";

/// What becomes of a token that is shown.
fn judge(
    record: Option<&TokenRecord>,
    request: &Request,
    secret: &[u8],
    now: UnixMillis,
) -> Result<(), &'static str> {
    let record = record.ok_or(UNKNOWN)?;
    // First: whoever does not have the secret learns nothing about the token.
    if request.accessor.is_empty() || !record.is_of(secret) {
        return Err(UNKNOWN);
    }
    if record.used_at != 0 {
        return Err(USED);
    }
    if record.expires_at <= now.0 { Err(LATE) } else { Ok(()) }
}

// The primary's side.
impl Replicator {
    /// A token is shown. What it says is checked by nobody before.
    pub(super) async fn activated(&self, kind: Kind, request: &Bytes) -> Result<Bytes, Unserved> {
        let kernel = self.active().map_err(|_| Unserved::NotActive)?;
        let request: Request = serde_json::from_slice(request)
            .map_err(|_| refused("the message makes no sense to the primary"))?;
        let secret = Zeroizing::new(hex::decode(&request.secret).map_err(|_| refused(UNKNOWN))?);
        let role = kernel.role(kind);
        if role.mode != Mode::Primary || role.fence.is_some() {
            return Err(Refusal::NotPrimary.into());
        }
        if request.kind != kind.name() {
            return Err(refused("this activation token is for replication of another kind"));
        }
        if request.cluster_id == self.cluster_id {
            return Err(refused(
                "primary and secondary have the same cluster id: one is a copy of the other's disks, or the token was \
                 used on the primary itself",
            ));
        }
        if request.format < FORMAT {
            return Err(refused(format!(
                "the secondary runs {}, which is older than the primary's {} and does not read what it ships: \
                 update the secondary first",
                request.version, self.version
            )));
        }
        let authority = authority_of(&role).ok_or_else(|| busy("the primary has no CA"))?;
        let (secondary_id, certificate) =
            self.consume_recorded(&kernel, kind, &authority, (&request, &secret)).await?;
        tracing::warn!(
            secondary = secondary_id,
            cluster_id = request.cluster_id,
            "a secondary was activated"
        );
        let keyring = self.sealed_keyring().map_err(busy)?;
        let answer = Activated {
            certificate: hex::encode(certificate),
            // Bare: this is what a secondary is given, over TLS that only it can open.
            root_key: hex::encode(self.keys.root().expose()),
            keyring,
            addresses: self.addresses(&role),
            epoch: role.epoch,
            cluster_id: self.cluster_id.clone(),
        };
        wiped(&answer).map_err(busy)
    }

    /// The keyring, sealed by the root key, hexadecimal.
    fn sealed_keyring(&self) -> Result<String, KernelError> {
        let found = self.replica.view().get(&boot_key("keyring"));
        let found = found.map_err(|err| KernelError::Replica(err.into()))?;
        let found = found.ok_or_else(|| KernelError::Bug("a state without a keyring".to_owned()))?;
        Ok(hex::encode(found.value))
    }

    /// Uses the token up, between two lines in the audit log. Who does not have its secret is refused before: nothing is
    /// recorded or signed for strangers.
    async fn consume_recorded(
        &self,
        kernel: &Kernel,
        kind: Kind,
        authority: &Authority,
        (request, secret): (&Request, &[u8]),
    ) -> Result<(String, Vec<u8>), Unserved> {
        let accessor = request.accessor.as_str();
        if accessor.len() > 64 || !accessor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused(UNKNOWN));
        }
        let path = TokenRecord::path(kind, accessor);
        let record: Option<TokenRecord> = kernel.read_tx().get_record(Class::Node, &path).map_err(busy)?;
        if judge(record.as_ref(), request, secret, self.now()) == Err(UNKNOWN) {
            return Err(refused(UNKNOWN));
        }
        let secondary_id = record.map(|record| record.secondary_id).unwrap_or_default();
        let given = [
            ("accessor", accessor),
            ("cluster_id", request.cluster_id.as_str()),
            ("secondary_id", secondary_id.as_str()),
            ("version", request.version.as_str()),
        ];
        let given = given.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let recorded = kernel.audit_activation(kind, given).await.map_err(busy)?;
        let consumed = self.consume(kind, authority, request, secret).await;
        let refusal = match &consumed {
            Ok(_) => None,
            Err(Unserved::NotActive) => Some("this node is not active".to_owned()),
            Err(Unserved::Refused(refusal)) => Some(refusal.to_string()),
        };
        kernel.audit_activated(&recorded, refusal.as_deref()).await.map_err(busy)?;
        consumed
    }

    /// Uses the token up and writes the secondary down, in one commit; then its certificate.
    async fn consume(
        &self,
        kind: Kind,
        authority: &Authority,
        request: &Request,
        secret: &[u8],
    ) -> Result<(String, Vec<u8>), Unserved> {
        let signing_request =
            hex::decode(&request.signing_request).map_err(|_| refused("a malformed signing request"))?;
        let now = self.now();
        let path = TokenRecord::path(kind, &request.accessor);
        let mut verdict = Err(UNKNOWN);
        let mut found = String::new();
        let committed = self.commit(|tx| {
            let record: Option<TokenRecord> = tx.get_record(Class::Node, &path)?;
            verdict = judge(record.as_ref(), request, secret, now);
            let Some(record) = record.filter(|_| verdict.is_ok()) else { return Err(KernelError::Denied) };
            let used = TokenRecord { used_at: now.0.max(1), ..record };
            found.clone_from(&used.secondary_id);
            tx.put_record(Class::Node, &path, &used)?;
            let secondary = SecondaryRecord {
                activation: request.accessor.clone(),
                cluster_id: request.cluster_id.clone(),
                activated_at: now.0,
                version: request.version.clone(),
                is_revoked: false,
            };
            tx.put_record(Class::Node, &SecondaryRecord::path(kind, &used.secondary_id), &secondary)?;
            Ok(Vec::new())
        });
        let follower =
            |id: &str| Follower { secondary_id: id.to_owned(), activation: request.accessor.clone() };
        // Once in vain: a malformed request must not use the token up.
        self.surroundings.issue(authority, &signing_request, &follower("")).map_err(refused)?;
        let committed = committed.await;
        verdict.map_err(refused)?;
        committed.map_err(|err| match err {
            KernelError::NeedsActive => Unserved::NotActive,
            err => busy(err),
        })?;
        let certificate =
            self.surroundings.issue(authority, &signing_request, &follower(&found)).map_err(busy)?;
        // What an earlier activation of this name left open is not this secondary's.
        self.surroundings.end(&self.role(kind).map_err(busy)?.replication_id, &found);
        Ok((found, certificate))
    }

    /// Makes and stores a token.
    pub(super) async fn make_token(
        &self,
        kind: Kind,
        role: &RoleRecord,
        secondary_id: &str,
        ttl: std::time::Duration,
    ) -> Result<Token, KernelError> {
        let (mut name, mut secret, mut key) = ([0; 16], Zeroizing::new(vec![0; 32]), [0; 32]);
        self.entropy.fill(&mut name)?;
        self.entropy.fill(&mut secret)?;
        self.entropy.fill(&mut key)?;
        let expires_at =
            UnixMillis(self.now().0.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        let authority =
            authority_of(role).ok_or_else(|| KernelError::Bug("a primary without a CA".to_owned()))?;
        let token = Token {
            kind,
            accessor: hex::encode(name),
            secret,
            replication_id: role.replication_id.clone(),
            cluster_id: self.cluster_id.clone(),
            secondary_id: secondary_id.to_owned(),
            ca: authority.certificate,
            addresses: self.addresses(role),
            epoch: role.epoch,
            expires_at,
        };
        let record = TokenRecord::new(secondary_id, key, &token.secret, expires_at);
        let now = self.now();
        self.commit(|tx| {
            replace_waiting_tokens(tx, kind, secondary_id)?;
            forget_old_tokens(tx, kind, now)?;
            tx.put_record(Class::Node, &TokenRecord::path(kind, &token.accessor), &record)?;
            Ok(Vec::new())
        })
        .await?;
        Ok(token)
    }

    /// A new CA, as a role holds it.
    pub(super) fn new_authority(&self, replication_id: &str) -> Result<(String, String), KernelError> {
        let authority = self.surroundings.new_authority(replication_id)?;
        // The key is exposed to be stored behind the barrier.
        Ok((hex::encode(&authority.certificate), hex::encode(&*authority.key)))
    }

    /// What secondaries are told: the address that was given, or those of the nodes.
    pub(super) fn addresses(&self, role: &RoleRecord) -> Vec<String> {
        if !role.primary_cluster_addr.is_empty() {
            return vec![role.primary_cluster_addr.clone()];
        }
        let leader = self.replica.status().leader.map(|leader| leader.id);
        let mut members: Vec<_> =
            self.replica.membership().members.into_values().map(|(member, _)| member).collect();
        members.sort_by_key(|member| (Some(member.id) != leader, member.id));
        members.into_iter().map(|member| member.cluster_addr).collect()
    }
}

/// Tokens are remembered for so long after they were used or have expired, so that whoever comes late is told.
const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// The newest token for a name is the one that counts: an order with an older one, that arrives late, would take the
/// place of the activation that the secondary goes by.
fn replace_waiting_tokens(tx: &Tx, kind: Kind, secondary_id: &str) -> Result<(), KernelError> {
    let folder = TokenRecord::folder(kind);
    for name in tx.list(Class::Node, &folder, &arca_engine_api::Page::default())? {
        let path = format!("{folder}{name}");
        let record = tx.get_record::<TokenRecord>(Class::Node, &path)?;
        if record.is_some_and(|record| record.secondary_id == secondary_id && record.used_at == 0) {
            tx.delete(Class::Node, &path)?;
        }
    }
    Ok(())
}

/// Makes room for a new one: those that may still be used count, and of the others the newest are remembered.
pub(super) fn forget_old_tokens(tx: &Tx, kind: Kind, now: UnixMillis) -> Result<(), KernelError> {
    let folder = TokenRecord::folder(kind);
    let (mut waiting, mut remembered) = (0, Vec::new());
    for name in tx.list(Class::Node, &folder, &arca_engine_api::Page::default())? {
        let path = format!("{folder}{name}");
        let Some(record) = tx.get_record::<TokenRecord>(Class::Node, &path)? else { continue };
        let over_at = if record.used_at == 0 { record.expires_at } else { record.used_at };
        if over_at > now.0 && record.used_at == 0 {
            waiting += 1;
        } else {
            remembered.push((over_at, path));
        }
    }
    if waiting >= SECONDARIES_MAX {
        return Err(KernelError::invalid(
            "too many activation tokens wait to be used: they expire, or revoke the secondaries that they are for",
        ));
    }
    remembered.sort_unstable_by(|one, other| other.cmp(one));
    for (at, (over_at, path)) in remembered.iter().enumerate() {
        if at >= SECONDARIES_MAX || over_at.saturating_add(REMEMBERED_MS) < now.0 {
            tx.delete(Class::Node, path)?;
        }
    }
    Ok(())
}

/// The CA in a primary's role.
pub(super) fn authority_of(role: &RoleRecord) -> Option<Authority> {
    let (certificate, key) = role.authority.as_ref()?;
    let (certificate, key) = (hex::decode(certificate).ok()?, Zeroizing::new(hex::decode(key).ok()?));
    Some(Authority { replication_id: role.replication_id.clone(), certificate, key })
}

// The secondary's side.

/// Why a token was not taken, in words for whoever gave it.
fn explained(err: LinkError, addresses: &[String]) -> KernelError {
    KernelError::Invalid(match err {
        LinkError::Refused(Refusal::Malformed(text)) => text,
        LinkError::Refused(Refusal::NotPrimary) => {
            "the cluster that made this activation token is no primary any more".to_owned()
        }
        LinkError::Refused(refusal) => format!("the primary did not take the activation token: {refusal}"),
        LinkError::Unreachable(reason) => format!(
            "no node of the primary could be reached at its cluster addresses ({}): {reason}. Nothing was changed",
            addresses.join(", ")
        ),
    })
}

impl Replicator {
    /// Reads a token given by an operator here, and checks what can be checked without the primary.
    pub(super) fn read_token(&self, kind: Kind, text: &str) -> Result<Token, KernelError> {
        let tx = self.kernel()?.read_tx();
        let private = tx.peek(Class::Node, &super::records::token_key_path(kind))?;
        let token = Token::parse(text, private.as_deref().map(Vec::as_slice));
        let token = token.map_err(|err| KernelError::Invalid(err.to_string()))?;
        if token.kind != kind {
            return Err(KernelError::Invalid(format!(
                "this activation token is for {} replication, not for {}",
                token.kind.name(),
                kind.name()
            )));
        }
        if token.cluster_id == self.cluster_id {
            return Err(KernelError::invalid("this activation token was made by this very cluster"));
        }
        if token.expires_at <= self.now() {
            return Err(KernelError::invalid(LATE));
        }
        Ok(token)
    }

    /// Shows the token to the primary.
    pub(super) async fn activate(&self, token: &Token) -> Result<(UpstreamRecord, Activated), KernelError> {
        let made = self.surroundings.new_key()?;
        let request = Request {
            accessor: token.accessor.clone(),
            secret: hex::encode(&*token.secret),
            kind: token.kind.name().to_owned(),
            signing_request: hex::encode(&made.signing_request),
            cluster_id: self.cluster_id.clone(),
            version: self.version.to_owned(),
            format: FORMAT,
        };
        let payload = wiped(&request).map_err(|err| KernelError::Bug(err.to_string()))?;
        let door =
            TokenDoor { replication_id: &token.replication_id, ca: &token.ca, addresses: &token.addresses };
        let answer = self
            .surroundings
            .activate(door, payload)
            .await
            .map_err(|err| explained(err, &token.addresses))?;
        let answer: Activated = serde_json::from_slice(&answer)
            .map_err(|_| KernelError::invalid("the primary's answer makes no sense to this version"))?;
        let upstream = UpstreamRecord {
            secondary_id: token.secondary_id.clone(),
            addresses: answer.addresses.clone(),
            given: token.addresses.clone(),
            ca: hex::encode(&token.ca),
            certificate: answer.certificate.clone(),
            key: hex::encode(&*made.key),
        };
        Ok((upstream, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(accessor: &str) -> Request {
        Request {
            accessor: accessor.to_owned(),
            secret: String::new(),
            kind: "dr".to_owned(),
            signing_request: String::new(),
            cluster_id: "c2".to_owned(),
            version: "v".to_owned(),
            format: FORMAT,
        }
    }

    #[test]
    fn a_token_is_good_once_and_in_time() {
        let record = TokenRecord::new("west", [1; 32], b"secret", UnixMillis(100));
        let used = TokenRecord { used_at: 5, ..record.clone() };
        let check = |record: Option<&TokenRecord>, secret: &[u8], now, want| {
            assert_eq!(judge(record, &request("a"), secret, UnixMillis(now)), want);
        };
        check(Some(&record), b"secret", 99, Ok(()));
        check(Some(&record), b"secret", 100, Err(LATE));
        check(Some(&used), b"secret", 99, Err(USED));
        check(Some(&record), b"forged", 99, Err(UNKNOWN));
        check(Some(&used), b"forged", 99, Err(UNKNOWN));
        check(None, b"secret", 99, Err(UNKNOWN));
    }
}
