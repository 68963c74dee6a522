//! `sys/generate-root/*` for anybody who holds key shares, `sys/generate-root-token/*` for those with a token as well,
//! and `sys/decode-token`, which takes the one-time pad off.
//! Read next: [`crate::root_keys`] for what the node does behind them.

use arca_engine_api::{
    Access, Effect, EngineError, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::pace::Pace;
use super::root_keys::{Family, READ, SHARE_FIELDS, UPDATE, offered, refuse_wrapping};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::root_keys::{Generation, GenerationStep, Purpose};
use crate::tokens::ROOT_TOKEN_LEN;
use crate::tokens::secret::base62;

/// Longest encoded token and pad that are looked at, bytes: far more than any token has.
const ENCODED_MAX: usize = 8 << 10;

const ATTEMPT: &[Method] = &[
    READ,
    Method::new(Operation::Update, "Begin to make a root token."),
    Method::new(Operation::Delete, "Give up, and forget the shares given so far."),
];
const DECODE: &[Method] = &[Method::with_effect(Operation::Update, Effect::Reads, "Take the pad off.")];
const ATTEMPT_FIELDS: &[Field] = &[
    Field { name: "otp", kind: FieldKind::String, summary: "One-time pad, as long as the token." },
    Field { name: "pgp_key", kind: FieldKind::String, summary: "Not supported." },
];
const DECODE_FIELDS: &[Field] = &[
    Field { name: "encoded_token", kind: FieldKind::String, summary: "As the last share's answer had it." },
    Field { name: "otp", kind: FieldKind::String, summary: "The one-time pad it was made with." },
];

const fn route(
    id: &'static str,
    pattern: &'static str,
    access: Access,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access, methods, fields, takes_any_field: false, summary }
}

const OPEN: Access = Access::Unauthenticated;

static ROUTES: &[Route] = &[
    route("attempt", "generate-root/attempt", OPEN, ATTEMPT, ATTEMPT_FIELDS, "The making of a root token."),
    route("update", "generate-root/update", OPEN, UPDATE, SHARE_FIELDS, "Takes a key share."),
    route(
        "attempt",
        "generate-root-token/attempt",
        Access::Token,
        ATTEMPT,
        ATTEMPT_FIELDS,
        "As `generate-root/attempt`.",
    ),
    route(
        "update",
        "generate-root-token/update",
        Access::Token,
        UPDATE,
        SHARE_FIELDS,
        "As `generate-root/update`.",
    ),
    route("decode", "decode-token", OPEN, DECODE, DECODE_FIELDS, "Decodes what `generate-root` encoded."),
];

/// These paths.
pub(crate) struct RootTokenPaths {
    table: RouteTable,
    pace: Pace,
}

impl RootTokenPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES), pace: Pace::default() }
    }
}

#[async_trait]
impl Builtin for RootTokenPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let family = Family::of(request, "generate-root/");
        if family == Family::Open {
            self.pace.step(ctx.incoming.remote_addr, ctx.kernel.clock.monotonic())?;
        }
        match (request.route.id, request.operation) {
            ("decode", _) => decode(request),
            ("attempt", Operation::Read) => Ok(show(family, Purpose::RootToken)),
            ("attempt", Operation::Delete) => Ok(cancel(Purpose::RootToken)),
            ("attempt", _) => {
                ctx.kernel.standing().check_operator_writes()?; // The token could not be stored.
                begin(ctx, request, family, Purpose::RootToken)
            }
            _ => update(request, family, Purpose::RootToken),
        }
    }
}

pub(super) fn cancel(purpose: Purpose) -> BuiltinAnswer {
    BuiltinAnswer::after(move |kernel| {
        Box::pin(
            async move { kernel.root_keys()?.cancel_generation(purpose).await.map(|()| Response::empty()) },
        )
    })
}

pub(super) fn show(family: Family, purpose: Purpose) -> BuiltinAnswer {
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            let generation = kernel.root_keys()?.generation(purpose).await?;
            Ok(Response::data(status(&generation, "", family)))
        })
    });
    BuiltinAnswer { shape: family.shape(), ..answer }
}

pub(super) fn begin(
    ctx: &BuiltinCtx<'_>,
    request: &Request,
    family: Family,
    purpose: Purpose,
) -> Result<BuiltinAnswer, KernelError> {
    refuse_wrapping(request)?;
    let fields = request.fields();
    let mut otp = Zeroizing::new(fields.string("otp")?.unwrap_or_default());
    if fields.string("pgp_key")?.is_some_and(|key| !key.is_empty()) {
        return Err(KernelError::invalid(
            "PGP encryption of the token is not supported: give an otp, or neither and get one",
        ));
    }
    let is_ours = otp.is_empty();
    if is_ours {
        otp = base62(ctx.kernel.entropy.as_ref(), ROOT_TOKEN_LEN)?;
    }
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            // A pad made here is shown once: it is what the token is decoded with.
            let shown = Zeroizing::new(if is_ours { otp.to_string() } else { String::new() });
            let generation = kernel.root_keys()?.begin_generation(purpose, otp).await?;
            Ok(Response::data(status(&generation, &shown, family)))
        })
    });
    Ok(BuiltinAnswer { shape: family.shape(), ..answer })
}

