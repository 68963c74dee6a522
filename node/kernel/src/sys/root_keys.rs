//! `sys/rekey/*` for anybody who holds key shares, and `sys/rotate/root/*` for those with a token as well: new shares
//! for old. The two families are one attempt with two ways in; they differ in the form of the answers.
//! Read next: [`crate::root_keys`] for what the node does behind them.

use std::sync::Arc;

use arca_engine_api::{
    Access, Effect, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::pace::Pace;
use crate::KernelError;
use crate::answer::Shape;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::kernel::Kernel;
use crate::root_keys::{NewShares, Offered, Rekey, RekeyPlan, RootKeys, Verification};

const INIT_FIELDS: &[Field] = &[
    Field::new("secret_shares", FieldKind::Int, "How many new shares to make."),
    Field::new("secret_threshold", FieldKind::Int, "How many of them are needed."),
    Field::new("require_verification", FieldKind::Bool, "Whether they take over only once given back."),
    Field::new("pgp_keys", FieldKind::List, "Not supported."),
    Field::new("backup", FieldKind::Bool, "Only with pgp_keys."),
];
pub(super) const SHARE_FIELDS: &[Field] = &[
    Field::new("key", FieldKind::String, "One share."),
    Field::new("nonce", FieldKind::String, "Of the attempt."),
];

/// All of these are about the memory of the active node.
pub(super) const READ: Method = Method::with_effect(Operation::Read, Effect::Writes, "Show the progress.");
const INIT: &[Method] = &[
    READ,
    Method::new(Operation::Update, "Begin to replace the shares."),
    Method::new(Operation::Delete, "Give up; the shares of today stay."),
];
pub(super) const UPDATE: &[Method] = &[Method::new(Operation::Update, "Give a share.")];
const VERIFY: &[Method] = &[
    READ,
    Method::new(Operation::Update, "Give a new share back."),
    Method::new(Operation::Delete, "Forget the new shares given back so far."),
];
const BACKUP: &[Method] = &[
    Method::new(Operation::Read, "Show the backup."),
    Method::with_effect(Operation::Delete, Effect::Reads, "Delete the backup."),
];
const ROTATE: &[Method] = &[Method::new(Operation::Update, "Needs key shares with this seal.")];

const fn open(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access: Access::Unauthenticated, methods, fields, takes_any_field: false, summary }
}

const fn closed(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access: Access::Token, methods, fields, takes_any_field: false, summary }
}

const NO_RECOVERY: &str = "Only for seals with recovery keys.";

static ROUTES: &[Route] = &[
    open("init", "rekey/init", INIT, INIT_FIELDS, "An attempt to replace the key shares."),
    open("update", "rekey/update", UPDATE, SHARE_FIELDS, "Takes a share of today."),
    open("verify", "rekey/verify", VERIFY, SHARE_FIELDS, "Takes a new share back, to verify it."),
    open("recovery", "rekey-recovery-key/init", INIT, INIT_FIELDS, NO_RECOVERY),
    open("recovery", "rekey-recovery-key/update", UPDATE, SHARE_FIELDS, NO_RECOVERY),
    open("recovery", "rekey-recovery-key/verify", VERIFY, SHARE_FIELDS, NO_RECOVERY),
    closed("backup", "rekey/backup", BACKUP, &[], "Backup of shares encrypted by PGP: there is none."),
    closed("backup", "rekey/recovery-key-backup", BACKUP, &[], NO_RECOVERY),
    Route {
        id: "rotate",
        pattern: "rotate/root",
        access: Access::Sudo,
        methods: ROTATE,
        fields: &[],
        takes_any_field: false,
        summary: "Rotation of the root key without shares.",
    },
    closed("init", "rotate/root/init", INIT, INIT_FIELDS, "As `rekey/init`."),
    closed("update", "rotate/root/update", UPDATE, SHARE_FIELDS, "As `rekey/update`."),
    closed("verify", "rotate/root/verify", VERIFY, SHARE_FIELDS, "As `rekey/verify`."),
    closed("backup", "rotate/root/backup", BACKUP, &[], "As `rekey/backup`."),
    closed("recovery", "rotate/recovery/init", INIT, INIT_FIELDS, NO_RECOVERY),
    closed("recovery", "rotate/recovery/update", UPDATE, SHARE_FIELDS, NO_RECOVERY),
    closed("recovery", "rotate/recovery/verify", VERIFY, SHARE_FIELDS, NO_RECOVERY),
    closed("backup", "rotate/recovery/backup", BACKUP, &[], NO_RECOVERY),
];

