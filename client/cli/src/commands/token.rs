//! `arca token`: making, looking up, extending and ending tokens.

use std::time::Duration;

use arca_client::token::NewToken;
use arca_client::{Token, duration};
use clap::{Args, Subcommand, ValueEnum};

use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;

/// Manages tokens.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arca token create -policy=app -ttl=1h\n  arca token lookup\n  \
arca token revoke -accessor ACCESSOR")]
pub enum TokenCommand {
    /// Make a token
    Create(Box<Create>),
    /// Show what a token is
    Lookup(Lookup),
    /// Extend a token
    Renew(Renew),
    /// End a token
    Revoke(Revoke),
    /// Show what a token may do on a path
    Capabilities(Capabilities),
}

impl TokenCommand {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Lookup(command) => command.run(context).await,
            Self::Renew(command) => command.run(context).await,
            Self::Revoke(command) => command.run(context).await,
            Self::Capabilities(command) => command.run(context).await,
        }
    }
}

/// Makes a token, by default a child of the one in use with the same policies.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca token create -policy=app -ttl=1h -metadata=service=web")]
pub struct Create {
    /// Id of the new token, chosen by you; needs sudo.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Policy; may be given several times.
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// How long it lives, such as 1h.
    #[arg(long, value_name = "TTL", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// A bound that no renewal moves.
    #[arg(long, value_name = "TTL", value_parser = duration::parse)]
    explicit_max_ttl: Option<Duration>,
    /// Renewals reset its life to this, for ever; needs sudo.
    #[arg(long, value_name = "TTL", value_parser = duration::parse)]
    period: Option<Duration>,
    /// Requests it is good for; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    use_limit: u64,
    /// Whether it can be renewed.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    renewable: bool,
    /// Without a parent, so that it survives the one in use; needs sudo.
    #[arg(long)]
    orphan: bool,
    /// Without the policy default.
    #[arg(long)]
    no_default_policy: bool,
    /// Name for humans and audit logs.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Metadata; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// service or batch.
    #[arg(long = "type", value_name = "TYPE", default_value = "service")]
    kind: String,
    /// Token role to make it by.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Entity alias to log in as; only with -role.
    #[arg(long, value_name = "ALIAS")]
    entity_alias: Option<String>,
}

/// A TTL as the server reads it; none is `0s`, which is the server's default.
fn ttl(given: Option<Duration>) -> String {
    duration::format(given.unwrap_or_default())
}

impl Create {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let new = NewToken {
            id: self.id.map(Token::new),
            policies: self.policy,
            meta: input::pairs("-metadata", &self.metadata)?,
            ttl: ttl(self.ttl),
            explicit_max_ttl: ttl(self.explicit_max_ttl),
            period: ttl(self.period),
            no_parent: self.orphan,
            no_default_policy: self.no_default_policy,
            display_name: self.display_name.unwrap_or_default(),
            num_uses: self.use_limit,
            renewable: self.renewable,
            kind: self.kind,
            entity_alias: self.entity_alias.unwrap_or_default(),
        };
        let answer = context.client()?.tokens().create(self.role.as_deref(), &new).await;
        context.secret(&answer.doing(|| "make the token".to_owned())?)
    }
}

/// Shows what a token is; without an argument, the one in use.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca token lookup -accessor 9793c9b3-e04a-46f3-e7b8-748d7da248da")]
pub struct Lookup {
    /// The argument is an accessor.
    #[arg(long)]
    accessor: bool,
    /// Token or accessor.
    token: Option<String>,
}

impl Lookup {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let answer = match (self.token, self.accessor) {
            (None, true) => return Err(CliError::Usage("-accessor needs an accessor".into())),
            (None, false) => client.tokens().lookup_self().await,
            (Some(accessor), true) => client.tokens().lookup_accessor(&accessor).await,
            (Some(token), false) => client.tokens().lookup(&Token::new(token)).await,
        };
        context.secret(&answer.doing(|| "look the token up".to_owned())?)
    }
}

