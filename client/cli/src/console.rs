//! The terminal, the environment and the home folder, as one value, so that tests run commands in memory.
//! Output errors are ignored on purpose: a closed pipe (`arca … | head`) is no failure of the command.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;

use zeroize::Zeroizing;

/// Finds a variable of the environment.
pub type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// What a command can reach of the machine besides files and the network.
pub struct Console {
    /// Looks a variable of the environment up.
    pub env: Environment,
    /// Where `.vault-token` is kept.
    pub home: Option<PathBuf>,
    /// Standard input.
    pub stdin: Box<dyn Read>,
    /// Standard output.
    pub stdout: Box<dyn Write>,
    /// Standard error.
    pub stderr: Box<dyn Write>,
    /// Whether a person types at standard input.
    pub is_input_terminal: bool,
    /// Whether a person reads standard output.
    pub is_output_terminal: bool,
}

impl Console {
    /// The process's own.
    pub fn real() -> Self {
        Self {
            env: Box::new(|name| std::env::var(name).ok()),
            home: std::env::home_dir(),
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            is_input_terminal: io::stdin().is_terminal(),
            is_output_terminal: io::stdout().is_terminal(),
        }
    }

    /// Prints a line.
    pub fn say(&mut self, line: &str) {
        let _ = writeln!(self.stdout, "{line}");
    }

    /// Prints text as it is.
    pub fn print(&mut self, text: &[u8]) {
        let _ = self.stdout.write_all(text);
    }

    /// Prints a line beside the output.
    pub fn note(&mut self, line: &str) {
        let _ = writeln!(self.stderr, "{line}");
    }

    /// Sends what was printed on its way.
    pub fn flush(&mut self) {
        let _ = self.stdout.flush();
        let _ = self.stderr.flush();
    }

    /// Asks a person for a secret without showing it, or takes a line of a pipe.
    pub fn ask_secret(&mut self, prompt: &str) -> io::Result<Zeroizing<String>> {
        if self.is_input_terminal {
            self.flush();
            return rpassword::prompt_password(format!("{prompt} (will be hidden): ")).map(Zeroizing::new);
        }
        let mut line = Zeroizing::new(String::new());
        BufReader::new(&mut self.stdin).read_line(&mut line)?;
        while line.ends_with(['\n', '\r']) {
            line.pop();
        }
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "standard input is empty"));
        }
        Ok(line)
    }
}
