//! What is stored of identities, and where. Records are JSON below `<namespace id>/identity/`.
//!
//! An entity's record holds its aliases and the groups it is directly in, so that one read says all that changes with
//! it; a group's record holds its place among groups, and its members stand in entries of their own, since there may be
//! many. Everything else is a pointer by which records are found.
//! Read next: [`super::book`], which keeps records and pointers together.

use std::collections::{BTreeMap, BTreeSet};

use arca_barrier::Class;
use arca_engine_api::UnixMillis;
use serde::{Deserialize, Serialize};

/// Key and value texts.
pub(crate) type Metadata = BTreeMap<String, String>;

/// A name by which an auth mount, or one of its groups, knows somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliasRecord {
    /// Random, never reused.
    pub(crate) id: String,
    /// As the auth method says it. Found whatever its case.
    pub(crate) name: String,
    /// Accessor of the mount.
    pub(crate) mount_accessor: String,
    /// What the auth method said at the last login.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: Metadata,
    /// What people said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) custom_metadata: Metadata,
    /// When it was made.
    pub(crate) created: UnixMillis,
    /// When it was changed last.
    pub(crate) updated: UnixMillis,
    /// Entities it belonged to before they were merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged_from: Vec<String>,
    /// Of a local mount: stored apart, in this cluster only. Not stored, it follows from where the alias stands.
    #[serde(skip)]
    pub(crate) is_local: bool,
}

/// Somebody. Stored at `<ns>/identity/entity/id/<id>`, aliases of local mounts at `…/entity/local-aliases/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntityRecord {
    /// Random, never reused.
    pub(crate) id: String,
    /// Found whatever its case.
    pub(crate) name: String,
    /// In their one form, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) policies: Vec<String>,
    /// For templates and people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: Metadata,
    /// Its tokens are refused and it cannot log in.
    #[serde(default)]
    pub(crate) is_disabled: bool,
    /// When it was made.
    pub(crate) created: UnixMillis,
    /// When it was changed last.
    pub(crate) updated: UnixMillis,
    /// Entities that were merged into this one: their tokens are its tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged_entity_ids: Vec<String>,
    /// At most one of each mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<AliasRecord>,
    /// Groups it is directly a member of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) group_ids: BTreeSet<String>,
}

impl EntityRecord {
    /// Its alias of a mount.
    pub(crate) fn alias_of(&self, mount_accessor: &str) -> Option<&AliasRecord> {
        self.aliases.iter().find(|alias| alias.mount_accessor == mount_accessor)
    }

    /// Its alias with an id.
    pub(crate) fn alias(&self, id: &str) -> Option<&AliasRecord> {
        self.aliases.iter().find(|alias| alias.id == id)
    }
}

/// The aliases of an entity that are of local mounts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LocalAliases {
    pub(crate) aliases: Vec<AliasRecord>,
}

/// Who decides on a group's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GroupKind {
    /// The auth method of its alias, at each login.
    External,
    /// Whoever writes the group.
    #[default]
    Internal,
}

impl GroupKind {
    /// As clients see it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

/// A group. Stored at `<ns>/identity/group/id/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    /// Random, never reused.
    pub(crate) id: String,
    /// Found whatever its case.
    pub(crate) name: String,
    /// Never changes.
    pub(crate) kind: GroupKind,
    /// In their one form, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) policies: Vec<String>,
    /// For templates and people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: Metadata,
    /// When it was made.
    pub(crate) created: UnixMillis,
    /// Groups it is a member of: its members have their policies too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) parent_ids: BTreeSet<String>,
    /// Groups that are members of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) member_group_ids: BTreeSet<String>,
    /// Of external groups: how its auth mount calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<AliasRecord>,
}

impl GroupRecord {
    /// Whether being its member counts. Nobody vouches for the members of an external group without an alias: what
    /// the auth method said before cannot be taken back any more (CVE-2020-10660).
    pub(crate) fn counts(&self) -> bool {
        self.kind == GroupKind::Internal || self.alias.is_some()
    }
}

