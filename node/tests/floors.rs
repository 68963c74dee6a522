//! The allow-list of edges between Arca's crates: a crate imports only from lower floors, and only what is named here.
//! A new edge needs an ADR (docs/adr/).

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crate, floor, and the crates of ours it may import (tests included).
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("arca-barrier", 1, &["arca-danger", "arca-unify"]),
    ("arca-client", 1, &["arca-unify"]),
    ("arca-engine-api", 1, &[]),
    ("arca-hcl", 1, &[]),
    ("arca-raft-storage", 1, &["arca-danger", "arca-unify"]),
    // Constants in a real build: docs/adr/0018-planted-bugs.md.
    ("arca-danger", 0, &[]),
    ("arca-unify", 0, &[]),
    // Under openraft only: docs/adr/0013-own-histogram-for-openraft.md.
    ("base2histogram", 0, &[]),
    ("arca-cli", 2, &["arca-client"]),
    ("arca-engines", 2, &["arca-danger", "arca-engine-api"]),
    ("arca-kernel", 2, &["arca-barrier", "arca-danger", "arca-engine-api", "arca-hcl", "arca-raft-storage"]),
    ("arca-api", 3, &["arca-danger", "arca-engine-api", "arca-kernel", "arca-raft-storage"]),
    ("arca-replication", 2, &["arca-danger", "arca-raft-storage"]),
    (
        "arca-replicator",
        3,
        &[
            "arca-barrier",
            "arca-danger",
            "arca-engine-api",
            "arca-kernel",
            "arca-raft-storage",
            "arca-replication",
        ],
    ),
    ("arca-rpc", 3, &["arca-raft-storage", "arca-replication"]),
    (
        "arca-node",
        4,
        &[
            "arca-api",
            "arca-barrier",
            "arca-cli",
            "arca-client",
            "arca-danger",
            "arca-engine-api",
            "arca-engines",
            "arca-harness",
            "arca-hcl",
            "arca-kernel",
            "arca-raft-storage",
            "arca-replication",
            "arca-replicator",
            "arca-rpc",
        ],
    ),
    ("arca-harness", 2, &["arca-client"]),
    ("arca-jepsen", 5, &["arca-client", "arca-harness"]),
    // Over jepsen for its checker: docs/adr/0017-simulation-at-the-seams.md.
    (
        "arca-simulation",
        6,
        &[
            "arca-api",
            "arca-barrier",
            "arca-client",
            "arca-danger",
            "arca-engine-api",
            "arca-engines",
            "arca-jepsen",
            "arca-kernel",
            "arca-raft-storage",
            "arca-replication",
            "arca-replicator",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every manifest of the workspace, by package name, with the packages of ours it names.
fn manifests() -> BTreeMap<String, Vec<String>> {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let paths = members.split('"').filter(|text| text.chars().any(char::is_alphabetic));
    paths.map(|path| read(&root().join(path).join("Cargo.toml"))).collect()
}

fn read(path: &Path) -> (String, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let value_of = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let name = text.lines().find(|line| line.starts_with("name = ")).and_then(value_of).unwrap();
    let ours = text.lines().filter(|line| line.starts_with("arca-"));
    let edges = ours.map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned()).collect();
    (name, edges)
}

#[test]
fn every_edge_goes_down_and_is_allowed() {
    let floors: BTreeMap<&str, (u8, &[&str])> =
        FLOORS.iter().map(|(name, floor, edges)| (*name, (*floor, *edges))).collect();
    for (name, edges) in manifests() {
        let (floor, allowed) = floors.get(name.as_str()).unwrap_or_else(|| panic!("{name} is on no floor"));
        for edge in edges {
            assert!(allowed.contains(&edge.as_str()), "{name} imports {edge}, which is not in its list");
            let (lower, _) = floors.get(edge.as_str()).unwrap_or_else(|| panic!("{edge} is on no floor"));
            assert!(lower < floor, "{name} (floor {floor}) imports {edge} (floor {lower})");
        }
    }
}

#[test]
fn what_carries_ciphertext_cannot_open_it() {
    for (name, edges) in manifests() {
        if name == "arca-raft-storage" || name == "arca-rpc" {
            assert!(!edges.contains(&"arca-barrier".to_owned()), "{name} must not import the barrier");
        }
    }
}
