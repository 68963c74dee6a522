//! Records and pointers agree, whatever happens in whatever order, and whoever else writes at the same time.

use std::collections::{BTreeMap, BTreeSet};

use arca_barrier::Class;
use arca_engine_api::Page;
use proptest::prelude::*;

use super::*;
use crate::identity::login::AliasOf;
use crate::identity::merge::Merge;
use crate::identity::record::{CLASSES, EntityRecord, GroupKind, Paths, class_of};
use crate::identity::{Book, DELETE_MANY_MAX};
use crate::tx::{Mode, Tx};

/// What is stored below `identity/`, worked out from the entities and groups alone.
fn implied(book: &Book<'_>) -> BTreeSet<(Class, String)> {
    let paths = Paths("root");
    let mut want = BTreeSet::new();
    for id in book.entity_ids(&Page::default()).unwrap() {
        let entity = book.entity(&id).unwrap().unwrap();
        let mut add = |class, path| assert!(want.insert((class, path)), "two of one");
        add(Class::Replicated, paths.entity(&id));
        add(Class::Replicated, paths.entity_name(&entity.name));
        for merged in &entity.merged_entity_ids {
            add(Class::Replicated, paths.merged(merged));
        }
        if entity.aliases.iter().any(|alias| alias.is_local) {
            let holders = entity.merged_entity_ids.iter().chain([&id]);
            let held = holders.map(|holder| paths.local_aliases(holder));
            let held: Vec<_> =
                held.filter(|path| book.tx.peek(Class::Local, path).unwrap().is_some()).collect();
            assert!(!held.is_empty(), "aliases of nowhere");
            held.into_iter().for_each(|path| add(Class::Local, path));
        }
        let mounts: BTreeSet<&str> =
            entity.aliases.iter().map(|alias| alias.mount_accessor.as_str()).collect();
        assert_eq!(mounts.len(), entity.aliases.len(), "two aliases of one mount");
        for alias in &entity.aliases {
            let class = class_of(alias.is_local);
            add(class, paths.alias_id(&alias.id));
            add(class, paths.alias_name(&alias.mount_accessor, &alias.name));
            let found = book.entity_by_alias(&alias.mount_accessor, &alias.name.to_uppercase()).unwrap();
            assert_eq!(found.unwrap().id, id);
        }
        assert_eq!(book.entity_by_name(&entity.name.to_uppercase()).unwrap().unwrap().id, id);
        for group in &entity.group_ids {
            add(Class::Replicated, paths.member(group, &id));
            assert!(book.group(group).unwrap().is_some(), "a member of nothing");
        }
        for merged in &entity.merged_entity_ids {
            assert_eq!(book.entity_of_token(merged).unwrap().unwrap().id, id);
        }
    }
    for id in book.group_ids(&Page::default()).unwrap() {
        let group = book.group(&id).unwrap().unwrap();
        want.insert((Class::Replicated, paths.group(&id)));
        want.insert((Class::Replicated, paths.group_name(&group.name)));
        want.insert((Class::Replicated, paths.tally(&id)));
        if let Some(alias) = &group.alias {
            want.insert((Class::Replicated, paths.group_alias_id(&alias.id)));
            want.insert((Class::Replicated, paths.group_alias_name(&alias.mount_accessor, &alias.name)));
        }
        let members = book.members(&id, &Page::default()).unwrap();
        assert_eq!(book.tally(&id).unwrap().members, members.len() as u64);
        for parent in &group.parent_ids {
            assert!(book.group(parent).unwrap().unwrap().member_group_ids.contains(&id));
        }
        for member in &group.member_group_ids {
            assert!(book.group(member).unwrap().unwrap().parent_ids.contains(&id));
        }
        assert!(!is_below_itself(book, &id), "a circle");
    }
    want
}

fn is_below_itself(book: &Book<'_>, id: &str) -> bool {
    let mut open = vec![id.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        for below in book.group(&next).unwrap().unwrap().member_group_ids {
            if below == id {
                return true;
            }
            if seen.insert(below.clone()) {
                open.push(below);
            }
        }
    }
    false
}

#[track_caller]
pub(super) fn check_agreement(tx: &Tx, rig: &Rig) {
    let want = implied(&rig.kernel.book(tx, "root"));
    let mut found = BTreeSet::new();
    for class in CLASSES {
        let paths = tx.some_below(class, "root/identity/", usize::MAX).unwrap();
        found.extend(paths.into_iter().map(|path| (class, path)));
    }
    found.retain(|(class, path)| {
        want.contains(&(*class, path.clone())) || !is_of_a_merge_elsewhere(tx, rig, *class, path)
    });
    assert_eq!(found, want);
}

