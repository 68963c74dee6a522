//! What a running command holds: the console, the global flags, and the ways to print an answer.

use arca_client::{Client, Config, PlannedRequest, Secret, Token};
use http::HeaderValue;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Format, Global};
use crate::console::Console;
use crate::error::{CliError, Doing, Outcome};
use crate::input;
use crate::output::{json, plan, secret, table, yaml};
use crate::token_file;

/// Everything a command needs besides its own arguments.
pub struct Context<'a> {
    /// The terminal and the environment.
    pub console: &'a mut Console,
    /// The flags that every command takes.
    pub global: Global,
    /// How to print.
    pub format: Format,
}

impl<'a> Context<'a> {
    /// Reads the format out of flags and environment.
    pub fn new(console: &'a mut Console, global: Global) -> Result<Self, CliError> {
        let from_env = arca_client::config::find(&console.env, "FORMAT");
        let format = match (global.format, from_env) {
            (Some(format), _) => format,
            (None, Some((name, text))) => {
                <Format as clap::ValueEnum>::from_str(&text, true).map_err(|_| {
                    CliError::Usage(format!("{name}: {text:?} is not one of table, json, yaml, raw"))
                })?
            }
            (None, None) => Format::Table,
        };
        Ok(Self { console, global, format })
    }

    /// Whether the answer is for programs, so that notes for people stay away.
    pub fn is_for_programs(&self) -> bool {
        self.format != Format::Table || self.global.field.is_some()
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        !self.global.non_interactive
    }

    /// The client that flags, environment and the stored token describe.
    pub fn client(&self) -> Result<Client, CliError> {
        self.config().and_then(|config| Client::new(config).doing(|| "set up the client".to_owned()))
    }

    fn config(&self) -> Result<Config, CliError> {
        let flags = &self.global;
        let lookup = |name: &str| {
            // A flag goes before both variables, so that a broken variable does not stand in its way.
            let flag = match name {
                // The agent's variable is asked for first, so that either flag goes before both.
                "ARCA_AGENT_ADDR" => flags.agent_address.clone().or_else(|| flags.address.clone()),
                "ARCA_NAMESPACE" => flags.namespace.clone(),
                "ARCA_WRAP_TTL" => flags.wrap_ttl.clone(),
                "ARCA_TLS_SERVER_NAME" => flags.tls_server_name.clone(),
                "ARCA_SKIP_VERIFY" => flags.tls_skip_verify.map(|flag| flag.to_string()),
                "ARCA_DISABLE_REDIRECTS" => flags.disable_redirects.map(|flag| flag.to_string()),
                _ => None,
            };
            flag.or_else(|| (self.console.env)(name))
        };
        let mut config = Config::from_lookup(lookup).doing(|| "read the settings".to_owned())?;
        if flags.ca_cert.is_some() || flags.ca_path.is_some() {
            config.tls.ca_pem = None;
            config.tls.ca_cert = flags.ca_cert.clone();
            config.tls.ca_path = flags.ca_path.clone();
        }
        config.tls.client_cert = flags.client_cert.clone().or(config.tls.client_cert);
        config.tls.client_key = flags.client_key.clone().or(config.tls.client_key);
        for header in &flags.header {
            let (name, value) = header
                .split_once('=')
                .ok_or_else(|| CliError::Usage("-header takes key=value".to_owned()))?;
            if name.to_ascii_lowercase().starts_with("x-vault-") {
                let message =
                    format!("-header cannot set {name}: headers of the API itself have flags of their own");
                return Err(CliError::Usage(message));
            }
            config.add_header(name, value).doing(|| "use -header".to_owned())?;
        }
        for factor in &flags.mfa {
            config.add_header("x-vault-mfa", factor).doing(|| "use -mfa".to_owned())?;
        }
        if flags.policy_override {
            config.headers.insert("x-vault-policy-override", HeaderValue::from_static("true"));
        }
        if config.token.is_none() {
            config.token = token_file::load(self.console).map_err(CliError::TokenFile)?;
        }
        config.dry_run = flags.output_curl_string || flags.output_policy;
        Ok(config)
    }

    /// Asks for a secret at the terminal, or takes a line of a pipe.
    pub fn ask_secret(&mut self, prompt: &str, instead: &str) -> Result<Token, CliError> {
        if self.console.is_input_terminal && !self.can_ask() {
            return Err(CliError::Usage(format!(
                "{prompt} is missing, and -non-interactive forbids to ask; {instead}"
            )));
        }
        let line = self.console.ask_secret(prompt);
        let line = line.map_err(|err| CliError::Usage(format!("{prompt} is missing ({err}); {instead}")))?;
        Ok(Token::new(line.trim()))
    }

