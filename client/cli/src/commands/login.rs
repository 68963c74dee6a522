//! `arca login`: proves who you are to an auth method and keeps the token it gives.

use arca_client::{Auth, Client, Request, Secret, Token};
use clap::Args;
use serde_json::{Map, Value};

use super::mfa;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::{input, token_file};

/// Logs in and keeps the token in ~/.vault-token, which Vault's own CLI shares.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
arca login                                   asks for a token\n  \
arca login -method=userpass username=bob     asks for the password\n  \
arca login -method=approle role_id=… secret_id=@secret-id")]
pub struct Login {
    /// How to log in: token, userpass, ldap, approle, jwt, kubernetes, cert, or any other method.
    #[arg(long, value_name = "METHOD", default_value = "token")]
    method: String,
    /// Where the method is mounted; its name if not given.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Do not keep the token.
    #[arg(long)]
    no_store: bool,
    /// Print nothing.
    #[arg(long)]
    no_print: bool,
    /// Print the token alone; implies -no-store.
    #[arg(long)]
    token_only: bool,
    /// A token (- for standard input), or the method's parameters as key=value.
    #[arg(value_name = "TOKEN | KEY=VALUE")]
    arguments: Vec<String>,
}

/// Methods whose login path ends in the user's name and whose password is asked for.
const PASSWORD_METHODS: [&str; 4] = ["userpass", "ldap", "radius", "okta"];

