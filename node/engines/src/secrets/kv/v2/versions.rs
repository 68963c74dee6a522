//! `delete/`, `undelete/` and `destroy/`: what happens to versions named by number. Numbers that name none are passed
//! over.

use arca_engine_api::{EngineError, Request, Response};

use super::keys::Keys;

fn named(request: &Request) -> Result<Vec<u64>, EngineError> {
    let numbers = request.fields().integers("versions")?.unwrap_or_default();
    if numbers.is_empty() {
        return Err(EngineError::invalid("No version number provided"));
    }
    Ok(numbers.into_iter().filter_map(|number| u64::try_from(number).ok()).collect())
}

pub(super) fn delete(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, numbers, now) = (request.param("path"), named(request)?, keys.now());
    let Some(mut key) = keys.load(path)? else { return Ok(Response::empty()) };
    for number in numbers {
        if let Some(version) = key.versions.get_mut(&number).filter(|version| version.is_live(now)) {
            version.delete(now);
        }
    }
    keys.store(path, &mut key)?;
    Ok(Response::empty())
}

pub(super) fn undelete(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, numbers) = (request.param("path"), named(request)?);
    let Some(mut key) = keys.load(path)? else { return Ok(Response::empty()) };
    for number in numbers {
        if let Some(version) = key.versions.get_mut(&number).filter(|version| !version.is_destroyed) {
            version.undelete();
        }
    }
    keys.store(path, &mut key)?;
    Ok(Response::empty())
}

pub(super) fn destroy(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, mut numbers) = (request.param("path"), named(request)?);
    let Some(mut key) = keys.load(path)? else { return Ok(Response::empty()) };
    numbers.retain(|number| {
        key.versions
            .get_mut(number)
            .is_some_and(|version| !std::mem::replace(&mut version.is_destroyed, true))
    });
    // First the key: storing it may move version 1 to where it is destroyed next.
    keys.store(path, &mut key)?;
    for number in numbers {
        keys.delete_data(path, number)?;
    }
    Ok(Response::empty())
}
