//! `{{identity.…}}` in the paths of rules: what stands there depends on who asks.
//!
//! A value that could widen the pattern (`+`, `*`, `/`, or nothing at all) is never filled in. A rule left out could
//! have been the narrow one that denies, so [`Unresolved`] tells the compiler to refuse the whole set where leaving
//! the rule out is not safe (CVE-2026-71543, CVE-2026-5006, GHSA-hr5j-3j78-4vh2).

use std::collections::BTreeMap;

use serde::Serialize;

/// An alias of the caller: of each mount, the one the caller logged in with (CVE-2021-43998).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AliasView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Metadata given by the auth method.
    pub metadata: BTreeMap<String, String>,
    /// Metadata given by people.
    pub custom_metadata: BTreeMap<String, String>,
}

/// A group the caller is a member of, inherited ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Who the caller is, as far as templates can ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdentityView {
    /// Entity id.
    pub id: String,
    /// Entity name.
    pub name: String,
    /// Entity metadata.
    pub metadata: BTreeMap<String, String>,
    /// Aliases by mount accessor.
    pub aliases: BTreeMap<String, AliasView>,
    /// Groups.
    pub groups: Vec<GroupView>,
}

/// An [`IdentityView`] with its fingerprint, so that compiled sets can be kept per identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    view: IdentityView,
    fingerprint: [u8; 32],
}

impl Identity {
    /// Takes the fingerprint of `view`.
    #[must_use]
    pub fn new(view: IdentityView) -> Self {
        // A view of maps and texts always serializes; an empty text would only make two identities share a set
        // if it ever did not, so the debug form stands in.
        let text = serde_json::to_vec(&view).unwrap_or_else(|_| format!("{view:?}").into_bytes());
        Self { fingerprint: *blake3::hash(&text).as_bytes(), view }
    }

    pub(crate) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// Why a pattern could not be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The caller has no such value: the rule speaks of nobody.
    Missing,
    /// The value could widen the pattern.
    Unsafe,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

/// A pattern with `{{…}}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a pattern; `None` when nothing is to be filled in.
    ///
    /// # Errors
    /// When braces do not pair up; the text says so.
    pub fn parse(pattern: &str) -> Result<Option<Self>, &'static str> {
        const UNBALANCED: &str = "unbalanced {{ }} in a path";
        if !pattern.contains("{{") && !pattern.contains("}}") {
            return Ok(None);
        }
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some((text, tail)) = rest.split_once("{{") {
            let (name, after) = tail.split_once("}}").ok_or(UNBALANCED)?;
            if text.contains("}}") || name.contains("{{") {
                return Err(UNBALANCED);
            }
            pieces.push(Piece::Text(text.to_owned()));
            pieces.push(Piece::Variable(name.trim().to_owned()));
            rest = after;
        }
        if rest.contains("}}") {
            return Err(UNBALANCED);
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Some(Self(pieces)))
    }

    /// The pattern for one caller.
    ///
    /// # Errors
    /// As [`Unresolved`] says; an unsafe value is reported even when another one is missing.
    pub fn render(&self, identity: Option<&Identity>) -> Result<String, Unresolved> {
        let mut text = String::new();
        let mut is_missing = false;
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Variable(name) => match identity.and_then(|identity| lookup(&identity.view, name)) {
                    None | Some("") => is_missing = true,
                    Some(value) if value.contains(['+', '*', '/']) => return Err(Unresolved::Unsafe),
                    Some(value) => text.push_str(value),
                },
            }
        }
        if is_missing { Err(Unresolved::Missing) } else { Ok(text) }
    }
}

fn lookup<'a>(view: &'a IdentityView, name: &str) -> Option<&'a str> {
    let name = name.strip_prefix("identity.")?;
    if let Some(rest) = name.strip_prefix("entity.") {
        return entity(view, rest);
    }
    let rest = name.strip_prefix("groups.")?;
    if let Some(rest) = rest.strip_prefix("ids.") {
        let (id, field) = rest.split_once('.')?;
        let group = view.groups.iter().find(|group| group.id == id)?;
        return if field == "name" {
            Some(&group.name)
        } else {
            metadata(&group.metadata, "metadata.", field)
        };
    }
    // A group's name may hold dots, so every group is tried instead of cutting the text.
    let rest = rest.strip_prefix("names.")?;
    view.groups.iter().find_map(|group| {
        let field = rest.strip_prefix(group.name.as_str())?.strip_prefix('.')?;
        if field == "id" { Some(group.id.as_str()) } else { metadata(&group.metadata, "metadata.", field) }
    })
}