impl Login {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        // The token that is being replaced does not matter.
        let client = context.client()?;
        let mut answer = match self.method.as_str() {
            "token" => self.by_token(context, &client).await?,
            _ => self.by_method(context, &client.with_token(None)).await?,
        };
        if let Some(info) = answer.wrap_info.as_ref().filter(|info| !info.token.is_empty()) {
            if self.token_only {
                // The flag asks for it, as in `finish`.
                context.console.print(info.token.expose().as_bytes());
                return Ok(0);
            }
            if self.no_store {
                return context.secret(&answer);
            }
            let opened = client.with_token(None).sys().unwrap(Some(&info.token)).await;
            answer = opened.doing(|| "unwrap the login".to_owned())?.unwrap_or_default();
        }
        let answer = mfa::pass(context, &client.with_token(None).with_wrap_ttl(None), answer).await?;
        self.finish(context, answer)
    }

    /// Checks a token by looking it up, unless `lookup=false` says that it is not worth asking.
    async fn by_token(&self, context: &mut Context<'_>, client: &Client) -> Result<Secret, CliError> {
        let (mut given, mut looks_up) = (None, true);
        for argument in &self.arguments {
            let is_first = match argument.split_once('=') {
                Some(("lookup", value)) => {
                    looks_up = value != "false";
                    true
                }
                Some(("token", token)) => given.replace(token).is_none(),
                _ => given.replace(argument.as_str()).is_none(),
            };
            if !is_first {
                return Err(CliError::Usage("-method=token takes one token and nothing else".into()));
            }
        }
        let token = match given {
            None => context.ask_secret("Token", "give it as an argument, or pipe it in")?,
            Some("-") => Token::new(input::value("-", &mut context.console.stdin)?.trim()),
            Some(token) => Token::new(token),
        };
        if !looks_up {
            let auth = Auth { client_token: token, ..Auth::default() };
            return Ok(Secret { auth: Some(auth), ..Secret::default() });
        }
        let client = client.with_token(Some(token.clone())).with_wrap_ttl(None);
        let found = client.tokens().lookup_self().await.doing(|| "log in".to_owned())?;
        Ok(Secret { auth: Some(auth_of(&found, token)), warnings: found.warnings, ..Secret::default() })
    }

    /// Sends the method what it asks for.
    async fn by_method(&self, context: &mut Context<'_>, client: &Client) -> Result<Secret, CliError> {
        let mut data = input::parse(&self.arguments, &mut context.console.stdin)?;
        let mount = match data.remove("mount") {
            Some(Value::String(mount)) => mount,
            _ => self.path.clone().unwrap_or_else(|| self.method.clone()),
        };
        let mount = mount.trim_matches('/').to_owned();
        let mount = mount.strip_prefix("auth/").unwrap_or(&mount);
        let mut path = format!("auth/{mount}/login");
        if PASSWORD_METHODS.contains(&self.method.as_str()) {
            let name = match data.remove("username") {
                Some(Value::String(name)) => Some(name),
                _ => self.user_of_system(context),
            };
            let needed = || CliError::Usage(format!("-method={} needs username=NAME", self.method));
            path = format!("{path}/{}", name.ok_or_else(needed)?);
            if !data.contains_key("password") {
                let password = match arca_client::config::find(&context.console.env, "LDAP_PASSWORD") {
                    Some((_, password)) if self.method == "ldap" => Token::new(password),
                    _ => context.ask_secret("Password", "give it as password=@file or password=-")?,
                };
                // The request carries it.
                data.insert("password".into(), password.expose().into());
            }
        }
        let request = Request::put(path).json(&data).doing(|| "send data".into())?;
        client.send_secret(request).await.doing(|| format!("log in by {}", self.method))
    }

    /// The name of whoever runs the command, where the method knows people by the names they have on machines.
    fn user_of_system(&self, context: &Context<'_>) -> Option<String> {
        let names = ["LOGNAME", "USER"].into_iter().filter(|_| self.method == "ldap");
        names.filter_map(|name| (context.console.env)(name)).find(|name| !name.is_empty())
    }

    fn finish(self, context: &mut Context<'_>, answer: Secret) -> Outcome {
        let Some(auth) = answer.auth.as_ref().filter(|auth| !auth.client_token.is_empty()) else {
            return context.secret(&answer);
        };
        if self.token_only {
            // Printing it alone is what the flag asks for.
            context.console.print(auth.client_token.expose().as_bytes());
            return Ok(0);
        }
        let is_quiet = self.no_print || context.is_for_programs();
        if let Some((name, _)) =
            arca_client::config::find(&context.console.env, "TOKEN").filter(|_| !is_quiet)
        {
            context
                .console
                .note(&format!("Warning: {name} is set and goes before the stored token; unset it.\n"));
        }
        if !self.no_store {
            token_file::store(context.console, &auth.client_token).map_err(CliError::TokenFile)?;
        }
        if self.no_print {
            return Ok(0);
        }
        if !is_quiet && context.format == Format::Table {
            let kept =
                if self.no_store { "The token is not kept:" } else { "The token is kept in ~/.vault-token:" };
            context.console.say(&format!("Success! You are logged in. {kept}\n"));
        }
        context.secret(&answer)
    }
}

/// What a lookup tells, in the form of a login's answer.
fn auth_of(found: &Secret, token: Token) -> Auth {
    let text = |name: &str| found.field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |name: &str| found.field(name).and_then(Value::as_bool).unwrap_or_default();
    let list = |name: &str| {
        let list = found.field(name).and_then(Value::as_array)?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let (token_policies, identity_policies) = (list("policies"), list("identity_policies"));
    let mut policies = token_policies.clone().unwrap_or_default();
    policies.extend(identity_policies.clone().unwrap_or_default());
    policies.sort();
    policies.dedup();
    let metadata = found.field("meta").and_then(Value::as_object).map(|meta: &Map<String, Value>| {
        let entries = meta.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        entries.collect()
    });
    Auth {
        client_token: token,
        accessor: text("accessor"),
        policies: Some(policies),
        token_policies,
        identity_policies,
        metadata,
        orphan: flag("orphan"),
        entity_id: text("entity_id"),
        lease_duration: found.field("ttl").and_then(Value::as_u64).unwrap_or_default(),
        renewable: flag("renewable"),
        token_type: text("type"),
        ..Auth::default()
    }
}