/// Whether it leads to an alias of a local mount whose entity was merged elsewhere, into one that has another alias of that
/// mount.
fn is_of_a_merge_elsewhere(tx: &Tx, rig: &Rig, class: Class, path: &str) -> bool {
    if class != Class::Local || !path.starts_with("root/identity/alias/") {
        return false;
    }
    let pointer = rig.kernel.book(tx, "root").pointer(class, path).unwrap().unwrap();
    rig.kernel.book(tx, "root").entity(&pointer).unwrap().is_none()
}

const NAMES: [&str; 4] = ["ann", "Ann", "ben", "cay"];
const MOUNTS: [(&str, bool); 3] = [("m-1", false), ("m-2", false), ("m-3", true)];

#[derive(Clone, Debug)]
enum Step {
    LogIn { mount: usize, name: usize, groups: Vec<usize> },
    Make { name: usize },
    Rename { entity: usize, name: usize },
    Remove { entity: usize },
    Merge { into: usize, from: usize, keeps_own: bool },
    MergeElsewhere { into: usize, from: usize, keeps_own: bool },
    TakeAlias { entity: usize },
    MakeGroup { name: usize, is_external: bool },
    RenameGroup { group: usize, name: usize },
    SetMembers { group: usize, entities: Vec<usize> },
    SetGroups { group: usize, groups: Vec<usize> },
    SetAlias { group: usize, mount: usize, name: usize },
    ClearAlias { group: usize },
    RemoveGroup { group: usize },
    ForgetMount { mount: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let few = || prop::collection::vec(0..6_usize, 0..4);
    let (name, mount, at) = (0..NAMES.len(), 0..MOUNTS.len(), 0..6_usize);
    prop_oneof![
        4 => (mount.clone(), name.clone(), prop::collection::vec(0..NAMES.len(), 0..3))
            .prop_map(|(mount, name, groups)| Step::LogIn { mount, name, groups }),
        1 => name.clone().prop_map(|name| Step::Make { name }),
        1 => (at.clone(), name.clone()).prop_map(|(entity, name)| Step::Rename { entity, name }),
        1 => at.clone().prop_map(|entity| Step::Remove { entity }),
        2 => (at.clone(), at.clone(), any::<bool>())
            .prop_map(|(into, from, keeps_own)| Step::Merge { into, from, keeps_own }),
        2 => (at.clone(), at.clone(), any::<bool>())
            .prop_map(|(into, from, keeps_own)| Step::MergeElsewhere { into, from, keeps_own }),
        1 => at.clone().prop_map(|entity| Step::TakeAlias { entity }),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, is_external)| Step::MakeGroup { name, is_external }),
        1 => (at.clone(), name.clone()).prop_map(|(group, name)| Step::RenameGroup { group, name }),
        2 => (at.clone(), few()).prop_map(|(group, entities)| Step::SetMembers { group, entities }),
        3 => (at.clone(), few()).prop_map(|(group, groups)| Step::SetGroups { group, groups }),
        2 => (at.clone(), 0..2_usize, name).prop_map(|(group, mount, name)| Step::SetAlias { group, mount, name }),
        1 => at.clone().prop_map(|group| Step::ClearAlias { group }),
        1 => at.prop_map(|group| Step::RemoveGroup { group }),
        1 => mount.prop_map(|mount| Step::ForgetMount { mount }),
    ]
}

fn nth(ids: &[String], at: usize) -> String {
    if ids.is_empty() { "nobody".to_owned() } else { ids[at % ids.len()].clone() }
}

fn gone() -> KernelError {
    KernelError::invalid("gone")
}

/// Does a step; refusals are fine, the transaction is dropped then.
fn act(book: &Book<'_>, step: &Step) -> Result<(), KernelError> {
    let ids = book.entity_ids(&Page::default())?;
    let entity = |at: &usize| book.entity(&nth(&ids, *at))?.ok_or_else(gone);
    match step {
        Step::LogIn { mount, name, groups } => {
            let (mount_accessor, is_local) = MOUNTS[*mount];
            let alias = AliasOf { mount_accessor, is_local, name: NAMES[*name] };
            let said: Vec<String> = groups.iter().map(|at| NAMES[*at].to_owned()).collect();
            let metadata = BTreeMap::from([("n".to_owned(), name.to_string())]);
            book.log_in(alias, &metadata, &said).map(drop)
        }
        Step::Make { name } => book.new_entity(NAMES[*name]).map(drop),
        Step::Rename { entity: at, name } => {
            let mut entity = entity(at)?;
            book.name_entity(&mut entity, NAMES[*name])?;
            book.save_entity(&entity)
        }
        Step::Remove { entity: at } => book.delete_entity(&entity(at)?),
        Step::Merge { into, from, keeps_own } => {
            let (into, from) = (entity(into)?, entity(from)?);
            let keeper: &EntityRecord = if *keeps_own { &into } else { &from };
            let kept_alias_ids = keeper.aliases.iter().map(|alias| alias.id.clone()).collect();
            book.merge(&Merge { into: into.id, from: vec![from.id], kept_alias_ids })
        }
        Step::MergeElsewhere { into, from, keeps_own } => {
            let merge = Step::Merge { into: *into, from: *from, keeps_own: *keeps_own };
            without_what_is_local(book, || act(book, &merge))
        }
        Step::TakeAlias { entity: at } => {
            let mut entity = entity(at)?;
            let id = entity.aliases.first().ok_or_else(gone)?.id.clone();
            book.take_alias(&mut entity, &id)?;
            book.save_entity(&entity)
        }
        Step::ForgetMount { mount } => {
            book.forget_aliases(MOUNTS[*mount].0, DELETE_MANY_MAX)?;
            book.forget_group_aliases(MOUNTS[*mount].0, DELETE_MANY_MAX).map(drop)
        }
        of_group => act_on_group(book, of_group, &ids),
    }
}

