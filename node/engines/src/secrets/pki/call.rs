//! One request with what it needs besides: the mount, and the private keys made ready before.

use arca_engine_api::{Ctx, EngineError, Fields, Page, Request, UnixMillis};

use super::signers::Signers;

/// One request under way.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The mount.
    pub(super) ctx: &'a Ctx<'a>,
    /// What is asked.
    pub(super) request: &'a Request,
    /// Private keys made ready.
    pub(super) signers: &'a Signers,
}

impl<'a> Call<'a> {
    /// The fields of the body.
    pub(super) fn fields(&self) -> Fields<'a> {
        self.request.fields()
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.ctx.clock.now()
    }

    /// A text of the body, empty if it is not there.
    pub(super) fn text(&self, field: &str) -> Result<String, EngineError> {
        Ok(self.fields().string(field)?.unwrap_or_default())
    }

    /// The issuer a request names: in its path, else in its body, else the one given.
    pub(super) fn issuer_ref(&self, otherwise: &str) -> Result<String, EngineError> {
        let in_path = self.request.param("issuer_ref");
        if !in_path.is_empty() {
            return Ok(in_path.to_owned());
        }
        let in_body = self.text("issuer_ref")?;
        Ok(if in_body.is_empty() { otherwise.to_owned() } else { in_body })
    }

    /// Which part of a list is wanted.
    pub(super) fn page(&self) -> Result<Page, EngineError> {
        let after = self.fields().string("after")?.filter(|after| !after.is_empty());
        let limit = self.fields().integer("limit")?.and_then(|limit| usize::try_from(limit).ok());
        Ok(Page { after, limit: limit.filter(|limit| *limit > 0) })
    }
}
