//! The token between two commands: `~/.vault-token`, the file of Vault's own CLI, readable by its owner only.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arca_client::Token;

use crate::console::Console;

const NAME: &str = ".vault-token";

fn path(console: &Console) -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no home folder to keep a token in");
    console.home.as_ref().map(|home| home.join(NAME)).ok_or_else(missing)
}

/// The stored token, if there is one.
pub(crate) fn load(console: &Console) -> io::Result<Option<Token>> {
    let Ok(path) = path(console) else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Token::new(text.trim()))),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(named(&path, &err)),
    }
}

/// Stores `token`: written beside and renamed, so that no reader sees half of it.
pub(crate) fn store(console: &Console, token: &Token) -> io::Result<()> {
    let path = path(console)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    // A new temporary file is readable by its owner only, and renaming keeps that.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|err| named(&path, &err))?;
    // The file is the one place a token rests.
    file.write_all(token.expose().as_bytes()).map_err(|err| named(&path, &err))?;
    file.persist(&path).map_err(|err| named(&path, &err.error))?;
    Ok(())
}

fn named(path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}