/// Extends a token; without an argument, the one in use.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca token renew -increment=30m")]
pub struct Renew {
    /// The argument is an accessor.
    #[arg(long)]
    accessor: bool,
    /// How long to ask for; the server may give less.
    #[arg(long, short, value_name = "DURATION", value_parser = duration::parse)]
    increment: Option<Duration>,
    /// Token or accessor.
    token: Option<String>,
}

impl Renew {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let increment_s = increment_s(self.increment);
        let client = context.client()?;
        let answer = match (self.token, self.accessor) {
            (None, true) => return Err(CliError::Usage("-accessor needs an accessor".into())),
            (None, false) => client.tokens().renew_self(increment_s).await,
            (Some(accessor), true) => client.tokens().renew_accessor(&accessor, increment_s).await,
            (Some(token), false) => client.tokens().renew(&Token::new(token), increment_s).await,
        };
        context.secret(&answer.doing(|| "extend the token".to_owned())?)
    }
}

/// Seconds of an increment; none is 0, the server's default.
pub(super) fn increment_s(increment: Option<Duration>) -> u64 {
    increment.map_or(0, |increment| increment.as_secs())
}

/// Ends a token and all that it made.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca token revoke -accessor 9793c9b3-e04a-46f3-e7b8-748d7da248da")]
pub struct Revoke {
    /// The argument is an accessor.
    #[arg(long)]
    accessor: bool,
    /// End the token in use.
    #[arg(long = "self")]
    own: bool,
    /// orphan spares what the token made; path ends all tokens made below a path.
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// Token, accessor or path.
    token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Orphan,
    Path,
}

impl Revoke {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        use arca_client::leases::Revocation;
        let usage = |message: &str| Err(CliError::Usage(message.to_owned()));
        let client = context.client()?;
        let tokens = client.tokens();
        let ended = match (self.token, self.own, self.accessor, self.mode) {
            (None, true, false, None) => tokens.revoke_self().await,
            (_, true, _, _) => return usage("-self stands alone: no token, -accessor or -mode goes with it"),
            (None, ..) => return usage("say which token to end, or -self"),
            (Some(_), _, true, Some(_)) => return usage("-accessor and -mode do not go together"),
            (Some(accessor), _, true, None) => tokens.revoke_accessor(&accessor).await,
            (Some(token), _, _, None) => tokens.revoke(&Token::new(token)).await,
            (Some(token), _, _, Some(Mode::Orphan)) => tokens.revoke_orphan(&Token::new(token)).await,
            (Some(path), _, _, Some(Mode::Path)) => {
                client.sys().revoke_leases(&path, Revocation::Queued).await
            }
        };
        ended.doing(|| "end the token".to_owned())?;
        context.success("The token is ended, if it was there.")
    }
}

/// Shows what a token may do on a path; with one argument, the token in use.
#[derive(Args, Debug)]
#[command(after_help = "Example: arca token capabilities secret/data/app")]
pub struct Capabilities {
    /// The first argument is an accessor.
    #[arg(long)]
    accessor: bool,
    /// `[TOKEN] PATH`.
    #[arg(required = true, num_args = 1..=2, value_names = ["TOKEN", "PATH"])]
    arguments: Vec<String>,
}

impl Capabilities {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = context.client()?;
        let sys = client.sys();
        let found = match self.arguments.as_slice() {
            [accessor, path] if self.accessor => sys.capabilities_by_accessor(accessor, path).await,
            [token, path] => sys.capabilities(Some(&Token::new(token.as_str())), path).await,
            [path] if !self.accessor => sys.capabilities(None, path).await,
            _ => return Err(CliError::Usage("-accessor needs an accessor and a path".into())),
        };
        let found = found.doing(|| "ask for capabilities".to_owned())?;
        if context.format != Format::Table {
            return context.structured(&found);
        }
        context.console.say(&found.join(", "));
        Ok(0)
    }
}
