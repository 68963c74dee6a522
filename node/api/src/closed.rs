//! Paths that take key shares without a token, where a listener does not offer them.

use http::StatusCode;

use crate::render::{self, Rendered};

/// What a listener keeps closed. By default everything, as the field's standards do by now: there is one attempt at a
/// time, and whoever reaches an open path can read its nonce, cancel it or fill it with wrong shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPaths {
    /// `sys/generate-root/*`.
    pub generate_root: bool,
    /// `sys/rekey/{init,update,verify}` and `sys/rekey-recovery-key/*`.
    pub rekey: bool,
}

impl Default for ClosedPaths {
    fn default() -> Self {
        Self { generate_root: true, rekey: true }
    }
}

impl ClosedPaths {
    /// Nothing is closed.
    pub const NONE: Self = Self { generate_root: false, rekey: false };

    /// The answer to a canonical path that is closed.
    pub(crate) fn refuse(self, path: &str) -> Option<Rendered> {
        let is_rekey = matches!(path, "sys/rekey/init" | "sys/rekey/update" | "sys/rekey/verify")
            || path.starts_with("sys/rekey-recovery-key/");
        let (setting, instead) = if self.generate_root && path.starts_with("sys/generate-root/") {
            ("disable_unauthed_generate_root_endpoints", "sys/generate-root-token")
        } else if self.rekey && is_rekey {
            ("disable_unauthed_rekey_endpoints", "sys/rotate/root")
        } else {
            return None;
        };
        let text = format!(
            "unsupported operation: this listener takes no key shares without a token; use {instead} with one, or set \
             {setting} = false in its configuration"
        );
        Some(render::errors(StatusCode::METHOD_NOT_ALLOWED, &[text]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(generate_root: bool, rekey: bool, path: &str, want: bool) {
        let refused = ClosedPaths { generate_root, rekey }.refuse(path);
        assert_eq!(refused.map(|answer| answer.status.as_u16()), want.then_some(405), "{path}");
    }

    #[test]
    fn closed_paths_are_no_operation() {
        for path in ["sys/rekey/init", "sys/rekey/update", "sys/rekey/verify", "sys/rekey-recovery-key/init"]
        {
            check(false, false, path, false);
            check(true, false, path, false);
            check(false, true, path, true);
        }
        for path in ["sys/generate-root/attempt", "sys/generate-root/update"] {
            check(false, false, path, false);
            check(false, true, path, false);
            check(true, false, path, true);
        }
    }

    #[test]
    fn paths_that_need_a_token_stay() {
        for path in
            ["sys/rekey/backup", "sys/rotate/root/init", "sys/generate-root-token/attempt", "sys/unseal"]
        {
            check(true, true, path, false);
        }
    }
}
