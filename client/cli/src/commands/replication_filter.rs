//! `arca operator replication filter`: which mounts and namespaces a performance secondary gets.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{CliError, Doing as _, Outcome};
use crate::output::table;

/// What paths stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Nothing else goes there.
    Allow,
    /// They do not go there.
    Deny,
}

/// Shows, sets or removes the filter of a performance secondary.
#[derive(Args, Debug)]
#[command(
    after_help = "Paths are those of mounts and namespaces, as secret/, auth/userpass/ or ns1/. Policies and identity always \
go. A filter may be set before there is the secondary; one that is there compares its state anew.\n\n\
Examples:\n  arca operator replication filter -mode=deny far secret/eu/ auth/staff/\n  \
arca operator replication filter far\n  arca operator replication filter -delete far"
)]
pub struct Filter {
    /// allow: nothing but the paths goes there; deny: everything but them.
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "delete")]
    mode: Option<Mode>,
    /// Remove the filter: everything goes there.
    #[arg(long)]
    delete: bool,
    /// The name of the secondary.
    id: String,
    /// Mounts and namespaces.
    #[arg(requires = "mode")]
    paths: Vec<String>,
}

impl Filter {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let path = format!("sys/replication/performance/primary/paths-filter/{}", self.id);
        if self.delete {
            let said = context.client()?.delete(&path).await.doing(|| "remove the filter".to_owned())?;
            return context.secret_or_success(said.as_ref(), &format!("Removed: {}", self.id));
        }
        let Some(mode) = self.mode else { return show(context, &self.id).await };
        let mode = match mode {
            Mode::Allow => "allow",
            Mode::Deny => "deny",
        };
        let body = json!({ "mode": mode, "paths": self.paths });
        let said = context.client()?.write(&path, &body).await.doing(|| "set the filter".to_owned())?;
        if let Some(said) = &said {
            context.warnings(said);
        }
        context.success(&format!("The filter is set: {}", self.id))
    }
}

async fn show(context: &mut Context<'_>, id: &str) -> Outcome {
    let path = format!("sys/replication/performance/primary/dynamic-filter/{id}");
    let said = context.client()?.read(&path).await.doing(|| "show the filter".to_owned())?;
    let Some(data) = said.and_then(|said| said.data) else {
        return Err(CliError::Usage(format!("{id} has no filter: everything goes there")));
    };
    if context.is_for_programs() {
        return context.structured(&data);
    }
    context.pairs(&Value::Null, rows(&data))
}

fn rows(data: &Map<String, Value>) -> Vec<(String, String)> {
    let shown = [
        ("Mode", "mode"),
        ("Paths", "paths"),
        ("Mounts Kept Here", "dynamic_filtered_mounts"),
        ("Namespaces Kept Here", "dynamic_filtered_namespaces"),
    ];
    let text = |value: &Value| match value {
        Value::Array(items) => items.iter().map(table::plain).collect::<Vec<_>>().join(", "),
        other => table::plain(other),
    };
    let found = shown.into_iter().filter_map(|(title, key)| Some((title.to_owned(), text(data.get(key)?))));
    found.filter(|(_, text)| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_shows_what_it_comes_to() {
        let data = json!({
            "mode": "deny", "paths": ["a/", "b/"], "dynamic_filtered_mounts": ["a/x/"],
            "dynamic_filtered_namespaces": [],
        });
        let Value::Object(data) = data else { panic!("not an object") };
        let want = [("Mode", "deny"), ("Paths", "a/, b/"), ("Mounts Kept Here", "a/x/")];
        let want: Vec<_> = want.map(|(title, text)| (title.to_owned(), text.to_owned())).into();
        assert_eq!(rows(&data), want);
    }
}
