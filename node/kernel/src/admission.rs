//! Who asks, where it goes, whether it may: everything decided about a request before anything is done.
//!
//! A refusal is a value, not an early return, because refusals are audited like everything else. **Invariant:** what
//! is not routed is only said to a caller whose policies allow the path, so nobody learns of mounts by asking.
//! Read next: [`crate::identify`] for tokens, [`crate::places`] for paths, [`crate::policy::acl`] for the decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_danger::Bug;
use arca_engine_api::{Access, Effect, EngineKind, Map, Method, Operation, Request, Route, RouteMatch};
use arca_raft_storage::SnapshotStream;
use parking_lot::Mutex;

use crate::builtin::{Builtin, BuiltinCtx};
use crate::identify::Identified;
use crate::incoming::Body;
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::places::Place;
use crate::policy::{AclDecision, AclRequest};
use crate::replication::{Behalf, EntityKnown, Serves, filter};
use crate::router::{Mount, Serves as MountServes};
use crate::sys;
use crate::tx::Tx;
use crate::{Incoming, KernelError};

/// A request, its body apart from the rest.
pub(crate) struct Asked {
    /// Everything but the body.
    pub(crate) incoming: Incoming,
    /// Fields. Lent to the [`Request`] of each attempt.
    pub(crate) data: Map,
    /// A streamed body.
    pub(crate) stream: Arc<Mutex<Option<SnapshotStream>>>,
    /// The performance secondary it is run for, at its primary.
    pub(crate) behalf: Option<Behalf>,
    /// On a performance secondary, what the primary said about who logs in.
    pub(crate) entity: Mutex<EntityKnown>,
    /// On a performance secondary, the primary said that it is none of its.
    pub(crate) is_ours: bool,
}

impl Asked {
    pub(crate) fn new(mut incoming: Incoming) -> Self {
        let (data, stream) = match std::mem::replace(&mut incoming.body, Body::Fields(Map::new())) {
            Body::Fields(data) => (data, None),
            Body::Stream(stream) => (Map::new(), Some(stream.into_inner())),
        };
        let stream = Arc::new(Mutex::new(stream));
        Self { incoming, data, stream, behalf: None, entity: Mutex::default(), is_ours: false }
    }
}

/// The route that serves a request.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) route: &'static Route,
    pub(crate) method: Option<&'static Method>,
    /// Which group of built-in paths, if it is not an engine's.
    pub(crate) group: Option<usize>,
}

/// What was decided.
pub(crate) struct Admitted {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) mount: Option<Arc<Mount>>,
    pub(crate) found: Option<Found>,
    pub(crate) caller: Option<Identified>,
    pub(crate) decision: AclDecision,
    /// As the handler will see it, and as the audit log records it.
    pub(crate) request: Request,
    /// Path without the namespace, in its one form.
    pub(crate) path: String,
    /// Whether something was at the path, if the caller may do only one of creating and updating there.
    pub(crate) existed: Option<bool>,
    /// Why it will not run.
    pub(crate) refusal: Option<KernelError>,
}

impl Admitted {
    /// Whether only the active node can serve it.
    pub(crate) fn needs_active(&self, asked: &Asked) -> bool {
        !self.is_about_this_node()
            && ((self.is_metered() && !arca_danger::is(Bug::UseNotTakenOnStandby))
                || (self.refusal.is_none() && (self.writes() || asked.incoming.wrap_ttl.is_some())))
    }

    /// Whether it is about the node that is asked.
    pub(crate) fn is_about_this_node(&self) -> bool {
        self.effect() == Some(Effect::ThisNode)
    }

    /// Whether it is about what the active node alone knows.
    pub(crate) fn asks_active(&self) -> bool {
        self.effect() == Some(Effect::AsksActive)
    }

    fn effect(&self) -> Option<Effect> {
        self.found.and_then(|found| found.method).map(|method| method.effect)
    }

    /// Whether the caller's token counts its uses.
    pub(crate) fn is_metered(&self) -> bool {
        self.counts_uses() && self.caller.as_ref().is_some_and(Identified::is_metered)
    }

    /// Uses are taken where a token is required.
    fn counts_uses(&self) -> bool {
        self.found.is_none_or(|found| found.route.access != Access::Unauthenticated)
    }

