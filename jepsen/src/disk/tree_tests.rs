//! What is lost and what is kept, as scripts over one tree.

use super::super::troubles::{Effect, Files, Trouble};
use super::*;
use crate::dice::Dice;

struct Bench {
    tree: Tree,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(names: Names) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { tree: Tree::new(dir.path(), names).unwrap(), dir }
    }

    fn find(&self, path: &str) -> (u64, String) {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut id = ROOT;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            id = self.tree.lookup(id, OsStr::new(part)).unwrap().0;
        }
        (id, name.to_owned())
    }

    fn open(&self, path: &str) -> u64 {
        let (parent, name) = self.find(path);
        let id =
            if name.is_empty() { parent } else { self.tree.lookup(parent, OsStr::new(&name)).unwrap().0 };
        if self.tree.metadata(id).unwrap().is_dir() {
            self.tree.open_directory(id).unwrap()
        } else {
            self.tree.open_file(id).unwrap()
        }
    }

    /// One line of a script.
    fn run(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let (parent, name) = self.find(words.get(1).copied().unwrap_or_default());
        let name = OsStr::new(&name);
        match words.as_slice() {
            ["make", _] => drop(self.tree.create(parent, name, 0o600).unwrap()),
            ["write", path, at, text] => {
                self.tree.write(self.open(path), at.parse().unwrap(), text.as_bytes()).unwrap();
            }
            ["cut", path, len] => {
                let Open::File { id, .. } = &*self.tree.opened(self.open(path)).unwrap() else {
                    panic!("{path}")
                };
                self.tree.set_len(*id, len.parse().unwrap()).unwrap();
            }
            ["sync", path] => self.tree.sync(self.open(path)).unwrap(),
            ["mkdir", _] => drop(self.tree.make_directory(parent, name, 0o700).unwrap()),
            ["rm", _] => self.tree.remove_file(parent, name).unwrap(),
            ["rmdir", _] => self.tree.remove_directory(parent, name).unwrap(),
            ["mv", _, to] => {
                let (new, to) = self.find(to);
                self.tree.rename((parent, name), (new, OsStr::new(&to)), true).unwrap();
            }
            ["ln", _, to] => {
                let id = self.tree.lookup(parent, name).unwrap().0;
                let (new, to) = self.find(to);
                self.tree.link(id, new, OsStr::new(&to)).unwrap();
            }
            ["keep"] => self.tree.keep(),
            _ => panic!("{line}"),
        }
    }

    /// Everything in the tree, sorted.
    fn content(&self) -> String {
        let mut found = Vec::new();
        let base = self.dir.path().join("tree");
        let mut dirs = vec![base.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&base).unwrap().display().to_string();
                if path.is_dir() {
                    found.push(format!("{name}/"));
                    dirs.push(path);
                } else {
                    found.push(format!(
                        "{name}={}",
                        String::from_utf8(std::fs::read(&path).unwrap()).unwrap()
                    ));
                }
            }
        }
        found.sort();
        found.join(" ")
    }
}

/// Runs a script, loses power, and looks at what is left.
#[track_caller]
fn check(script: &str, expected: &str) {
    check_in(Names::Strict, script, expected);
}

#[track_caller]
fn check_in(names: Names, script: &str, expected: &str) {
    let bench = Bench::new(names);
    script.split("; ").for_each(|line| bench.run(line));
    bench.tree.lose(Loss::All).unwrap();
    assert_eq!(bench.content(), expected, "{script}");
    assert_eq!(bench.tree.unsynced(), (0, 0));
    // What is left is durable.
    bench.tree.lose(Loss::All).unwrap();
    assert_eq!(bench.content(), expected, "{script}, twice");
}

#[test]
fn a_write_lasts_once_its_file_is_synced() {
    check("make a; keep; write a 0 hello", "a=");
    check("make a; keep; write a 0 hello; sync a", "a=hello");
    check("make a; keep; write a 0 hello; sync a; write a 1 E; write a 5 !!", "a=hello");
    check("make a; make b; keep; write a 0 x; write b 0 y; sync b", "a= b=y");
}

#[test]
fn a_cut_lasts_once_its_file_is_synced() {
    check("make a; write a 0 hello; keep; cut a 2", "a=hello");
    check("make a; write a 0 hello; keep; cut a 2; write a 2 LP", "a=hello");
    check("make a; write a 0 hello; keep; cut a 2; sync a", "a=he");
    check("make a; write a 0 hello; keep; cut a 0; write a 0 longer-than-before", "a=hello");
}

#[test]
fn pages_are_saved_apart() {
    let bench = Bench::new(Names::Strict);
    bench.run("make a");
    bench.run(&format!("write a 0 {}", "x".repeat(10_000)));
    bench.run("keep");
    bench.run("write a 4090 yyyyyyyyyyyy");
    bench.run("write a 9999 zz");
    assert_eq!(bench.tree.lose(Loss::All).unwrap(), Lost { files: 1, pages: 4, names: 0 });
    assert_eq!(bench.content(), format!("a={}", "x".repeat(10_000)));
}