/// These paths.
pub(crate) struct RekeyPaths {
    table: RouteTable,
    pace: Pace,
}

impl RekeyPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES), pace: Pace::default() }
    }
}

/// Which family was called, and so how the answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Without a token: bare objects.
    Open,
    /// With one: in the envelope.
    Closed,
}

impl Family {
    pub(super) fn of(request: &Request, open_prefix: &str) -> Self {
        if request.path.starts_with(open_prefix) { Self::Open } else { Self::Closed }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Open => Shape::Bare,
            Self::Closed => Shape::Envelope,
        }
    }
}

impl Kernel {
    pub(super) fn root_keys(&self) -> Result<Arc<dyn RootKeys>, KernelError> {
        self.cluster.root_keys().ok_or(KernelError::Sealed)
    }
}

/// What these paths answer is made after the commit, too late to be wrapped: better refused than sent in the clear.
pub(super) fn refuse_wrapping(request: &Request) -> Result<(), KernelError> {
    if request.wrap_ttl.is_some() {
        return Err(KernelError::invalid("the answer of this path cannot be wrapped"));
    }
    Ok(())
}

/// The share of a request, and the attempt it is for.
pub(super) fn offered(request: &Request, missing: [&str; 2]) -> Result<Offered, KernelError> {
    let fields = request.fields();
    let share = Zeroizing::new(fields.string("key")?.unwrap_or_default());
    let nonce = fields.string("nonce")?.unwrap_or_default();
    let [no_share, no_nonce] = missing;
    if share.is_empty() {
        return Err(KernelError::invalid(no_share));
    }
    if nonce.is_empty() && !no_nonce.is_empty() {
        return Err(KernelError::invalid(no_nonce));
    }
    Ok(Offered { share, nonce })
}

#[async_trait]
impl Builtin for RekeyPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let family = Family::of(request, "rekey");
        if family == Family::Open {
            self.pace.step(ctx.incoming.remote_addr, ctx.kernel.clock.monotonic())?;
        }
        refuse_wrapping(request)?;
        match (request.route.id, request.operation) {
            ("backup", Operation::Delete) => Ok(Response::empty().into()),
            ("backup", _) => Err(KernelError::invalid("no backed-up keys found")),
            ("recovery", Operation::Delete) if family == Family::Closed => Ok(Response::empty().into()),
            ("recovery", _) if family == Family::Closed => {
                Err(KernelError::invalid("recovery keys not supported"))
            }
            ("recovery", _) => Err(KernelError::invalid("recovery rekeying not supported")),
            ("rotate", _) => Err(KernelError::invalid(
                "the root key of a seal made of shares cannot be rotated without shares: begin at \
                 sys/rotate/root/init",
            )),
            ("init", Operation::Read) => Ok(show(family)),
            ("init", Operation::Delete) => Ok(BuiltinAnswer::after(|kernel| {
                Box::pin(async move { kernel.root_keys()?.cancel_rekey().await.map(|()| Response::empty()) })
            })),
            ("init", _) => begin(request, family),
            ("update", _) => update(request, family),
            ("verify", operation) => verify(request, operation, family),
            (other, _) => Err(KernelError::Bug(format!("no such path: {other}"))),
        }
    }
}

fn missing(family: Family) -> [&'static str; 2] {
    match family {
        Family::Open => ["'key' must be specified in request body as JSON", ""],
        Family::Closed => ["missing required field 'key'", "missing required field 'nonce'"],
    }
}

