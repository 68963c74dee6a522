//! OCSP (RFC 6960): whether certificates of the mount's issuers are revoked, signed by the issuer itself.
//!
//! **Security:** an answer is about exactly the certificates that were asked for: it repeats their ids as they came. A nonce
//! is repeated if it has 1 to 128 bytes (RFC 9654), and a critical extension nobody here knows is refused.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{EngineError, Operation, Response};
use aws_lc_rs::digest;

use super::call::Call;
use super::crl_config::{self, CrlConfig};
use super::issuers::{self, Issuer};
use super::x509::algorithm::Algorithm;
use super::x509::extension::{self, Extension};
use super::x509::{oid, time};
use super::{base64, output, store};
use crate::crypto::der::{self, Reader};

/// Bytes of a request.
const REQUEST_LEN_MAX: usize = 2_048;
/// Certificates asked for in one request.
const QUESTIONS_MAX: usize = 16;
const NONCE_LEN_MAX: usize = 128;

const ENUMERATED: u8 = 0x0a;
const BOOLEAN: u8 = 0x01;
const CONTEXT_2: u8 = 0xa2;
const CONTENT_TYPE: &str = "application/ocsp-response";

/// Why there is no answer, by the number RFC 6960 gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed = 1,
    Unauthorized = 6,
}

/// One certificate asked about.
struct Question<'a> {
    /// `CertID`, as it came.
    id: &'a [u8],
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    hash: &'static digest::Algorithm,
    serial: Vec<u8>,
}

struct Asked<'a> {
    questions: Vec<Question<'a>>,
    nonce: Option<&'a [u8]>,
}

fn algorithm_of(mut reader: Reader<'_>) -> Option<&'static digest::Algorithm> {
    match reader.take(der::OID)? {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last] => match last {
            1 => Some(&digest::SHA256),
            2 => Some(&digest::SHA384),
            3 => Some(&digest::SHA512),
            _ => None,
        },
        _ => None,
    }
}

fn parse(raw: &[u8]) -> Option<Asked<'_>> {
    let mut outer = Reader::new(raw);
    let mut request = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty())?;
    let mut body = request.enter(der::SEQUENCE)?;
    if let Some(mut version) = body.enter(der::EXPLICIT_0) {
        version.unsigned().filter(|version| version.is_empty() || *version == [0])?;
    }
    let _requestor = body.element(der::EXPLICIT_1);
    let mut list = body.enter(der::SEQUENCE)?;
    let mut questions = Vec::new();
    while !list.is_empty() {
        let mut one = list.enter(der::SEQUENCE)?;
        let id = one.element(der::SEQUENCE)?;
        let mut fields = Reader::new(id).enter(der::SEQUENCE)?;
        let hash = algorithm_of(fields.enter(der::SEQUENCE)?)?;
        let (name_hash, key_hash) = (fields.take(der::OCTET_STRING)?, fields.take(der::OCTET_STRING)?);
        let serial = fields.unsigned()?.to_vec();
        if let Some(extensions) = one.enter(der::EXPLICIT_0) {
            check_extensions(extensions)?;
        }
        questions.push(Question { id, name_hash, key_hash, hash, serial });
        (one.is_empty() && questions.len() <= QUESTIONS_MAX).then_some(())?;
    }
    let nonce = match body.enter(CONTEXT_2) {
        Some(extensions) => check_extensions(extensions)?,
        None => None,
    };
    (!questions.is_empty() && body.is_empty()).then_some(Asked { questions, nonce })
}

/// The nonce among the extensions. `None` outside if one is refused.
#[allow(clippy::option_option)] // Refused, absent, there.
fn check_extensions(mut around: Reader<'_>) -> Option<Option<&[u8]>> {
    let mut list = around.enter(der::SEQUENCE)?;
    let mut nonce = None;
    while !list.is_empty() {
        let mut one = list.enter(der::SEQUENCE)?;
        let kind = one.take(der::OID)?;
        let is_critical = one.take(BOOLEAN).is_some_and(|value| value != [0]);
        let value = one.take(der::OCTET_STRING)?;
        if kind == oid::OCSP_NONCE {
            // The value is a string within the string.
            let inner = Reader::new(value).take(der::OCTET_STRING)?;
            (!inner.is_empty() && inner.len() <= NONCE_LEN_MAX && nonce.is_none()).then_some(())?;
            nonce = Some(value);
        } else if is_critical {
            return None;
        }
    }
    Some(nonce)
}

/// `ocsp` by POST, `ocsp/:request` by GET.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let config = crl_config::of(call.ctx)?;
    let answered = if config.ocsp_disable { Err(Refusal::Unauthorized) } else { answer(call, &config)? };
    Ok(match answered {
        Ok(body) => output::raw(200, CONTENT_TYPE, body),
        Err(refusal) => {
            let status = if refusal == Refusal::Malformed { 400 } else { 401 };
            let body = der::write(der::SEQUENCE, &[&der::write(ENUMERATED, &[&[refusal as u8]])]);
            output::raw(status, CONTENT_TYPE, body.to_vec())
        }
    })
}