/// Does something as another cluster would, which has nothing that is local here, and brings over what is shared of it.
fn without_what_is_local(
    book: &Book<'_>,
    work: impl FnOnce() -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let mut kept = Vec::new();
    for path in book.tx.some_below(Class::Local, "root/identity/", usize::MAX)? {
        kept.extend(book.tx.get(Class::Local, &path)?.map(|value| (path.clone(), value)));
        book.tx.delete(Class::Local, &path)?;
    }
    work()?;
    kept.into_iter().try_for_each(|(path, value)| Ok(book.tx.put(Class::Local, &path, value)?))
}

fn act_on_group(book: &Book<'_>, step: &Step, entities: &[String]) -> Result<(), KernelError> {
    let all = book.group_ids(&Page::default())?;
    let ids = |from: &[String], some: &[usize]| some.iter().map(|at| nth(from, *at)).collect::<BTreeSet<_>>();
    let group = |at: &usize| book.group(&nth(&all, *at))?.ok_or_else(gone);
    match step {
        Step::MakeGroup { name, is_external } => {
            let kind = if *is_external { GroupKind::External } else { GroupKind::Internal };
            let group = book.new_group(NAMES[*name], kind)?;
            book.save_group(&group)?;
            book.touch(&group.id, |_| {})
        }
        Step::RenameGroup { group: at, name } => {
            let mut group = group(at)?;
            book.name_group(&mut group, NAMES[*name])?;
            book.save_group(&group)
        }
        Step::SetMembers { group: at, entities: some } => {
            let group = group(at)?;
            let (joined, left) = book.set_members(&group.id, &ids(entities, some))?;
            book.touch(&group.id, |tally| tally.members = tally.members + joined - left)
        }
        Step::SetGroups { group: at, groups: some } => {
            let mut group = group(at)?;
            book.set_member_groups(&mut group, ids(&all, some))?;
            book.save_group(&group)
        }
        Step::SetAlias { group: at, mount, name } => {
            let mut group = group(at)?;
            let alias = book.new_alias(NAMES[*name], MOUNTS[*mount].0, false)?;
            book.set_group_alias(&mut group, alias)?;
            book.save_group(&group)
        }
        Step::ClearAlias { group: at } => {
            let mut group = group(at)?;
            book.clear_group_alias(&mut group)?;
            book.save_group(&group)
        }
        Step::RemoveGroup { group: at } => book.delete_group(group(at)?),
        other => panic!("no step of a group: {other:?}"),
    }
}

async fn run(rig: &Rig, steps: &[Step]) {
    for step in steps {
        let tx = rig.kernel.store.begin(Mode::ReadWrite);
        if act(&rig.kernel.book(&tx, "root"), step).is_ok() {
            rig.kernel.store.commit(tx).await.unwrap();
        }
    }
    check_agreement(&rig.view(), rig);
}

/// Two steps at the same time: both see the state before, and of two that do not go together one is refused.
async fn run_pairs(rig: &Rig, pairs: &[(Step, Step)]) {
    for (left, right) in pairs {
        let (first, second) =
            (rig.kernel.store.begin(Mode::ReadWrite), rig.kernel.store.begin(Mode::ReadWrite));
        let did = [(first, left), (second, right)]
            .map(|(tx, step)| act(&rig.kernel.book(&tx, "root"), step).is_ok().then_some(tx));
        for tx in did.into_iter().flatten() {
            match rig.kernel.store.commit(tx).await {
                Err(err) if !err.is_conflict() => panic!("{err}"),
                _ => {}
            }
        }
        check_agreement(&rig.view(), rig);
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn indexes_agree_with_records(steps in prop::collection::vec(step(), 1..60)) {
        block_on(async { run(&Rig::new().await, &steps).await });
    }

    #[test]
    fn indexes_agree_when_two_write_at_once(
        before in prop::collection::vec(step(), 0..20),
        pairs in prop::collection::vec((step(), step()), 1..20),
    ) {
        block_on(async {
            let rig = Rig::new().await;
            run(&rig, &before).await;
            run_pairs(&rig, &pairs).await;
        });
    }
}