fn entity<'a>(view: &'a IdentityView, field: &str) -> Option<&'a str> {
    match field {
        "id" => return Some(&view.id),
        "name" => return Some(&view.name),
        _ => {}
    }
    let Some(rest) = field.strip_prefix("aliases.") else {
        return metadata(&view.metadata, "metadata.", field);
    };
    let (accessor, field) = rest.split_once('.')?;
    let alias = view.aliases.get(accessor)?;
    match field {
        "id" => Some(&alias.id),
        "name" => Some(&alias.name),
        _ => metadata(&alias.metadata, "metadata.", field)
            .or_else(|| metadata(&alias.custom_metadata, "custom_metadata.", field)),
    }
}

fn metadata<'a>(map: &'a BTreeMap<String, String>, prefix: &str, field: &str) -> Option<&'a str> {
    map.get(field.strip_prefix(prefix)?).map(String::as_str)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn alice(team: &str) -> Identity {
        let pairs = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Identity::new(IdentityView {
            id: "e-1".to_owned(),
            name: "alice".to_owned(),
            metadata: pairs("team", team),
            aliases: BTreeMap::from([(
                "auth_x_1".to_owned(),
                AliasView {
                    id: "a-1".to_owned(),
                    name: "al".to_owned(),
                    metadata: pairs("m.x", "1"),
                    custom_metadata: pairs("c", "2"),
                },
            )]),
            groups: vec![GroupView {
                id: "g-1".to_owned(),
                name: "dev.ops".to_owned(),
                metadata: pairs("k", "3"),
            }],
        })
    }

    #[track_caller]
    fn check(pattern: &str, want: Result<&str, Unresolved>) {
        let template = Template::parse(pattern).unwrap().unwrap();
        assert_eq!(template.render(Some(&alice("red"))), want.map(str::to_owned), "pattern {pattern:?}");
    }

    #[test]
    fn fills_in_who_asks() {
        check("s/{{identity.entity.id}}/*", Ok("s/e-1/*"));
        check("s/{{ identity.entity.name }}-{{identity.entity.metadata.team}}", Ok("s/alice-red"));
        check("{{identity.entity.aliases.auth_x_1.name}}", Ok("al"));
        check("{{identity.entity.aliases.auth_x_1.id}}", Ok("a-1"));
        check("{{identity.entity.aliases.auth_x_1.metadata.m.x}}", Ok("1"));
        check("{{identity.entity.aliases.auth_x_1.custom_metadata.c}}", Ok("2"));
        check("{{identity.groups.ids.g-1.name}}", Ok("dev.ops"));
        check("{{identity.groups.names.dev.ops.id}}", Ok("g-1"));
        check("{{identity.groups.names.dev.ops.metadata.k}}", Ok("3"));
        check("{{identity.groups.ids.g-1.metadata.k}}", Ok("3"));
    }

    #[test]
    fn what_is_not_there_is_missing() {
        for pattern in
            ["{{identity.entity.metadata.x}}", "{{identity.groups.names.dev.id}}", "{{foo}}", "{{}}"]
        {
            check(pattern, Err(Unresolved::Missing));
        }
        let template = Template::parse("{{identity.entity.id}}").unwrap().unwrap();
        assert_eq!(template.render(None), Err(Unresolved::Missing));
        let template = Template::parse("{{identity.entity.metadata.team}}").unwrap().unwrap();
        assert_eq!(template.render(Some(&alice(""))), Err(Unresolved::Missing));
    }

    #[test]
    fn cve_2026_71543_values_never_widen_a_pattern() {
        let template =
            Template::parse("s/{{identity.entity.metadata.nope}}/{{identity.entity.metadata.team}}/*");
        for team in ["*", "+", "a*", "edge/../prod", "prod/db", "/"] {
            assert_eq!(
                template.clone().unwrap().unwrap().render(Some(&alice(team))),
                Err(Unresolved::Unsafe),
                "{team}"
            );
        }
    }

    #[test]
    fn braces_must_pair_up() {
        for pattern in ["a/{{foo", "a/}}", "a/{{b{{c}}", "{{a}}}}", "}}{{"] {
            assert!(Template::parse(pattern).is_err(), "{pattern}");
        }
        assert_eq!(Template::parse("a/{b}"), Ok(None));
    }
}