    /// A key share: the argument, a line of standard input for `-`, or asked for.
    pub fn share(&mut self, given: Option<&str>) -> Result<Token, CliError> {
        match given {
            Some("-") => Ok(Token::new(input::value("-", &mut self.console.stdin)?.trim())),
            Some(key) => Ok(Token::new(key.trim())),
            None => self.ask_secret("Unseal Key", "give it as an argument, or pipe it in"),
        }
    }

    /// Tells a person that it worked. Programs hear it from the exit code.
    pub fn success(&mut self, message: &str) -> Outcome {
        if self.format == Format::Table {
            self.console.say(&format!("Success! {message}"));
        }
        Ok(0)
    }

    /// Prints an answer, or the one field of it that was asked for.
    pub fn secret(&mut self, answer: &Secret) -> Outcome {
        if let Some(name) = self.global.field.clone() {
            let value = secret::find(answer, &name).ok_or(CliError::Field(name))?;
            return self.field(&value);
        }
        if self.format != Format::Table {
            return self.structured(&json::Envelope::from(answer));
        }
        let rows = secret::rows(answer);
        self.warnings(answer);
        if !rows.is_empty() {
            self.console.print(table::pairs(rows).as_bytes());
        }
        Ok(0)
    }

    /// Prints an answer if there is one, and otherwise says `message`.
    pub fn secret_or_success(&mut self, answer: Option<&Secret>, message: &str) -> Outcome {
        let says_something = |answer: &Secret| {
            answer.data.as_ref().is_some_and(|data| !data.is_empty())
                || answer.auth.is_some()
                || answer.wrap_info.as_ref().is_some_and(|info| !info.token.is_empty())
        };
        match answer {
            Some(answer) if says_something(answer) => self.secret(answer),
            Some(answer) if self.format == Format::Table => {
                self.warnings(answer);
                self.success(message)
            }
            Some(answer) => self.secret(answer),
            None => self.success(message),
        }
    }

    /// Tells a person what the server wants noticed.
    pub fn warnings(&mut self, answer: &Secret) {
        for warning in answer.warnings.iter().flatten() {
            self.console.note(&format!("Warning from the server: {warning}"));
        }
    }

    /// Prints names one a line.
    pub fn keys(&mut self, keys: &[String]) -> Outcome {
        if self.format != Format::Table {
            return self.structured(&keys);
        }
        let mut keys = keys.to_vec();
        keys.sort();
        self.table(&["Keys"], keys.into_iter().map(|key| vec![key]))
    }

    /// Prints a table.
    pub fn table(&mut self, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Outcome {
        self.console.print(table::table(headings, rows).as_bytes());
        Ok(0)
    }

    /// Prints a table of keys and values, or `value` for programs.
    pub fn pairs<K: Into<String>>(
        &mut self,
        value: &impl Serialize,
        rows: impl IntoIterator<Item = (K, String)>,
    ) -> Outcome {
        if self.is_for_programs() {
            return self.structured(value);
        }
        self.console.print(table::pairs(rows.into_iter().map(|(key, value)| (key.into(), value))).as_bytes());
        Ok(0)
    }

    /// Prints a value for programs.
    pub fn structured(&mut self, value: &impl Serialize) -> Outcome {
        if let Some(name) = self.global.field.clone() {
            let value = serde_json::to_value(value).unwrap_or_default();
            let found = value.get(&name).cloned().ok_or(CliError::Field(name))?;
            return self.field(&found);
        }
        let text = match self.format {
            Format::Yaml => yaml::text(value),
            // Raw stops here only for `read`, which has a body to show instead.
            Format::Table | Format::Json | Format::Pretty | Format::Raw => json::pretty(value),
        };
        self.console.print(text.as_bytes());
        Ok(0)
    }

    /// Prints a value alone. Piped, it ends without a newline, so that files hold exactly the value.
    pub fn field(&mut self, value: &Value) -> Outcome {
        let text = match self.format {
            Format::Yaml => yaml::text(value),
            Format::Json | Format::Pretty => json::pretty(value),
            Format::Table | Format::Raw => table::plain(value),
        };
        self.console
            .print(text.trim_end_matches(if self.format == Format::Table { '\0' } else { '\n' }).as_bytes());
        if self.console.is_output_terminal {
            self.console.print(b"\n");
        }
        Ok(0)
    }

    /// Prints what would have been sent.
    pub fn planned(&mut self, request: &PlannedRequest) -> Outcome {
        let text = if self.global.output_policy { plan::policy(request) } else { plan::curl(request) };
        self.console.say(&text);
        Ok(0)
    }
}