/// Base64 out of a path, where some escape what RFC 6960 wants escaped, and others write that of URLs.
fn unescaped(text: &str) -> String {
    let mut out = text.replace('-', "+").replace('_', "/");
    for (escaped, letter) in
        [("%2F", "/"), ("%2f", "/"), ("%2B", "+"), ("%2b", "+"), ("%3D", "="), ("%3d", "=")]
    {
        out = out.replace(escaped, letter);
    }
    out
}

fn answer(call: &Call<'_>, config: &CrlConfig) -> Result<Result<Vec<u8>, Refusal>, EngineError> {
    let text = if call.request.operation == Operation::Read {
        unescaped(call.request.param("request"))
    } else {
        call.text("ocsp_request")?
    };
    let raw = if text.len() > REQUEST_LEN_MAX * 2 { None } else { base64::decode(text.trim()) };
    let raw = raw.filter(|raw| raw.len() <= REQUEST_LEN_MAX);
    let Some(asked) = raw.as_deref().and_then(parse) else { return Ok(Err(Refusal::Malformed)) };
    let all = issuers::all(call.ctx)?;
    let may_sign = |issuer: &&Arc<Issuer>| issuer.may(issuers::SIGN_OCSP) && !issuer.record.key_id.is_empty();
    let Some(first) = asked.questions.first() else { return Ok(Err(Refusal::Malformed)) };
    let about: Vec<&Arc<Issuer>> = all.iter().filter(|issuer| is_about(first, issuer)).collect();
    let responder = if about.is_empty() {
        // Nobody here issued it: the default issuer says so.
        issuers::resolve(call.ctx, issuers::DEFAULT)?.filter(|issuer| may_sign(&issuer))
    } else {
        about.into_iter().find(may_sign).cloned()
    };
    let Some(responder) = responder else { return Ok(Err(Refusal::Unauthorized)) };
    let signer = issuers::signer(call, &responder)?;
    let algorithm = responder.revocation_algorithm();
    let body = response_data(call, config, &asked, &responder)?;
    let signature = signer.sign(algorithm, &body, call.ctx.entropy)?;
    Ok(Ok(wrapped(&body, algorithm, &signature, &responder)))
}

fn is_about(question: &Question<'_>, issuer: &Issuer) -> bool {
    issuer.ocsp_ids.iter().any(|id| {
        id.function == question.hash && id.name == question.name_hash && id.key == question.key_hash
    })
}

/// `ResponseData`.
fn response_data(
    call: &Call<'_>,
    config: &CrlConfig,
    asked: &Asked<'_>,
    responder: &Issuer,
) -> Result<Vec<u8>, EngineError> {
    let mut answers = Vec::new();
    for question in &asked.questions {
        answers.push(single(call, config, question, responder)?);
    }
    let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
    let [by_sha1, ..] = &responder.ocsp_ids;
    let by_key = der::write(CONTEXT_2, &[&der::write(der::OCTET_STRING, &[&by_sha1.key])]);
    let nonce = asked.nonce.map(|nonce| {
        let extension =
            Extension { oid: oid::OCSP_NONCE.to_vec(), is_critical: false, value: nonce.to_vec() };
        der::write(der::EXPLICIT_1, &[&extension::encode(&[extension])])
    });
    Ok(der::write(
        der::SEQUENCE,
        &[
            &by_key,
            &time::generalized(call.now()),
            &der::write(der::SEQUENCE, &answers),
            nonce.as_ref().map_or(&[][..], |nonce| nonce.as_slice()),
        ],
    )
    .to_vec())
}

/// `SingleResponse`: good, revoked, or unknown if another issued it.
fn single(
    call: &Call<'_>,
    config: &CrlConfig,
    question: &Question<'_>,
    responder: &Issuer,
) -> Result<Vec<u8>, EngineError> {
    let revoked = store::revocation(call.ctx, &responder.set, &question.serial)?.map(|found| found.at);
    let status = if !is_about(question, responder) {
        der::write(0x82, &[]).to_vec()
    } else if let Some(at) = revoked {
        der::write(der::EXPLICIT_1, &[&time::generalized(at)]).to_vec()
    } else {
        der::write(0x80, &[]).to_vec()
    };
    let next = (config.ocsp_expiry.as_secs() > 0).then(|| {
        let until = call.now().after(Duration::from_secs(config.ocsp_expiry.as_secs()));
        der::write(der::EXPLICIT_0, &[&time::generalized(until)])
    });
    Ok(der::write(
        der::SEQUENCE,
        &[
            question.id,
            &status,
            &time::generalized(call.now()),
            next.as_ref().map_or(&[][..], |next| next.as_slice()),
        ],
    )
    .to_vec())
}

/// `OCSPResponse`, with the responder's certificate.
fn wrapped(body: &[u8], algorithm: Algorithm, signature: &[u8], responder: &Issuer) -> Vec<u8> {
    let certificates =
        der::write(der::EXPLICIT_0, &[&der::write(der::SEQUENCE, &[&responder.record.certificate])]);
    let basic =
        der::write(der::SEQUENCE, &[body, &algorithm.encode(), &der::write_bits(signature), &certificates]);
    let bytes = der::write(
        der::SEQUENCE,
        &[&der::write(der::OID, &[oid::OCSP_BASIC]), &der::write(der::OCTET_STRING, &[&basic])],
    );
    der::write(der::SEQUENCE, &[&der::write(ENUMERATED, &[&[0]]), &der::write(der::EXPLICIT_0, &[&bytes])])
        .to_vec()
}
