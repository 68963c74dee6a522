//! `arca lease`: looking leases up, extending and ending them.

use std::time::Duration;

use arca_client::duration;
use arca_client::leases::Revocation;
use clap::{Args, Subcommand};

use super::token::increment_s;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};

/// Manages leases.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca lease renew -increment=1h database/creds/app/LEASE\n  \
arca lease revoke -prefix database/creds/app")]
pub enum Lease {
    /// Show what a lease is
    Lookup(Lookup),
    /// Extend a lease
    Renew(Renew),
    /// End a lease, or all below a prefix
    Revoke(Revoke),
}

/// Shows what a lease is.
#[derive(Args, Debug)]
pub struct Lookup {
    /// Id of the lease.
    id: String,
}

/// Extends a lease.
#[derive(Args, Debug)]
pub struct Renew {
    /// How long to ask for; the server may give less.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    increment: Option<Duration>,
    /// Id of the lease.
    id: String,
}

/// Ends a lease, and takes back what it granted.
#[derive(Args, Debug)]
pub struct Revoke {
    /// The argument is a prefix: end all leases below it.
    #[arg(long)]
    prefix: bool,
    /// Forget the leases even if what they granted cannot be taken back; needs -prefix.
    #[arg(long, requires = "prefix", conflicts_with = "sync")]
    force: bool,
    /// Answer when it is done, not when it is queued.
    #[arg(long)]
    sync: bool,
    /// Id or prefix.
    id: String,
}

impl Lease {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        match self {
            Self::Lookup(Lookup { id }) => {
                let answer =
                    client.sys().lookup_lease(&id).await.doing(|| format!("look the lease {id} up"))?;
                context.secret(&answer)
            }
            Self::Renew(Renew { increment, id }) => {
                let answer = client.sys().renew_lease(&id, increment_s(increment)).await;
                context.secret(&answer.doing(|| format!("extend the lease {id}"))?)
            }
            Self::Revoke(command) => command.run(context, &client).await,
        }
    }
}

impl Revoke {
    async fn run(self, context: &mut Context<'_>, client: &arca_client::Client) -> Outcome {
        let id = self.id.trim_start_matches('/');
        if id.is_empty() {
            return Err(CliError::Usage("an empty prefix would end every lease there is".into()));
        }
        let how = match (self.force, self.sync) {
            (true, _) => Revocation::Forced,
            (false, true) => Revocation::Synchronous,
            (false, false) => Revocation::Queued,
        };
        let ended = if self.prefix {
            client.sys().revoke_leases(id, how).await
        } else {
            client.sys().revoke_lease(id, how).await
        };
        ended.doing(|| format!("end {id}"))?;
        if how == Revocation::Forced {
            context
                .console
                .note("Warning: what these leases granted may still work outside; take it back by hand.");
        }
        let state = if how == Revocation::Queued { "Queued to be ended" } else { "Ended" };
        context.success(&format!("{state}: {id}"))
    }
}
