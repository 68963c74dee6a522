//! House rules that a compiler does not know: file length and headers, words that do not belong on main, paths that
//! belong to one machine.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file, tests included.
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts") {
                files(&path, extension, found);
            }
        } else if name.ends_with(extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root(), ".rs", &mut found);
    assert!(found.len() > 50, "only {} source files found", found.len());
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines: split it");
        if !name.contains("/fuzz/") {
            assert!(text.starts_with("//!"), "{name} does not open with //!");
        }
    }
}

#[test]
fn no_word_on_main_that_means_unfinished() {
    // Split, so that this file does not name them.
    let words = [
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    for (name, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{name} holds {word}");
        }
    }
}

#[test]
fn long_functions_say_why() {
    for (name, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            if line.contains(concat!("allow(clippy::too_many", "_lines")) {
                assert!(
                    line.contains("//") || line.contains("reason"),
                    "{name}:{}: a long function needs a reason",
                    at + 1
                );
            }
        }
    }
}

#[test]
fn changes_are_noted() {
    assert!(fs::read_to_string(root().join("CHANGELOG.md")).unwrap().contains("Unreleased"));
    let decisions = fs::read_dir(root().join("docs/adr")).unwrap().count();
    assert!(decisions >= 5, "{decisions} ADRs");
}

/// A bug that is named and nowhere planted would be reported as one that nothing finds.
#[test]
fn every_planted_bug_is_planted() {
    let sources = sources();
    let (_, bugs) = sources.iter().find(|(name, _)| name == "danger/src/bug.rs").unwrap();
    let variant = |line: &str| Some(line.strip_prefix("    ")?.split_once(" \"")?.0.to_owned());
    let is_name = |name: &String| name.chars().all(char::is_alphanumeric);
    let named: Vec<_> = bugs.lines().filter_map(variant).filter(is_name).collect();
    assert!(named.len() > 40, "only {} bugs found", named.len());
    for bug in named {
        let planted = format!("Bug::{bug}");
        let is_planted =
            |(name, text): &(String, String)| !name.starts_with("danger/") && text.contains(&planted);
        assert!(sources.iter().any(is_planted), "{bug} is planted nowhere");
    }
}