    /// Whether serving it changes what is stored.
    pub(crate) fn writes(&self) -> bool {
        self.request.operation != Operation::Help && self.effect() == Some(Effect::Writes)
    }
}

impl Kernel {
    /// Decides. Fails only when deciding was impossible.
    pub(crate) fn admit(&self, tx: &Tx, asked: &mut Asked) -> Result<Admitted, KernelError> {
        let router = self.mounts.router(&self.store)?;
        let Some(stated) = router.namespaces().at(&asked.incoming.namespace) else {
            return self.outside(asked);
        };
        let place = Place::find(&router, stated, &asked.incoming.path);
        let mut request = self.request(asked, &place.namespace, place.target());
        let mut broken = None;
        let found = match place.target() {
            None => None,
            Some((mount, rest)) => self.find_route(mount, rest, &mut request).unwrap_or_else(|err| {
                broken = Some(err);
                None
            }),
        };
        let path = place.path().to_owned();
        let Place { full_path, namespace, mount, .. } = place;
        let mut admitted = Admitted {
            namespace,
            mount,
            found,
            caller: None,
            decision: AclDecision::default(),
            request,
            path,
            existed: None,
            refusal: None,
        };
        let allowed = self.authorize(tx, asked, &mut admitted, &full_path);
        admitted.refusal = match allowed {
            Err(err) => Some(err),
            Ok(()) => broken
                .or_else(|| admitted.misrouted())
                .or_else(|| admitted.foreign(tx, asked))
                .or_else(|| self.fenced(&admitted)),
        };
        Ok(admitted)
    }

    /// Why a cluster that is no longer the primary does not begin what would write. Paths of the system are let through:
    /// most of what an operator needs there writes nothing, and what does is refused at its commit.
    fn fenced(&self, admitted: &Admitted) -> Option<KernelError> {
        if self.store.serves_all() {
            return None;
        }
        let standing = self.standing();
        let is_systems =
            admitted.mount.as_ref().is_some_and(|mount| matches!(mount.serves, MountServes::System));
        if !standing.is_fenced() || is_systems || !admitted.writes() {
            return None;
        }
        standing.check_local_writes().err()
    }

    /// Whether what stands below `path` of that namespace is read by an engine's route that takes it as it was written.
    /// Where that cannot be told, it is not.
    #[must_use]
    pub fn takes_raw_rest(&self, namespace: &str, path: &str) -> bool {
        let Ok(router) = self.mounts.router(&self.store) else { return false };
        let Some(stated) = router.namespaces().at(namespace) else { return false };
        let full_path = format!("{}{path}", stated.path);
        let Some((mount, rest)) = router.find(&full_path).filter(|(mount, _)| mount.is_active()) else {
            return false;
        };
        mount.engine().is_ok_and(|engine| engine.routes().takes_raw_rest(rest))
    }

    /// A request in a namespace that does not exist.
    fn outside(&self, asked: &mut Asked) -> Result<Admitted, KernelError> {
        let namespace = Arc::new(Namespace::root());
        let request = self.request(asked, &namespace, None);
        Ok(Admitted {
            namespace,
            mount: None,
            found: None,
            caller: None,
            decision: AclDecision::default(),
            request,
            path: asked.incoming.path.clone(),
            existed: None,
            refusal: Some(KernelError::NotFound("namespace not found".to_owned())),
        })
    }

    fn request(&self, asked: &mut Asked, namespace: &Namespace, target: Option<(&Mount, &str)>) -> Request {
        let incoming = &asked.incoming;
        Request {
            id: incoming.id.clone(),
            operation: incoming.operation,
            namespace: namespace.path.clone(),
            path: target.map_or("", |(_, rest)| rest).to_owned(),
            mount_point: target.map_or_else(String::new, |(mount, _)| mount.record.path.clone()),
            route: RouteMatch::none(),
            data: std::mem::take(&mut asked.data),
            headers: target.map_or_else(BTreeMap::new, |(mount, _)| {
                passed_headers(&mount.record.config.passthrough_request_headers, incoming)
            }),
            caller: None,
            client_token: incoming.token.clone(),
            remote_addr: incoming.remote_addr,
            remote_port: incoming.remote_port,
            client_certificates: Arc::clone(&incoming.client_certificates),
            wrap_ttl: incoming.wrap_ttl,
        }
    }