fn show(family: Family) -> BuiltinAnswer {
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            let rekey = kernel.root_keys()?.rekey().await?;
            Ok(Response::data(status(&rekey, family)))
        })
    });
    BuiltinAnswer { shape: family.shape(), ..answer }
}

fn begin(request: &Request, family: Family) -> Result<BuiltinAnswer, KernelError> {
    let plan = plan(request)?;
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            kernel.standing().check_writes()?;
            let rekey = kernel.root_keys()?.begin_rekey(plan).await?;
            Ok(Response::data(status(&rekey, family)))
        })
    });
    Ok(BuiltinAnswer { shape: family.shape(), ..answer })
}

fn plan(request: &Request) -> Result<RekeyPlan, KernelError> {
    let fields = request.fields();
    let has_keys = fields.list("pgp_keys")?.is_some_and(|keys| !keys.is_empty());
    if fields.boolean("backup")?.unwrap_or_default() && !has_keys {
        return Err(KernelError::invalid(
            "cannot request a backup of the new keys without providing PGP keys for encryption",
        ));
    }
    if has_keys {
        return Err(KernelError::invalid(
            "PGP encryption of keys is not supported: nothing was begun, and no key changes",
        ));
    }
    let count = |name: &str| -> Result<u8, KernelError> {
        u8::try_from(fields.integer(name)?.unwrap_or_default())
            .map_err(|_| KernelError::invalid(format!("{name} must be from 1 to 255")))
    };
    Ok(RekeyPlan {
        shares: count("secret_shares")?,
        threshold: count("secret_threshold")?,
        is_verified: fields.boolean("require_verification")?.unwrap_or_default(),
    })
}

fn update(request: &Request, family: Family) -> Result<BuiltinAnswer, KernelError> {
    let offered = offered(request, missing(family))?;
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            kernel.standing().check_writes()?;
            let keys = kernel.root_keys()?;
            let nonce = offered.nonce.clone();
            match keys.offer_for_rekey(offered).await? {
                Some(made) => Ok(Response::data(shown(&made, &nonce, family))),
                None => Ok(Response::data(status(&keys.rekey().await?, family))),
            }
        })
    });
    Ok(BuiltinAnswer { shape: family.shape(), ..answer })
}

fn verify(request: &Request, operation: Operation, family: Family) -> Result<BuiltinAnswer, KernelError> {
    let answer = match operation {
        Operation::Read => BuiltinAnswer::after(|kernel| {
            Box::pin(
                async move { Ok(Response::data(verification(&kernel.root_keys()?.verification().await?))) },
            )
        }),
        Operation::Delete => BuiltinAnswer::after(|kernel| {
            Box::pin(async move {
                Ok(Response::data(verification(&kernel.root_keys()?.restart_verification().await?)))
            })
        }),
        _ => {
            let offered = offered(request, missing(family))?;
            BuiltinAnswer::after(move |kernel| {
                Box::pin(async move {
                    kernel.standing().check_writes()?;
                    let keys = kernel.root_keys()?;
                    let nonce = offered.nonce.clone();
                    if keys.offer_for_verification(offered).await? {
                        return Ok(Response::data(json!({ "nonce": nonce, "complete": true })));
                    }
                    Ok(Response::data(verification(&keys.verification().await?)))
                })
            })
        }
    };
    Ok(BuiltinAnswer { shape: family.shape(), ..answer })
}

