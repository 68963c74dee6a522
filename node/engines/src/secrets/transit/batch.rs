//! Requests about one thing or many. Many come as `batch_input`, a list of what one request would say; their answers come
//! in the same order, each with its own error.

use arca_engine_api::{EngineError, Fields, Map, Request, Response};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::kind::{Kind, Modulus};
use super::text;

/// Most items of a request.
pub(super) const ITEMS_MAX: usize = 100_000;

/// Most items of a request by a key of that kind. One that signs, verifies, or uses RSA takes as long as hundreds of
/// others, a long RSA key as many of those: no request takes more than some ten seconds of a processor.
fn items_max(kind: Kind) -> usize {
    match kind {
        Kind::Aead(_) | Kind::Hmac => ITEMS_MAX,
        Kind::Ec(_) | Kind::Ed25519 | Kind::Rsa(Modulus::B2048) => 10_000,
        Kind::Rsa(Modulus::B3072) => 4_000,
        Kind::Rsa(Modulus::B4096) => 2_000,
    }
}

/// What a request asks, one or many times.
pub(super) struct Batch<'a> {
    /// The items; the request itself if it is one.
    pub(super) items: Vec<&'a Map>,
    /// Whether they came as a list.
    pub(super) is_list: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn of(request: &'a Request) -> Result<Self, EngineError> {
        let Some(listed) = request.fields().raw("batch_input") else {
            return Ok(Self { items: vec![&request.data], is_list: false });
        };
        let listed = listed.as_array().ok_or_else(|| unparsed("source data must be an array or slice"))?;
        if listed.is_empty() {
            return Err(EngineError::invalid("missing batch input to process"));
        }
        let item = |(at, item): (usize, &'a Value)| {
            item.as_object().ok_or_else(|| unparsed(&format!("[{at}] expected a map")))
        };
        let batch =
            Self { items: listed.iter().enumerate().map(item).collect::<Result<_, _>>()?, is_list: true };
        batch.limit(ITEMS_MAX)?;
        Ok(batch)
    }

    /// Refuses more items than a key of that kind takes.
    pub(super) fn limit_for(&self, kind: Kind) -> Result<(), EngineError> {
        self.limit(items_max(kind))
    }

    /// Refuses more than `max` items.
    fn limit(&self, max: usize) -> Result<(), EngineError> {
        if self.items.len() <= max {
            return Ok(());
        }
        Err(EngineError::Invalid(format!(
            "batch_input has {} items, at most {max} are taken",
            self.items.len()
        )))
    }

    /// Reads every item; what is wrong with one is wrong with the request.
    pub(super) fn read<T>(
        &self,
        read: impl Fn(Fields<'a>) -> Result<T, EngineError>,
    ) -> Result<Vec<T>, EngineError> {
        let read = |(at, item): (usize, &&'a Map)| {
            read(Fields::new(item)).map_err(|err| match err {
                EngineError::Invalid(why) if self.is_list => unparsed(&format!("'[{at}]' {why}")),
                other => other,
            })
        };
        self.items.iter().enumerate().map(read).collect()
    }

    /// What the items were called, for their answers.
    pub(super) fn references(&self) -> impl Iterator<Item = String> {
        self.items.iter().map(|item| Fields::new(item).string("reference").ok().flatten().unwrap_or_default())
    }
}

fn unparsed(why: &str) -> EngineError {
    EngineError::Invalid(format!("failed to parse batch input: {why}"))
}

/// An error as an item shows it; one that is no fault of the item's fails the request.
pub(super) fn item_error(err: EngineError) -> Result<String, EngineError> {
    match err {
        EngineError::Invalid(why) => Ok(why),
        other => Err(other),
    }
}

/// What came of an item: its part of the answer, or why there is none.
pub(super) type Done = Result<Map, String>;

/// Does `one` for every item, as far as each goes.
pub(super) fn each<T, R>(
    items: &[T],
    mut one: impl FnMut(usize, &T) -> Result<R, EngineError>,
) -> Result<Vec<Result<R, String>>, EngineError> {
    items
        .iter()
        .enumerate()
        .map(|(at, item)| match one(at, item) {
            Ok(done) => Ok(Ok(done)),
            Err(err) => item_error(err).map(Err),
        })
        .collect()
}

/// The answer: of the one item, or of all of them as `batch_results`. An item that failed shows `blank` besides its
/// error.
pub(super) fn answer(batch: &Batch<'_>, done: Vec<Done>, blank: &Map) -> Result<Response, EngineError> {
    if !batch.is_list {
        let only = done.into_iter().next().unwrap_or_else(|| Ok(Map::new()));
        return only.map(|data| Response::data(Value::Object(data))).map_err(EngineError::Invalid);
    }
    let shown = done.into_iter().zip(batch.references()).map(|(done, reference)| {
        let mut shown = done.unwrap_or_else(|why| {
            let mut failed = blank.clone();
            failed.insert("error".to_owned(), Value::String(why));
            failed
        });
        shown.insert("reference".to_owned(), Value::String(reference));
        Value::Object(shown)
    });
    Ok(Response::data(json!({ "batch_results": shown.collect::<Vec<_>>() })))
}

/// The same, but with a status of its own if an item failed: 400, or what the caller would rather have when others went
/// well.
pub(super) fn answer_with_status(
    request: &Request,
    batch: &Batch<'_>,
    done: Vec<Done>,
    blank: &Map,
) -> Result<Response, EngineError> {
    let (failed, went_well) = (done.iter().any(Result::is_err), done.iter().any(Result::is_ok));
    let response = answer(batch, done, blank)?;
    if !failed {
        return Ok(response);
    }
    let wished = status_wished(request)?.filter(|_| went_well);
    let valid = wished.and_then(|code| u16::try_from(code).ok()).filter(|code| (200..=599).contains(code));
    let response = Response { status: Some(valid.unwrap_or(400)), ..response };
    Ok(match (wished, valid) {
        (Some(_), None) => response.with_warning(
            "invalid HTTP response code override from partial_failure_response_code, reverting to 400",
        ),
        _ => response,
    })
}

/// A field of text that means bytes. A boolean is none: the letters of `true` would pass for base64.
pub(super) fn string(fields: Fields<'_>, name: &str) -> Result<Option<String>, EngineError> {
    match fields.raw(name) {
        Some(Value::Bool(_)) => Err(no_string(name)),
        _ => fields.string(name),
    }
}

/// Refuses a field that is there and no string: digits would pass for base64 as well.
pub(super) fn check_string(fields: Fields<'_>, name: &str) -> Result<(), EngineError> {
    match fields.raw(name) {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(_) => Err(no_string(name)),
    }
}

fn no_string(name: &str) -> EngineError {
    EngineError::Invalid(format!(
        "field validation failed: error converting input for field {name:?}: expected a string"
    ))
}

/// A field of base64; empty when absent.
pub(super) fn bytes(fields: Fields<'_>, name: &str) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    text::decode(&string(fields, name)?.unwrap_or_default())
}

/// Context of a request about one key, with an error that names it.
pub(super) fn context(fields: Fields<'_>) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    bytes(fields, "context").map_err(|_| EngineError::invalid("failed to base64-decode context"))
}

/// The status a caller would rather have than 400 if only some items fail.
pub(super) fn status_wished(request: &Request) -> Result<Option<i64>, EngineError> {
    request.fields().integer("partial_failure_response_code")
}

/// An object of these pairs.
pub(super) fn map<const N: usize>(pairs: [(&str, Value); N]) -> Map {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