    fn find_route(
        &self,
        mount: &Mount,
        rest: &str,
        request: &mut Request,
    ) -> Result<Option<Found>, KernelError> {
        let found = match mount.serves {
            MountServes::Engine(_) => {
                mount.engine()?.routes().find(request.operation, rest).map(|found| (found, None))
            }
            MountServes::Identity | MountServes::System | MountServes::Token => {
                let groups = self.groups(mount).iter().enumerate();
                let mut matches = groups.filter_map(|(at, group)| {
                    Some((group.routes().find(request.operation, rest)?, Some(at)))
                });
                matches.next()
            }
            MountServes::Unknown => None,
        };
        let Some(((route, matched), group)) = found else { return Ok(None) };
        request.route = matched;
        Ok(Some(Found { route, method: route.method(request.operation), group }))
    }

    /// The groups of built-in paths that serve a mount.
    pub(crate) fn groups(&self, mount: &Mount) -> &[Box<dyn Builtin>] {
        match mount.serves {
            MountServes::Identity => &self.identity_groups,
            MountServes::System => &self.system_groups,
            MountServes::Token => &self.token_groups,
            MountServes::Engine(_) | MountServes::Unknown => &[],
        }
    }

    /// Identifies the caller, tells create from update, and asks the policies.
    fn authorize(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &mut Admitted,
        full_path: &str,
    ) -> Result<(), KernelError> {
        if !self.store.serves_all() && *self.standing().serves() == Serves::DrSecondary {
            return self.authorize_operation(tx, asked, admitted, full_path);
        }
        let access = admitted.found.map_or(Access::Token, |found| found.route.access);
        if access == Access::Unauthenticated {
            // Built-in open paths say more to somebody they know; a token that is no good makes them a stranger.
            if admitted.found.is_some_and(|found| found.group.is_some()) {
                admitted.caller = self.identify(tx, asked, &admitted.namespace).ok();
            }
            return Ok(());
        }
        let caller = self.identify(tx, asked, &admitted.namespace)?;
        admitted.request.caller = Some(Arc::clone(&caller.caller));
        let acl = Arc::clone(&caller.acl);
        admitted.caller = Some(caller);
        let is_update = admitted.request.operation == Operation::Update;
        let existed = if is_update { self.exists(tx, asked, admitted)? } else { None };
        if existed == Some(false) {
            admitted.request.operation = Operation::Create;
        }
        let request = &mut admitted.request;
        let decide = |operation| acl.check(AclRequest::of(request, operation, full_path));
        admitted.decision = decide(request.operation);
        admitted.existed = existed.filter(|existed| {
            let other = if *existed { Operation::Create } else { Operation::Update };
            !decide(other).is_allowed
        });
        let needs_sudo = access == Access::Sudo && request.operation != Operation::Help;
        if !admitted.decision.is_allowed || (needs_sudo && !admitted.decision.has_sudo) {
            return Err(KernelError::Denied);
        }
        admitted.decision.limit_page(request.operation, &mut request.data);
        Ok(())
    }

    /// Makes the commit depend on what was at the path when the caller was allowed to create or to update it.
    pub(crate) fn hold_existence(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
    ) -> Result<(), KernelError> {
        if admitted.existed.is_some() {
            self.exists(tx, asked, admitted)?; // The view is the same: what counts is that this transaction read it.
        }
        Ok(())
    }

    fn exists(&self, tx: &Tx, asked: &Asked, admitted: &Admitted) -> Result<Option<bool>, KernelError> {
        let (Some(mount), Some(found)) = (&admitted.mount, admitted.found) else { return Ok(None) };
        if found.method.is_none() {
            return Ok(None);
        }
        if let Some(group) = found.group.and_then(|at| self.groups(mount).get(at)) {
            return group.exists(&self.builtin_ctx(tx, asked, admitted), &admitted.request);
        }
        let called = self.call(tx, mount)?;
        Ok(called.engine().exists(&called.ctx(), &admitted.request)?)
    }