/// The open family always has every field, the other only those that say something.
fn status(rekey: &Rekey, family: Family) -> Value {
    let attempt = rekey.attempt.as_ref();
    let plan = attempt.map_or(RekeyPlan { shares: 0, threshold: 0, is_verified: false }, |it| it.plan);
    let mut status = json!({
        "started": attempt.is_some(),
        "t": plan.threshold,
        "n": plan.shares,
        "required": rekey.required,
    });
    if family == Family::Open || attempt.is_some() {
        set(&mut status, "nonce", json!(attempt.map_or("", |attempt| attempt.nonce.as_str())));
        set(&mut status, "progress", json!(attempt.map_or(0, |attempt| attempt.progress)));
        set(&mut status, "verification_required", json!(plan.is_verified));
        let nonce = attempt.and_then(|attempt| attempt.verification_nonce.as_deref());
        set_nonce(&mut status, nonce, family);
    }
    if family == Family::Open {
        set(&mut status, "pgp_fingerprints", Value::Null);
        set(&mut status, "backup", json!(false));
    }
    status
}

/// New shares, the one time they are shown.
fn shown(made: &NewShares, nonce: &str, family: Family) -> Value {
    let texts = |encode: fn(&[u8]) -> String| -> Vec<String> {
        made.shares.iter().map(|share| encode(share)).collect()
    };
    let mut shown = json!({
        "nonce": nonce,
        "complete": true,
        "keys": texts(|share| hex::encode(share)),
        "keys_base64": texts(|share| STANDARD.encode(share)),
        "pgp_fingerprints": null,
        "backup": false,
        "verification_required": made.verification_nonce.is_some(),
    });
    set_nonce(&mut shown, made.verification_nonce.as_deref(), family);
    shown
}

fn verification(verification: &Verification) -> Value {
    json!({
        "nonce": verification.nonce,
        "started": verification.is_started,
        "t": verification.plan.threshold,
        "n": verification.plan.shares,
        "progress": verification.progress,
    })
}

/// Left out of the open family's answers when there is none.
fn set_nonce(value: &mut Value, nonce: Option<&str>, family: Family) {
    if family == Family::Closed || nonce.is_some() {
        set(value, "verification_nonce", json!(nonce.unwrap_or_default()));
    }
}

fn set(value: &mut Value, name: &str, field: Value) {
    if let Value::Object(map) = value {
        map.insert(name.to_owned(), field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root_keys::RekeyAttempt;

    #[track_caller]
    fn check(got: &Value, want: &Value) {
        assert_eq!(got, want, "{got:#}");
    }

    fn under_way(verification_nonce: Option<&str>) -> Rekey {
        Rekey {
            required: 2,
            attempt: Some(RekeyAttempt {
                nonce: "a".to_owned(),
                plan: RekeyPlan { shares: 5, threshold: 3, is_verified: verification_nonce.is_some() },
                progress: 1,
                verification_nonce: verification_nonce.map(str::to_owned),
            }),
        }
    }

    #[test]
    fn no_attempt_looks_as_clients_expect() {
        let none = Rekey { required: 3, attempt: None };
        check(
            &status(&none, Family::Open),
            &json!({"nonce":"","started":false,"t":0,"n":0,"progress":0,"required":3,"pgp_fingerprints":null,
                "backup":false,"verification_required":false}),
        );
        check(&status(&none, Family::Closed), &json!({"started":false,"t":0,"n":0,"required":3}));
    }

    #[test]
    fn an_attempt_looks_as_clients_expect() {
        check(
            &status(&under_way(None), Family::Open),
            &json!({"nonce":"a","started":true,"t":3,"n":5,"progress":1,"required":2,"pgp_fingerprints":null,
                "backup":false,"verification_required":false}),
        );
        check(&status(&under_way(Some("v")), Family::Open)["verification_nonce"], &json!("v"));
        check(
            &status(&under_way(None), Family::Closed),
            &json!({"nonce":"a","started":true,"t":3,"n":5,"progress":1,"required":2,
                "verification_required":false,"verification_nonce":""}),
        );
    }

    #[test]
    fn new_shares_come_in_both_spellings() {
        let made = NewShares { shares: vec![Zeroizing::new(vec![0xff, 1])], verification_nonce: None };
        check(
            &shown(&made, "a", Family::Open),
            &json!({"nonce":"a","complete":true,"keys":["ff01"],"keys_base64":["/wE="],"pgp_fingerprints":null,
                "backup":false,"verification_required":false}),
        );
    }
}
