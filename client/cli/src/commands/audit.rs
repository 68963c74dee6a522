//! `arca audit`: devices that record every request. (Checking a record is the server program's own command.)

use arca_client::sys::AuditDevice;
use clap::{Args, Subcommand};

use crate::args::Format;
use crate::context::Context;
use crate::error::{CliError, Doing, Outcome};
use crate::input;

/// Manages audit devices.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  arca audit enable file file_path=/var/log/arca/audit.log\n  arca audit list -detailed"
)]
pub enum Audit {
    /// List audit devices
    List(List),
    /// Enable an audit device
    Enable(Enable),
    /// Disable an audit device
    Disable(Disable),
}

/// Lists audit devices.
#[derive(Args, Debug)]
pub struct List {
    /// Show their settings, too.
    #[arg(long)]
    detailed: bool,
}

/// Enables an audit device.
#[derive(Args, Debug)]
#[command(after_help = "Once a device is enabled, no request is served that none can record.\n\n\
Example: arca audit enable -path=main file file_path=/var/log/arca/audit.log")]
pub struct Enable {
    /// Where it is mounted; its type if not given.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// For humans.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Keep it out of replication.
    #[arg(long)]
    local: bool,
    /// file, syslog or socket.
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Settings, as key=value.
    #[arg(value_name = "KEY=VALUE")]
    options: Vec<String>,
}

/// Disables an audit device.
#[derive(Args, Debug)]
#[command(after_help = "The records of the device stay.")]
pub struct Disable {
    /// Where it is mounted.
    path: String,
}

impl Audit {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Enable(command) => command.run(context).await,
            Self::Disable(Disable { path }) => {
                let path = format!("{}/", path.trim_matches('/'));
                let client = context.client()?;
                client
                    .sys()
                    .disable_audit(&path)
                    .await
                    .doing(|| format!("disable the audit device {path}"))?;
                context.success(&format!("Disabled, if it was there: {path}"))
            }
        }
    }
}

impl List {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let devices =
            context.client()?.sys().audit_devices().await.doing(|| "list audit devices".to_owned())?;
        if context.format != Format::Table {
            return context.structured(&devices);
        }
        if devices.is_empty() {
            return Err(CliError::Server(
                "No audit device is enabled; `arca audit enable` makes one.".into(),
            ));
        }
        if !self.detailed {
            let row = |(path, device): (String, AuditDevice)| vec![path, device.kind, device.description];
            return context.table(&["Path", "Type", "Description"], devices.into_iter().map(row));
        }
        let row = |(path, device): (String, AuditDevice)| {
            let options: Vec<_> =
                device.options.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
            let replication = if device.local { "local" } else { "replicated" };
            vec![path, device.kind, device.description, replication.to_owned(), options.join(" ")]
        };
        context
            .table(&["Path", "Type", "Description", "Replication", "Options"], devices.into_iter().map(row))
    }
}

impl Enable {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        let path = self.path.unwrap_or_else(|| self.kind.clone());
        let path = path.trim_matches('/').to_owned();
        let options = input::parse(&self.options, &mut context.console.stdin)?;
        let options =
            options.into_iter().map(|(key, value)| (key, crate::output::table::plain(&value))).collect();
        let device = AuditDevice {
            kind: self.kind.clone(),
            description: self.description.unwrap_or_default(),
            options: Some(options),
            local: self.local,
            path: String::new(),
        };
        let client = context.client()?;
        client
            .sys()
            .enable_audit(&path, &device)
            .await
            .doing(|| format!("enable the audit device {path}/"))?;
        context.success(&format!("The {} audit device records at: {path}/", self.kind))
    }
}