/// What changes with a group's members. Apart from the group, so that a login that joins one leaves the group as it is
/// for everybody else. Whoever lists the members or changes them guards this record. Stored at
/// `<ns>/identity/group/tally/<id>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Counts the changes, from 1.
    pub(crate) modify_index: u64,
    /// When it was written last.
    pub(crate) updated: UnixMillis,
    /// How many entities are members.
    pub(crate) members: u64,
}

/// Leads from an index to a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// Id of the entity or group.
    pub(crate) id: String,
}

/// The one form in which names are compared: case does not count. Letters beyond ASCII whose small form is ASCII, the Kelvin sign
/// for one, stay as they are: who may choose a name at a provider is not taken for somebody of a name that looks alike.
pub(crate) fn folded(name: &str) -> String {
    let is_taken_for_ascii =
        |letter: char| !letter.is_ascii() && letter.to_lowercase().any(|small| small.is_ascii());
    let mut folded = String::with_capacity(name.len());
    for letter in name.chars() {
        if is_taken_for_ascii(letter) {
            folded.push(letter);
        } else {
            folded.extend(letter.to_lowercase());
        }
    }
    folded
}

/// Stands for a name in a path: of one length, and without slashes.
fn digest(name: &str) -> String {
    blake3::hash(folded(name).as_bytes()).to_hex().to_string()
}

/// Paths of one namespace's records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a>(pub(crate) &'a str);

impl Paths<'_> {
    pub(crate) fn entities(self) -> String {
        format!("{}/identity/entity/id/", self.0)
    }

    pub(crate) fn entity(self, id: &str) -> String {
        format!("{}/identity/entity/id/{id}", self.0)
    }

    pub(crate) fn entity_name(self, name: &str) -> String {
        format!("{}/identity/entity/name/{}", self.0, digest(name))
    }

    /// Folder of the aliases of local mounts.
    pub(crate) fn all_local_aliases(self) -> String {
        format!("{}/identity/entity/local-aliases/", self.0)
    }

    pub(crate) fn local_aliases(self, id: &str) -> String {
        format!("{}/identity/entity/local-aliases/{id}", self.0)
    }

    /// Where an entity that was merged away leads to the one it is part of.
    pub(crate) fn merged(self, id: &str) -> String {
        format!("{}/identity/entity/merged/{id}", self.0)
    }

    pub(crate) fn alias_ids(self) -> String {
        format!("{}/identity/alias/id/", self.0)
    }

    pub(crate) fn alias_id(self, id: &str) -> String {
        format!("{}/identity/alias/id/{id}", self.0)
    }

    pub(crate) fn aliases_of_mount(self, accessor: &str) -> String {
        format!("{}/identity/alias/name/{accessor}/", self.0)
    }

    pub(crate) fn alias_name(self, accessor: &str, name: &str) -> String {
        format!("{}/identity/alias/name/{accessor}/{}", self.0, digest(name))
    }

    /// Folder of group records. What is compiled from them watches it.
    pub(crate) fn groups(self) -> String {
        format!("{}/identity/group/id/", self.0)
    }

    pub(crate) fn group(self, id: &str) -> String {
        format!("{}/identity/group/id/{id}", self.0)
    }

    pub(crate) fn group_name(self, name: &str) -> String {
        format!("{}/identity/group/name/{}", self.0, digest(name))
    }

    pub(crate) fn tally(self, id: &str) -> String {
        format!("{}/identity/group/tally/{id}", self.0)
    }

    pub(crate) fn members(self, id: &str) -> String {
        format!("{}/identity/group/member/{id}/", self.0)
    }

    pub(crate) fn member(self, id: &str, entity_id: &str) -> String {
        format!("{}/identity/group/member/{id}/{entity_id}", self.0)
    }

    /// Groups that are gone and have members left over.
    pub(crate) fn leftovers(self) -> String {
        format!("{}/identity/group/leftover/", self.0)
    }

    pub(crate) fn leftover(self, id: &str) -> String {
        format!("{}/identity/group/leftover/{id}", self.0)
    }

    pub(crate) fn group_alias_ids(self) -> String {
        format!("{}/identity/group/alias-id/", self.0)
    }

    pub(crate) fn group_alias_id(self, id: &str) -> String {
        format!("{}/identity/group/alias-id/{id}", self.0)
    }

    pub(crate) fn group_aliases_of_mount(self, accessor: &str) -> String {
        format!("{}/identity/group/alias-name/{accessor}/", self.0)
    }

    pub(crate) fn group_alias_name(self, accessor: &str, name: &str) -> String {
        format!("{}/identity/group/alias-name/{accessor}/{}", self.0, digest(name))
    }
}

