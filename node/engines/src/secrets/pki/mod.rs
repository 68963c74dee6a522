//! PKI: authorities that issue certificates under roles, revoke them, and tell who asks.
//!
//! **Invariant:** a private key leaves only in the answer of the request that made it; nothing that reads shows one. Every
//! name in a certificate was allowed by a role, or by who may sign without one.
//! Read next: [`issue`] for a certificate under a role, [`issuers`] for who signs, [`crl`] for revocation, `README.md` for
//! routes and what differs from others.

mod authority;
mod base64;
mod call;
mod chain;
mod config;
mod crl;
mod crl_config;
mod crl_signing;
mod fields;
mod issue;
mod issuer_paths;
mod issuers;
mod keys;
mod names;
mod ocsp;
mod output;
mod plan;
mod private_key;
mod revoke;
mod role;
mod routes;
mod rules;
mod sealing;
mod serve;
mod signers;
mod store;
#[cfg(test)]
mod tests;
mod tidy;
mod x509;

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, Map, MountView, Request, Response,
    RouteMatch, RouteTable,
};
use async_trait::async_trait;

use self::call::Call;
use self::signers::Signers;

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "pki",
    kind: EngineKind::Secrets,
    make,
    summary: "Certificates, issued under roles by authorities kept here.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Pki { table: RouteTable::new(routes::ROUTES), signers: Signers::default() }))
}

struct Pki {
    table: RouteTable,
    signers: Signers,
}

#[async_trait]
impl Engine for Pki {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let call = &Call { ctx, request, signers: &self.signers };
        match request.route.id {
            "ca" | "ca-chain" | "ca-pem" => serve::ca(call),
            "cert" => serve::json(call),
            "cert-raw" | "cert-raw-pem" => serve::raw(call),
            "certs" => revoke::list(call, store::CERTIFICATES),
            "certs-detailed" => serve::detailed(call),
            "certs-revoked" => revoke::list(call, store::REVOKED),
            "config-auto-tidy" => tidy::serve_auto(call),
            "config-cluster" => config::serve_cluster(call),
            "config-crl" => crl_config::serve(call),
            "config-issuers" | "root-replace" => config::serve_issuers(call),
            "config-keys" => config::serve_keys(call),
            "config-urls" => config::serve_urls(call),
            "crl" | "crl-delta" | "crl-delta-pem" | "crl-pem" => serve::list(call),
            "crl-rotate" => crl::rotate(call),
            "crl-rotate-delta" => crl::rotate_delta(call),
            "import-bundle" | "import-cert" | "config-ca" | "intermediate-set-signed" => {
                authority::import(call)
            }
            "intermediate-cross-sign" | "intermediate-generate" | "issuers-generate-intermediate" => {
                authority::generate_intermediate(call).await
            }
            "issue" | "issue-by-issuer" => issue::issue(call).await,
            "issuer" => issuer_paths::serve(call),
            "issuer-json" => issuer_paths::json(call),
            "issuer-resign-crls" => crl_signing::resign(call),
            "issuer-revoke" => issuer_paths::revoke(call),
            "issuer-sign-intermediate" | "root-sign-intermediate" => authority::sign_intermediate(call),
            "issuer-sign-revocation-list" => crl_signing::sign(call),
            "issuer-sign-self-issued" | "root-sign-self-issued" => authority::sign_self_issued(call),
            "issuer-sign-verbatim" | "sign-verbatim" => issue::sign_verbatim(call),
            "issuers" => issuer_paths::list(call),
            "key" => keys::serve(call),
            "keys" => keys::list(call),
            "keys-generate" => keys::generate(call).await,
            "keys-import" => keys::import(call),
            "ocsp" | "ocsp-get" => ocsp::serve(call),
            "revoke" | "revoke-with-key" => revoke::serve(call),
            "role" => role::serve(call),
            "roles" => role::list(call),
            "root" => authority::delete_root(call),
            "issuers-generate-root" | "root-generate" | "root-rotate" => authority::generate_root(call).await,
            "sign" | "sign-by-issuer" => issue::sign(call),
            "tidy" => tidy::start(call),
            "tidy-cancel" => tidy::cancel(call),
            "tidy-status" => tidy::status(call),
            id if id.starts_with("issuer-") => serve::issuer(call),
            _ => Err(EngineError::Unsupported),
        }
    }

    /// What a cluster issued and revoked is its own, as are its lists and where it is reached.
    fn local_prefixes(&self) -> &'static [&'static str] {
        &["cert/", "config/cluster", "crl/", "crl-part/", "revoked/", "revoked-orphan/", "tidy/"]
    }

    /// Revokes the certificate.
    async fn revoke(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
        let request = nobody();
        revoke::end_lease(&Call { ctx, request: &request, signers: &self.signers }, lease)
    }

    /// Signs lists that are due, and tidies.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        let request = nobody();
        let call = Call { ctx, request: &request, signers: &self.signers };
        crl::tick(&call)?;
        tidy::tick(&call)?;
        Ok(Vec::new())
    }

    /// Goes on tidying.
    async fn go_on(&self, ctx: &Ctx<'_>) -> Result<Option<Duration>, EngineError> {
        let request = nobody();
        tidy::go_on(&Call { ctx, request: &request, signers: &self.signers })
    }
}

/// The request of nobody, for what the engine does by itself.
fn nobody() -> Request {
    Request {
        id: String::new(),
        operation: arca_engine_api::Operation::Update,
        namespace: String::new(),
        path: String::new(),
        mount_point: String::new(),
        route: RouteMatch::none(),
        data: Map::new(),
        headers: std::collections::BTreeMap::new(),
        caller: None,
        client_token: None,
        remote_addr: None,
        remote_port: 0,
        client_certificates: Arc::from([]),
        wrap_ttl: None,
    }
}