pub(super) fn update(
    request: &Request,
    family: Family,
    purpose: Purpose,
) -> Result<BuiltinAnswer, KernelError> {
    refuse_wrapping(request)?;
    let missing = match family {
        Family::Open => ["'key' must be specified in request body as JSON", ""],
        Family::Closed => ["key is required", "nonce is required"],
    };
    let offered = offered(request, missing)?;
    let answer = BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            let nonce = offered.nonce.clone();
            let step = kernel.root_keys()?.offer_for_generation(purpose, offered).await?;
            Ok(Response::data(progress(&step, &nonce, family)))
        })
    });
    Ok(BuiltinAnswer { shape: family.shape(), ..answer })
}

/// The open family always has every field, the other only those that say something.
fn status(generation: &Generation, otp: &str, family: Family) -> Value {
    let mut status = json!({
        "started": generation.nonce.is_some(),
        "complete": false,
        "progress": generation.progress,
        "required": generation.required,
        "otp": otp,
        "otp_length": ROOT_TOKEN_LEN,
    });
    let nonce = generation.nonce.as_deref();
    if let Value::Object(map) = &mut status {
        if family == Family::Open || nonce.is_some() {
            map.insert("nonce".to_owned(), json!(nonce.unwrap_or_default()));
            map.insert("pgp_fingerprint".to_owned(), json!(""));
        }
        if family == Family::Open {
            map.insert("encoded_token".to_owned(), json!(""));
            map.insert("encoded_root_token".to_owned(), json!(""));
        }
    }
    status
}

fn progress(step: &GenerationStep, nonce: &str, family: Family) -> Value {
    let encoded = step.encoded_token.as_ref().map_or("", |token| token.as_str());
    let mut progress = json!({
        "nonce": nonce,
        "started": true,
        "progress": step.progress,
        "required": step.required,
        "complete": step.encoded_token.is_some(),
        "encoded_token": encoded,
        "pgp_fingerprint": "",
    });
    if let (Value::Object(map), Family::Open) = (&mut progress, family) {
        map.insert("encoded_root_token".to_owned(), json!(encoded));
        map.insert("otp".to_owned(), json!(""));
        map.insert("otp_length".to_owned(), json!(0));
    }
    progress
}

fn decode(request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let secret = |name: &str| -> Result<Zeroizing<String>, EngineError> {
        Ok(Zeroizing::new(fields.string(name)?.unwrap_or_default()))
    };
    let token = decoded(&secret("encoded_token")?, &secret("otp")?)?;
    Ok(Response::data(json!({ "token": token.as_str() })).into())
}

/// Takes the pad off.
fn decoded(encoded: &str, otp: &str) -> Result<Zeroizing<String>, KernelError> {
    if encoded.is_empty() || otp.is_empty() {
        return Err(KernelError::invalid("provided 'encoded_token' or 'otp' is empty"));
    }
    if encoded.len().max(otp.len()) > ENCODED_MAX {
        return Err(KernelError::invalid("provided 'encoded_token' or 'otp' is too long"));
    }
    let bytes = STANDARD_NO_PAD.decode(encoded);
    let bytes = Zeroizing::new(bytes.map_err(|_| KernelError::invalid("error decoding base64'd token"))?);
    if bytes.len() != otp.len() {
        let text = format!(
            "error xoring token: length of byte slices is not equivalent: {} != {}",
            bytes.len(),
            otp.len()
        );
        return Err(KernelError::invalid(text));
    }
    let token: Vec<u8> = bytes.iter().zip(otp.bytes()).map(|(byte, pad)| byte ^ pad).collect();
    let token = String::from_utf8(token)
        .map_err(|_| KernelError::invalid("the token and the one-time pad do not belong together"))?;
    Ok(Zeroizing::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(encoded: &str, otp: &str, want: &str) {
        let got = decoded(encoded, otp).map_or_else(|err| err.to_string(), |token| token.to_string());
        assert_eq!(got, want, "{encoded:?} with {otp:?}");
    }

    #[test]
    fn the_pad_comes_off() {
        check("AAAA", "abc", "abc");
        check("", "abc", "provided 'encoded_token' or 'otp' is empty");
        check("AAAA", "", "provided 'encoded_token' or 'otp' is empty");
        check("!!", "abc", "error decoding base64'd token");
        check("AAAA", "ab", "error xoring token: length of byte slices is not equivalent: 3 != 2");
        check("/////w", "abcd", "the token and the one-time pad do not belong together");
        check(&"A".repeat(ENCODED_MAX + 1), "a", "provided 'encoded_token' or 'otp' is too long");
    }

    #[test]
    fn both_families_look_as_clients_expect() {
        let none = Generation { nonce: None, progress: 0, required: 2 };
        assert_eq!(
            status(&none, "", Family::Open),
            json!({"nonce":"","started":false,"progress":0,"required":2,"complete":false,"encoded_token":"",
                "encoded_root_token":"","pgp_fingerprint":"","otp":"","otp_length":28})
        );
        assert_eq!(
            status(&none, "", Family::Closed),
            json!({"complete":false,"otp":"","otp_length":28,"progress":0,"required":2,"started":false})
        );
        let done =
            GenerationStep { progress: 2, required: 2, encoded_token: Some(Zeroizing::new("eA".to_owned())) };
        assert_eq!(
            progress(&done, "n", Family::Open),
            json!({"nonce":"n","started":true,"progress":2,"required":2,"complete":true,"encoded_token":"eA",
                "encoded_root_token":"eA","pgp_fingerprint":"","otp":"","otp_length":0})
        );
        assert_eq!(
            progress(&done, "n", Family::Closed),
            json!({"complete":true,"encoded_token":"eA","nonce":"n","pgp_fingerprint":"","progress":2,
                "required":2,"started":true})
        );
    }
}