/// Who receives what belongs to an alias.
pub(crate) const fn class_of(is_local: bool) -> Class {
    if is_local { Class::Local } else { Class::Replicated }
}

/// The classes in which aliases stand.
pub(crate) const CLASSES: [Class; 2] = [Class::Replicated, Class::Local];

/// Whether a text from a request can name an entity, a group or an alias by id: one segment of a path.
pub(crate) fn is_id(id: &str) -> bool {
    const ID_MAX: usize = 64;
    !id.is_empty()
        && id.len() <= ID_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on disk stays readable: a change here needs a way to read what was written before.
    #[test]
    fn records_keep_their_form() {
        let moment = UnixMillis(5);
        let alias = AliasRecord {
            id: "a-1".to_owned(),
            name: "al".to_owned(),
            mount_accessor: "auth_x_1".to_owned(),
            metadata: Metadata::from([("k".to_owned(), "v".to_owned())]),
            custom_metadata: Metadata::new(),
            created: moment,
            updated: moment,
            merged_from: vec!["e-0".to_owned()],
            is_local: true,
        };
        let alias_text = r#"{"id":"a-1","name":"al","mount_accessor":"auth_x_1","metadata":{"k":"v"},"created":5,"updated":5,"merged_from":["e-0"]}"#;
        let entity = EntityRecord {
            id: "e-1".to_owned(),
            name: "Alice".to_owned(),
            policies: vec!["p".to_owned()],
            created: moment,
            updated: moment,
            aliases: vec![alias.clone()],
            group_ids: BTreeSet::from(["g-1".to_owned()]),
            ..EntityRecord::default()
        };
        let group = GroupRecord {
            id: "g-1".to_owned(),
            name: "Dev".to_owned(),
            kind: GroupKind::External,
            created: moment,
            alias: Some(alias),
            ..GroupRecord::default()
        };
        let tally = Tally { modify_index: 1, updated: moment, members: 2 };
        let check = |text: serde_json::Result<String>, want: &str| assert_eq!(text.unwrap(), want);
        check(
            serde_json::to_string(&entity),
            &format!(
                r#"{{"id":"e-1","name":"Alice","policies":["p"],"is_disabled":false,"created":5,"updated":5,"aliases":[{alias_text}],"group_ids":["g-1"]}}"#
            ),
        );
        check(
            serde_json::to_string(&group),
            &format!(r#"{{"id":"g-1","name":"Dev","kind":"external","created":5,"alias":{alias_text}}}"#),
        );
        check(serde_json::to_string(&tally), r#"{"modify_index":1,"updated":5,"members":2}"#);
        check(serde_json::to_string(&Pointer { id: "e-1".to_owned() }), r#"{"id":"e-1"}"#);
    }

    #[test]
    fn names_differ_by_more_than_case() {
        let paths = Paths("root");
        assert_eq!(paths.entity_name("Ärger/x"), paths.entity_name("äRGER/X"));
        assert_ne!(paths.entity_name("a"), paths.entity_name("a "));
        for (name, lookalike) in [("kate", "\u{212a}ate"), ("ines", "\u{130}nes")] {
            assert_ne!(paths.entity_name(name), paths.entity_name(lookalike), "{name}");
        }
        assert_eq!(paths.entity_name("a/../b").matches('/').count(), 4);
    }

    #[test]
    fn an_id_is_one_segment() {
        for id in ["", "a/b", "..", "a b", "ä", &"x".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
        assert!(is_id("960635b7-b645-a56b-7edf-e7dd5e3c883c"));
    }
}
