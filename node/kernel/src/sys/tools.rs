//! `sys/tools/random` and `sys/tools/hash`: bytes and digests, for callers without libraries of their own.

use arca_engine_api::{
    Access, Effect, EngineError, Field, FieldKind, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA3_256, SHA3_384, SHA3_512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::Digest as _;
use zeroize::Zeroizing;

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};

/// Most random bytes at once, as in the field.
const RANDOM_MAX: usize = 128 << 10;
const RANDOM_DEFAULT: usize = 32;

const COMPUTE: &[Method] = &[Method::with_effect(Operation::Update, Effect::Reads, "Compute.")];

const RANDOM_FIELDS: &[Field] = &[
    Field { name: "bytes", kind: FieldKind::Int, summary: "How many; 32 by default." },
    Field { name: "format", kind: FieldKind::String, summary: "base64 (default) or hex." },
    Field {
        name: "source",
        kind: FieldKind::String,
        summary: "platform, the one source; seal and all mean it too.",
    },
];
const HASH_FIELDS: &[Field] = &[
    Field { name: "input", kind: FieldKind::String, summary: "Base64 of what is hashed." },
    Field {
        name: "algorithm",
        kind: FieldKind::String,
        summary: "sha2-224, sha2-256 (default), sha2-384, sha2-512, sha3-224, sha3-256, sha3-384, sha3-512.",
    },
    Field { name: "urlalgorithm", kind: FieldKind::String, summary: "The same, in the path." },
    Field { name: "format", kind: FieldKind::String, summary: "hex (default) or base64." },
];

const fn route(
    id: &'static str,
    pattern: &'static str,
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access: Access::Token, methods: COMPUTE, fields, takes_any_field: false, summary }
}

static ROUTES: &[Route] = &[
    route("random", "tools/random", RANDOM_FIELDS, "Random bytes."),
    route(
        "random",
        "tools/random/{first}",
        RANDOM_FIELDS,
        "Random bytes; the segment is a source or a count.",
    ),
    route("random", "tools/random/{first}/{second}", RANDOM_FIELDS, "Random bytes of a source."),
    route("hash", "tools/hash/{urlalgorithm?}", HASH_FIELDS, "A digest."),
];

/// These paths.
pub(crate) struct ToolPaths {
    table: RouteTable,
}

impl ToolPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for ToolPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        if request.route.id == "random" { random(ctx, request) } else { hash(request) }
    }
}

fn encode(bytes: &[u8], format: &str) -> Result<String, KernelError> {
    match format {
        "hex" => Ok(hex::encode(bytes)),
        "base64" => Ok(STANDARD.encode(bytes)),
        _ => Err(KernelError::invalid(format!(
            "unsupported encoding format {format:?}; must be \"hex\" or \"base64\""
        ))),
    }
}

fn random(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let (first, second) = (request.param("first"), request.param("second"));
    let is_source = |text: &str| matches!(text, "platform" | "seal" | "all");
    if !(first.is_empty() || is_source(first) || (second.is_empty() && first.parse::<usize>().is_ok())) {
        let text = "unsupported entropy source: it must be \"platform\", \"seal\" or \"all\"";
        return Err(KernelError::invalid(text));
    }
    let in_path = if second.is_empty() { first } else { second };
    let wanted = match in_path.parse::<i64>() {
        Ok(count) => count,
        Err(_) if in_path.is_empty() || is_source(in_path) => {
            fields.integer("bytes")?.unwrap_or(i64::try_from(RANDOM_DEFAULT).unwrap_or_default())
        }
        Err(_) => return Err(KernelError::invalid("the number of bytes is not a number")),
    };
    let count = usize::try_from(wanted).ok().filter(|count| (1..=RANDOM_MAX).contains(count));
    let count = count.ok_or_else(|| KernelError::invalid(format!("bytes must be from 1 to {RANDOM_MAX}")))?;
    let mut bytes = Zeroizing::new(vec![0; count]);
    ctx.kernel.entropy.fill(&mut bytes).map_err(EngineError::from)?;
    let format = fields.string("format")?.unwrap_or_else(|| "base64".to_owned());
    let response = Response::data(json!({ "random_bytes": encode(&bytes, &format)? }));
    if first == "seal" {
        return Ok(response
            .with_warning("the seal gives no randomness: these bytes are the platform's")
            .into());
    }
    Ok(response.into())
}

