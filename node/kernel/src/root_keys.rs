//! What the kernel needs from the node to make a root token, a DR operation token, or new key shares, out of a quorum of key shares. The
//! node implements, the kernel calls: the node has the root key, the kernel has routes, policies and audit.
//!
//! An attempt lives in the memory of the active node and ends with its leadership. **Never** in here: a share, a
//! one-time password or a token in a type that can be printed.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::KernelError;

/// One share, brought to an attempt.
pub struct Offered {
    /// Hexadecimal or base64.
    pub share: Zeroizing<String>,
    /// Names the attempt it is for. No secret: anybody may ask for it.
    pub nonce: String,
}

impl Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

/// What a quorum of key shares is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A token for what only a DR secondary does: [`crate::Kernel::make_operation_token`].
    OperationToken,
    /// A root token: [`crate::Kernel::make_root_token`].
    RootToken,
}

impl Purpose {
    /// As logs call what is made.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OperationToken => "a DR operation token",
            Self::RootToken => "a root token",
        }
    }
}

/// How far the making of a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Of the attempt under way; `None` when there is none.
    pub nonce: Option<String>,
    /// Shares given.
    pub progress: u8,
    /// Shares needed.
    pub required: u8,
}

/// What a share did for the making of a token.
pub struct GenerationStep {
    /// Shares given.
    pub progress: u8,
    /// Shares needed.
    pub required: u8,
    /// The token under its one-time pad, base64 without padding, once complete.
    pub encoded_token: Option<Zeroizing<String>>,
}

impl Debug for GenerationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationStep")
            .field("progress", &self.progress)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// The shares that shall replace the ones there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyPlan {
    /// How many.
    pub shares: u8,
    /// How many of them are needed.
    pub threshold: u8,
    /// Whether enough of the new ones must be given back before they take over.
    pub is_verified: bool,
}

/// How far the replacing of shares is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// Shares of today needed.
    pub required: u8,
    /// The attempt under way.
    pub attempt: Option<RekeyAttempt>,
}

/// An attempt to replace the shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyAttempt {
    /// Names it.
    pub nonce: String,
    /// What is wanted.
    pub plan: RekeyPlan,
    /// Shares of today given.
    pub progress: u8,
    /// Names the verification, once new shares were handed out for it.
    pub verification_nonce: Option<String>,
}

/// New shares. Shown once.
pub struct NewShares {
    /// Their bytes.
    pub shares: Vec<Zeroizing<Vec<u8>>>,
    /// Names the verification they wait for; `None` when they have taken over.
    pub verification_nonce: Option<String>,
}

impl Debug for NewShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewShares({}, redacted)", self.shares.len())
    }
}

/// How far the verification of new shares is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Names it; empty before the new shares were handed out.
    pub nonce: String,
    /// Whether it has begun.
    pub is_started: bool,
    /// What is to take over.
    pub plan: RekeyPlan,
    /// New shares given back.
    pub progress: u8,
}

/// Root tokens and key shares, on the active node. On any other every call is refused with
/// [`KernelError::NeedsActive`].
#[async_trait]
pub trait RootKeys: Debug + Send + Sync {
    /// How far the making of such a token is. There is one attempt at a time, whatever it is for; one for something else
    /// counts as none.
    async fn generation(&self, purpose: Purpose) -> Result<Generation, KernelError>;

    /// Begins one. `otp` must be as long as the token.
    async fn begin_generation(
        &self,
        purpose: Purpose,
        otp: Zeroizing<String>,
    ) -> Result<Generation, KernelError>;

    /// Ends it, if there is one.
    async fn cancel_generation(&self, purpose: Purpose) -> Result<(), KernelError>;

    /// Takes a share; the one that completes a right set makes the token.
    async fn offer_for_generation(
        &self,
        purpose: Purpose,
        offered: Offered,
    ) -> Result<GenerationStep, KernelError>;

    /// How far the replacing of shares is.
    async fn rekey(&self) -> Result<Rekey, KernelError>;

    /// Begins one.
    async fn begin_rekey(&self, plan: RekeyPlan) -> Result<Rekey, KernelError>;

    /// Ends it, if there is one; the shares of today stay.
    async fn cancel_rekey(&self) -> Result<(), KernelError>;

    /// Takes a share of today; the one that completes a right set gives the new ones.
    async fn offer_for_rekey(&self, offered: Offered) -> Result<Option<NewShares>, KernelError>;

    /// How far the verification of new shares is.
    async fn verification(&self) -> Result<Verification, KernelError>;

    /// Forgets the new shares given back so far.
    async fn restart_verification(&self) -> Result<Verification, KernelError>;

    /// Takes a new share; true once a right set was complete and has taken over.
    async fn offer_for_verification(&self, offered: Offered) -> Result<bool, KernelError>;
}