    pub(crate) fn builtin_ctx<'a>(
        &'a self,
        tx: &'a Tx,
        asked: &'a Asked,
        admitted: &'a Admitted,
    ) -> BuiltinCtx<'a> {
        BuiltinCtx {
            kernel: self,
            tx,
            namespace: &admitted.namespace,
            token: admitted.caller.as_ref().map(|caller| caller.entry.as_ref()),
            acl: admitted.caller.as_ref().map(|caller| caller.acl.as_ref()),
            incoming: &asked.incoming,
            secondary_id: asked.behalf.as_ref().map(|behalf| behalf.secondary_id.as_str()),
            entity: &asked.entity,
            incoming_body: &asked.stream,
        }
    }
}

impl Admitted {
    /// Why it is not run for a performance secondary.
    fn foreign(&self, tx: &Tx, asked: &Asked) -> Option<KernelError> {
        let behalf = asked.behalf.as_ref()?;
        if !self.is_of_what_is_shared() {
            return Some(KernelError::invalid("this is not done for another cluster"));
        }
        match self.withheld(tx, &behalf.secondary_id) {
            Ok(None) => None,
            Ok(Some(text)) => Some(KernelError::invalid(text)),
            Err(err) => Some(err),
        }
    }

    /// What a filter has against it: the mount that the request lies in is withheld, or one that it is about. Of the latter
    /// the path counts, whether anything is there or not: nobody learns it, and nothing is moved out of the filter's way.
    fn withheld(&self, tx: &Tx, secondary_id: &str) -> Result<Option<&'static str>, KernelError> {
        let Some(mount) = &self.mount else { return Ok(None) };
        if filter::withholds(tx, secondary_id, mount)? {
            return Ok(Some("what is mounted there is kept from this cluster by a filter"));
        }
        for path in self.mounts_asked_for() {
            if filter::withholds_path(tx, secondary_id, &self.namespace, &path)? {
                return Ok(Some("that path is kept from this cluster by a filter"));
            }
        }
        Ok(None)
    }

    /// Paths of mounts, as records have them, that a request to `sys/` makes, changes, moves or removes.
    fn mounts_asked_for(&self) -> Vec<String> {
        if !self.mount.as_ref().is_some_and(|mount| matches!(mount.serves, MountServes::System)) {
            return Vec::new();
        }
        let request = &self.request;
        match request.path.split_once('/').map_or(request.path.as_str(), |(first, _)| first) {
            "auth" => sys::mount_path_of(request, EngineKind::Auth).into_iter().collect(),
            "mounts" => sys::mount_path_of(request, EngineKind::Secrets).into_iter().collect(),
            "remount" => sys::remount_paths_of(request),
            _ => Vec::new(),
        }
    }

    /// Why there is nothing to run, said only once the caller is known to be allowed.
    fn misrouted(&self) -> Option<KernelError> {
        let asks_for_help = self.request.operation == Operation::Help;
        let Some(found) = self.found else {
            if asks_for_help && self.mount.is_some() && self.request.path.is_empty() {
                return None;
            }
            if self.path.ends_with('/') && self.request.operation.writes_entry() {
                return Some(KernelError::invalid("cannot write to a path ending in '/'"));
            }
            let text = if self.mount.is_some() {
                "unsupported path".to_owned()
            } else {
                format!("no handler for route {:?}. route entry not found.", self.path)
            };
            return Some(KernelError::NotFound(text));
        };
        let is_served = found.method.is_some() || asks_for_help;
        (!is_served).then_some(KernelError::Unsupported)
    }
}

/// The headers that a mount's tune wants, by lower-case name, without any that carries the caller's token: as a bearer it comes
/// in `Authorization`, and would reach an engine, and a primary cluster, that has no use for it (CVE-2026-4525).
fn passed_headers(wanted: &[String], incoming: &Incoming) -> BTreeMap<String, Vec<String>> {
    let token = incoming.token.as_ref().map(|token| token.as_str()).filter(|token| !token.is_empty());
    let carries_token =
        |values: &[String]| token.is_some_and(|token| values.iter().any(|value| value.contains(token)));
    wanted
        .iter()
        .filter_map(|name| incoming.headers.get_key_value(&name.to_ascii_lowercase()))
        .filter(|(_, values)| !carries_token(values))
        .map(owned)
        .collect()
}

fn owned((name, values): (&String, &Vec<String>)) -> (String, Vec<String>) {
    (name.clone(), values.clone())
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
