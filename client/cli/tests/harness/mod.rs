//! Runs whole commands in memory against a scripted server, and shows all they do as one text.

#![allow(dead_code, reason = "each test that includes this file uses another part of it")]

#[path = "../../../tests/stub/mod.rs"]
mod stub;

use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arca_cli::{Console, External, run_in};
use expect_test::Expect;
pub(crate) use stub::Step;
use stub::Stub;

/// Output that a test reads afterwards.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A command line, what stands around it, and the script of the server.
pub(crate) struct Case {
    steps: Vec<Step>,
    stdin: &'static str,
    env: Vec<(&'static str, &'static str)>,
    home: Option<PathBuf>,
    is_terminal: bool,
}

pub(crate) fn server(steps: impl IntoIterator<Item = Step>) -> Case {
    let env = vec![("VAULT_TOKEN", "hvs.t")];
    Case { steps: steps.into_iter().collect(), stdin: "", env, home: None, is_terminal: false }
}

impl Case {
    pub(crate) fn stdin(mut self, text: &'static str) -> Self {
        self.stdin = text;
        self
    }

    pub(crate) fn env(mut self, env: &[(&'static str, &'static str)]) -> Self {
        self.env = env.to_vec();
        self
    }

    pub(crate) fn home(mut self, home: PathBuf) -> Self {
        self.home = Some(home);
        self
    }

    /// A person sits in front of it.
    pub(crate) fn terminal(mut self) -> Self {
        self.is_terminal = true;
        self
    }

    /// Runs the command line; shows requests, output, errors and exit code as one text.
    #[track_caller]
    pub(crate) fn check(self, line: &str, want: Expect) {
        want.assert_eq(&self.run(line).0);
    }

    /// Runs the command line, which must succeed, and checks the token of each request.
    #[track_caller]
    pub(crate) fn check_tokens(self, line: &str, want: &[&str]) {
        let (shown, tokens) = self.run(line);
        assert!(shown.ends_with("exit 0\n"), "{line}: {shown}");
        assert_eq!(tokens, want, "{line}: {shown}");
    }

    /// What there was to see, and the tokens that were sent.
    fn run(self, line: &str) -> (String, Vec<String>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stub = runtime.block_on(Stub::new(self.steps));
        let (out, err) = (Shared::default(), Shared::default());
        let (env, address) = (self.env, stub.address.clone());
        let mut console = Console {
            env: Box::new(move |name| match name {
                "ARCA_ADDR" => Some(address.clone()),
                "ARCA_MAX_RETRIES" => Some("0".to_owned()),
                _ => env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            }),
            home: self.home,
            stdin: Box::new(Cursor::new(self.stdin)),
            stdout: Box::new(out.clone()),
            stderr: Box::new(err.clone()),
            is_input_terminal: self.is_terminal,
            is_output_terminal: false,
        };
        let args = std::iter::once("arca").chain(line.split(' ')).map(Into::into);
        let code = run_in(&mut console, args, &[External { path: &["server"], about: "Run a server" }]);
        let (mut shown, mut tokens) = (String::new(), Vec::new());
        for asked in stub.asked() {
            tokens.extend(asked.headers.get("x-vault-token").map(|token| token.to_str().unwrap().to_owned()));
            shown.push_str(format!("> {} {} {}", asked.method, asked.path, asked.body).trim_end());
            shown.push('\n');
        }
        for text in [out, err] {
            shown.push_str(&String::from_utf8_lossy(&text.0.lock().unwrap()));
        }
        if !shown.ends_with('\n') {
            shown.push_str("(no newline)\n");
        }
        shown.push_str(&format!("exit {code}\n"));
        (shown.replace(&stub.address, "http://server"), tokens)
    }
}

/// What a command prints that needs no server.
pub(crate) fn printed(line: &str) -> String {
    let mut console = Console::real();
    let out = Shared::default();
    console.stdout = Box::new(out.clone());
    console.is_output_terminal = false;
    let args = std::iter::once("arca").chain(line.split(' ')).map(Into::into);
    assert_eq!(run_in(&mut console, args, &[External { path: &["server"], about: "Run a server" }]), 0);
    String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
}

pub(crate) const V2: &str = r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#;
pub(crate) const V1: &str = r#"{"data":{"path":"old/kv/","type":"kv","options":null}}"#;
pub(crate) const VERSION: &str = r#"{"data":{"created_time":"2026-01-01T00:00:00Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}"#;
pub(crate) const SECRET: &str = r#"{"data":{"data":{"user":"app","n":1.50},"metadata":{"deletion_time":"","version":3}},"warnings":null}"#;