#[test]
fn a_name_lasts_once_its_directory_is_synced() {
    check("make a; write a 0 x; sync a", "");
    check("make a; write a 0 x; sync a; sync /", "a=x");
    check("make a; sync /; write a 0 x", "a=");
    check("make a; keep; rm a", "a=");
    check("make a; keep; rm a; sync /", "");
    check("make a; keep; mv a b", "a=");
    check("make a; keep; mv a b; sync /", "b=");
    check("make a; write a 0 1; make b; write b 0 2; keep; mv a b", "a=1 b=2");
    check("make a; write a 0 1; make b; write b 0 2; keep; mv a b; sync /", "b=1");
    check("make a; keep; ln a b", "a=");
    check("make a; keep; ln a b; rm a; sync /", "b=");
    check("make a; keep; ln a b; rm a", "a=");
}

#[test]
fn directories_are_names_too() {
    check("mkdir d; make d/a; sync d", "");
    check("mkdir d; sync /; make d/a", "d/");
    check("mkdir d; sync /; make d/a; sync d", "d/ d/a=");
    check("mkdir d; keep; rmdir d", "d/");
    check("mkdir d; make d/a; keep; rm d/a; rmdir d", "d/ d/a=");
    check("mkdir d; keep; make d/a; mv d e; sync /", "e/");
    check("mkdir d; keep; make d/a; sync d; mv d e", "d/ d/a=");
    check("mkdir d; mkdir e; make d/a; keep; mv d/a e/a; sync d", "d/ d/a= e/");
    check("mkdir d; mkdir e; make d/a; keep; mv d/a e/a; sync e", "d/ e/ e/a=");
}

#[test]
fn a_journal_keeps_the_names_made_before_a_sync() {
    check_in(Names::Journaled, "make a; make b; write b 0 x; sync b", "a= b=x");
    check_in(Names::Journaled, "make a; sync a; make b; rm a", "a=");
}

#[test]
fn some_loss_keeps_what_was_synced_and_is_the_same_for_the_same_dice() {
    let run = |seed| {
        let bench = Bench::new(Names::Strict);
        bench.run("make a");
        bench.run(&format!("write a 0 {}", "x".repeat(20_000)));
        bench.run("keep");
        bench.run(&format!("write a 8192 {}", "y".repeat(30_000)));
        bench.tree.lose(Loss::Some(Box::new(Dice::new(seed)))).unwrap();
        std::fs::read(bench.dir.path().join("tree/a")).unwrap()
    };
    let all: std::collections::BTreeSet<_> = (0..20).map(run).collect();
    assert!(all.len() > 10, "{}", all.len());
    for bytes in &all {
        assert!(bytes.len() >= 20_000);
        assert!(bytes[..8_192].iter().all(|byte| *byte == b'x'));
        assert!(bytes[8_192..20_000].iter().all(|byte| matches!(byte, b'x' | b'y')));
    }
    assert_eq!(run(5), run(5));
}

fn trouble(operation: Operation, files: Files, effect: Effect, times: Option<u64>) -> Trouble {
    Trouble { operation, files, effect, times }
}

#[test]
fn errors_come_as_often_as_ordered() {
    let bench = Bench::new(Names::Strict);
    bench.run("make a");
    let file = bench.open("a");
    bench.tree.troubles.add(trouble(Operation::Sync, Files::Any, Effect::Broken, Some(1)));
    assert_eq!(bench.tree.sync(file).unwrap_err().raw_os_error(), Some(5));
    bench.tree.sync(file).unwrap();
    bench.tree.troubles.add(trouble(Operation::Write, Files::Any, Effect::Full, None));
    assert_eq!(bench.tree.write(file, 0, b"x").unwrap_err().raw_os_error(), Some(28));
    assert_eq!(bench.tree.write(file, 0, b"x").unwrap_err().raw_os_error(), Some(28));
    assert_eq!(bench.tree.space().unwrap().2, 0);
    bench.tree.read(file, 0, 1).unwrap();
    bench.tree.troubles.heal();
    bench.tree.write(file, 0, b"x").unwrap();
    let hits = bench.tree.troubles.hits();
    assert_eq!((hits.errors, hits.refusals), (1, 3));
}

#[test]
fn a_flipped_bit_stays_until_it_is_overwritten() {
    let bench = Bench::new(Names::Strict);
    "mkdir raft; mkdir raft/log; make raft/log/1; make b".split("; ").for_each(|line| bench.run(line));
    let (file, other) = (bench.open("raft/log/1"), bench.open("b"));
    bench.tree.write(file, 0, &[0; 64]).unwrap();
    bench.tree.write(other, 0, &[0; 64]).unwrap();
    bench.tree.troubles.flip(Files::Log, Dice::new(3));
    assert_eq!(bench.tree.read(other, 0, 64).unwrap(), [0; 64]);
    let first = bench.tree.read(file, 0, 64).unwrap();
    assert_eq!(first.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_eq!(bench.tree.read(file, 0, 64).unwrap(), first);
    bench.tree.write(file, 0, &[0; 64]).unwrap();
    assert_eq!(bench.tree.read(file, 0, 64).unwrap(), [0; 64]);
    assert_eq!(bench.tree.troubles.hits().flips, 2);
}

#[test]
fn a_stalled_operation_goes_on_when_healed() {
    let bench = Bench::new(Names::Strict);
    bench.run("make a");
    let file = bench.open("a");
    bench.tree.troubles.add(trouble(Operation::Sync, Files::Any, Effect::Stall, None));
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| bench.tree.sync(file));
        while bench.tree.troubles.hits().stalls == 0 {
            std::thread::yield_now();
        }
        assert!(!stalled.is_finished());
        bench.tree.troubles.heal();
        stalled.join().unwrap().unwrap();
    });
}
