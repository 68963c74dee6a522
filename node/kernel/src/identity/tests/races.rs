//! Two that write at the same time and know nothing of each other: where both together would leave something that leads
//! nowhere, the one that comes second does not commit and runs again on what the first left.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::agreement::check_agreement;
use super::*;
use crate::identity::Book;
use crate::identity::login::AliasOf;
use crate::identity::merge::Merge;
use crate::identity::record::{GroupKind, GroupRecord, Metadata};
use crate::tx::Mode;

/// What the racers find.
struct Scene {
    rig: Rig,
    /// Logs in as `ann` on the mount `m-1`.
    ann: String,
    other: String,
    /// Internal groups; `h` is a member of `g`.
    g: String,
    h: String,
    k: String,
    /// External groups; the mount `m-1` calls the first one `dev`.
    x: String,
    y: String,
}

fn log_in(book: &Book<'_>, name: &str, groups: &[&str]) -> Result<String, KernelError> {
    let alias = AliasOf { mount_accessor: "m-1", is_local: false, name };
    let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
    Ok(book.log_in(alias, &Metadata::new(), &groups)?.id)
}

fn save(book: &Book<'_>, group: &GroupRecord) -> Result<(), KernelError> {
    book.save_group(group)?;
    book.touch(&group.id, |_| {})
}

fn put_below(book: &Book<'_>, id: &str, member: &str) -> Result<(), KernelError> {
    let mut group = book.group(id)?.unwrap();
    let members = group.member_group_ids.iter().cloned().chain([member.to_owned()]).collect();
    book.set_member_groups(&mut group, members)?;
    save(book, &group)
}

fn put_into(book: &Book<'_>, id: &str, entity: &str) -> Result<(), KernelError> {
    let (joined, left) = book.set_members(id, &BTreeSet::from([entity.to_owned()]))?;
    book.touch(id, |tally| tally.members = tally.members + joined - left)
}

fn call(book: &Book<'_>, id: &str, name: &str) -> Result<(), KernelError> {
    let mut group = book.group(id)?.unwrap();
    book.set_group_alias(&mut group, book.new_alias(name, "m-1", false)?)?;
    save(book, &group)
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let kernel = &rig.kernel;
        let made = rig.commit(|tx| {
            let book = kernel.book(tx, "root");
            let (ann, other) = (log_in(&book, "ann", &[])?, log_in(&book, "other", &[])?);
            let kinds = [GroupKind::Internal; 3].into_iter().chain([GroupKind::External; 2]);
            let groups = kinds.map(|kind| {
                let group = book.new_group("", kind)?;
                save(&book, &group)?;
                Ok(group.id)
            });
            let groups: Vec<String> = groups.collect::<Result<_, KernelError>>()?;
            put_below(&book, &groups[0], &groups[1])?;
            call(&book, &groups[3], "dev")?;
            Ok((ann, other, groups))
        });
        let (ann, other, groups) = made.await.unwrap();
        let [g, h, k, x, y] = groups.try_into().unwrap();
        Self { rig, ann, other, g, h, k, x, y }
    }
}

type Racer = fn(&Scene, &Book<'_>) -> Result<(), KernelError>;

/// Both begin before either commits. Only the first commits, whichever that is.
async fn check(name: &str, left: Racer, right: Racer) {
    for (first, second) in [(left, right), (right, left)] {
        let scene = Scene::new().await;
        let kernel = &scene.rig.kernel;
        let txs = [first, second].map(|racer| {
            let tx = kernel.store.begin(Mode::ReadWrite);
            racer(&scene, &kernel.book(&tx, "root")).unwrap_or_else(|err| panic!("{name}: {err}"));
            tx
        });
        let mut committed = Vec::new();
        for tx in txs {
            match kernel.store.commit(tx).await {
                Ok(_) => committed.push(true),
                Err(err) if err.is_conflict() => committed.push(false),
                Err(err) => panic!("{name}: {err}"),
            }
        }
        assert_eq!(committed, [true, false], "{name}");
        check_agreement(&scene.rig.view(), &scene.rig);
    }
}

#[tokio::test]
async fn of_two_that_do_not_go_together_one_commits() {
    let leave_group: Racer = |scene, book| book.delete_group(book.group(&scene.g)?.unwrap());
    let join: Racer = |scene, book| put_into(book, &scene.g, &scene.ann);
    let remove: Racer = |scene, book| book.delete_entity(&book.entity(&scene.ann)?.unwrap());
    let log_in_dev: Racer = |_, book| log_in(book, "ann", &["dev"]).map(drop);
    check("join and remove the group", join, leave_group).await;
    check("join and remove the entity", join, remove).await;
    check("log in and remove the entity", log_in_dev, remove).await;
    check("log in and remove the group", log_in_dev, |scene, book| {
        book.delete_group(book.group(&scene.x)?.unwrap())
    })
    .await;
    check("join and merge away", join, |scene, book| {
        let alias = book.entity(&scene.ann)?.unwrap().aliases[0].id.clone();
        book.merge(&Merge {
            into: scene.other.clone(),
            from: vec![scene.ann.clone()],
            kept_alias_ids: BTreeSet::from([alias]),
        })
    })
    .await;
    check(
        "a circle of three",
        |scene, book| put_below(book, &scene.h, &scene.k),
        |scene, book| put_below(book, &scene.k, &scene.g),
    )
    .await;
    check("put below and remove", |scene, book| put_below(book, &scene.k, &scene.g), leave_group).await;
}

#[tokio::test]
async fn of_two_that_make_the_same_one_commits() {
    let make: Racer = |_, book| book.new_entity("new").map(drop);
    check("two entities of one name", make, make).await;
    let enter: Racer = |_, book| log_in(book, "new", &[]).map(drop);
    check("two first logins", enter, enter).await;
    check(
        "two groups of one alias",
        |scene, book| call(book, &scene.x, "ops"),
        |scene, book| call(book, &scene.y, "ops"),
    )
    .await;
    let group: Racer = |_, book| save(book, &book.new_group("new", GroupKind::Internal)?);
    check("two groups of one name", group, group).await;
}

/// As clients meet it: whoever loses runs again, and all are the same somebody.
#[tokio::test]
async fn first_logins_at_once_make_one_entity() {
    let world = World::new().await;
    let logins = join_all((0..16).map(|_| world.login("people", "ann", json!({})))).await;
    let entities: BTreeSet<&str> = logins.iter().map(|(_, entity)| entity.as_str()).collect();
    assert_eq!(entities.len(), 1);
    assert_eq!(world.list("entity/id").await["keys"].as_array().unwrap().len(), 1);
}