fn hash(request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let input = fields.string("input")?.unwrap_or_default();
    // Tools that write base64 break it into lines.
    let input = Zeroizing::new(input.replace(['\r', '\n'], ""));
    let input = STANDARD.decode(input.as_bytes());
    let input = input.map_err(|_| KernelError::invalid("unable to decode input as base64"))?;
    let in_path = request.param("urlalgorithm");
    let in_field =
        || Ok::<_, KernelError>(fields.string("algorithm")?.unwrap_or_else(|| "sha2-256".to_owned()));
    let algorithm = if in_path.is_empty() { in_field()? } else { in_path.to_owned() };
    let sum = match algorithm.as_str() {
        "sha2-224" => sha2::Sha224::digest(&input).to_vec(),
        "sha2-256" => sha2::Sha256::digest(&input).to_vec(),
        "sha2-384" => sha2::Sha384::digest(&input).to_vec(),
        "sha2-512" => sha2::Sha512::digest(&input).to_vec(),
        "sha3-224" => sha3::Sha3_224::digest(&input).to_vec(),
        "sha3-256" => digest(&SHA3_256, &input).as_ref().to_vec(),
        "sha3-384" => digest(&SHA3_384, &input).as_ref().to_vec(),
        "sha3-512" => digest(&SHA3_512, &input).as_ref().to_vec(),
        other => return Err(KernelError::invalid(format!("unsupported algorithm {other}"))),
    };
    let format = fields.string("format")?.unwrap_or_else(|| "hex".to_owned());
    Ok(Response::data(json!({ "sum": encode(&sum, &format)? })).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tokens::rig::{Rig, text};

    #[tokio::test]
    async fn digests_are_the_known_ones() {
        let rig = Rig::active().await;
        for (algorithm, start) in [
            ("sha2-256", "2cf24dba5fb0a30e26e83b2ac5b9e29e"),
            ("sha3-224", "b87f88c72702fff1748e58b87e9141a4"),
            ("sha3-256", "3338be694f50c5f338814986cdf06864"),
            ("sha3-384", "720aea11019ef06440fbf05d87aa2468"),
            ("sha3-512", "75d527c368f2efe848ecf6b073a36767"),
        ] {
            let path = format!("sys/tools/hash/{algorithm}");
            let answer = rig.post("root", &path, json!({"input": "aGVsbG8="})).await.unwrap();
            assert!(answer.data.unwrap()["sum"].as_str().unwrap().starts_with(start), "{algorithm}");
        }
        for (body, refusal) in [
            (json!({"input": "aGVsbG8=", "algorithm": "sha1"}), "unsupported algorithm sha1"),
            (json!({"input": "aGVsbG8=", "algorithm": ""}), "unsupported algorithm "),
            (
                json!({"input": "aGVsbG8=", "format": "x"}),
                "unsupported encoding format \"x\"; must be \"hex\" or \"base64\"",
            ),
        ] {
            assert_eq!(text(rig.post("root", "sys/tools/hash", body).await), refusal);
        }
        let sum = async |input: &str| {
            let answer = rig.post("root", "sys/tools/hash", json!({"input": input})).await;
            answer.map(|answer| answer.data.unwrap()["sum"].clone()).ok()
        };
        assert_eq!(sum("aGVs\r\nbG8=\n").await, sum("aGVsbG8=").await, "lines as base64 tools write them");
        assert_eq!(sum("aGVs bG8=").await, None);
    }

    #[tokio::test]
    async fn randomness_of_the_seal_is_the_platforms_and_says_so() {
        let rig = Rig::active().await;
        for (path, length, warnings) in
            [("platform/16", 32, 0), ("seal/16", 32, 1), ("seal", 64, 1), ("all", 64, 0)]
        {
            let body = json!({"format": "hex"});
            let answer = rig.post("root", &format!("sys/tools/random/{path}"), body).await.unwrap();
            let data = answer.data.unwrap();
            assert_eq!(data["random_bytes"].as_str().unwrap().len(), length, "{path}");
            assert_eq!(answer.warnings.len(), warnings, "{path}");
        }
        assert!(rig.post("root", "sys/tools/random/nope/16", json!({})).await.is_err());
    }
}
