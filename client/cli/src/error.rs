//! What a command can fail with, what exit code that is, and how it is shown.

use std::io;
use std::path::PathBuf;

use crate::console::Console;
use crate::hints;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server, or the road to it.
    #[error("cannot {doing}")]
    Client {
        /// What was tried, as "read secret/foo".
        doing: String,
        /// What came of it.
        #[source]
        source: Box<arca_client::Error>,
    },
    /// The field asked for with `-field` is not there.
    #[error("field {0:?} is not in the answer")]
    Field(String),
    /// A local file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is nothing at the path.
    #[error("No value found at {0}")]
    NotFound(String),
    /// The token helper's file.
    #[error("cannot use the stored token: {0}")]
    TokenFile(#[source] io::Error),
    /// The server refused in words that need no hint.
    #[error("{0}")]
    Server(String),
    /// The command line, or what it points at.
    #[error("{0}")]
    Usage(String),
}

/// What a command answers.
pub type Outcome = Result<u8, CliError>;

impl CliError {
    /// The exit code: 1 for a mistake on this side, 2 for the server.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client { source, .. } => match source.as_ref() {
                arca_client::Error::Api(_) | arca_client::Error::Transport(_) => 2,
                arca_client::Error::BadResponse { .. } | arca_client::Error::TooLarge { .. } => 2,
                arca_client::Error::Redirect { .. } => 2,
                _ => 1,
            },
            Self::NotFound(_) | Self::Server(_) => 2,
            Self::Field(_) | Self::File { .. } | Self::TokenFile(_) | Self::Usage(_) => 1,
        }
    }

    /// Shows the error, and what to do about it.
    pub fn show(&self, console: &mut Console) {
        match self {
            Self::Client { doing, source } => {
                console.note(&format!("Error: cannot {doing}"));
                match source.as_ref() {
                    arca_client::Error::Api(err) => show_api(console, err),
                    other => console.note(&format!("  {other}")),
                }
                if let Some(hint) = hints::hint(source, console) {
                    console.note(&format!("\nWhat to do: {hint}"));
                }
            }
            Self::NotFound(_) => console.note(&self.to_string()),
            _ => console.note(&format!("Error: {self}")),
        }
    }
}

/// The lines Vault's users know, so that scripts that look for a code still find it.
fn show_api(console: &mut Console, err: &arca_client::ApiError) {
    console.note(&format!("\nURL: {} {}", err.method, err.url));
    let code = err.status.as_u16();
    match (err.errors.as_slice(), &err.raw) {
        ([], Some(raw)) => console.note(&format!("Code: {code}. Raw Message:\n\n{raw}")),
        ([], None) => console.note(&format!("Code: {code}. The server gave no reason.")),
        (errors, _) => {
            console.note(&format!("Code: {code}. Errors:\n"));
            for error in errors {
                console.note(&format!("* {error}"));
            }
        }
    }
}

/// Adds what was tried to a failure of the client.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CliError>;
}

impl<T> Doing<T> for Result<T, arca_client::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CliError> {
        self.map_err(|source| CliError::Client { doing: what(), source: Box::new(source) })
    }
}

/// Names the file a failure is about.
pub(crate) trait AtFile<T> {
    fn at_file(self, path: impl Into<PathBuf>) -> Result<T, CliError>;
}

impl<T> AtFile<T> for io::Result<T> {
    fn at_file(self, path: impl Into<PathBuf>) -> Result<T, CliError> {
        self.map_err(|source| CliError::File { path: path.into(), source })
    }
}
