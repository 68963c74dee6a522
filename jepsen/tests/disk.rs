//! The failing disk as programs see it: mounted, used through the system's calls, its user gone, its power lost.
//! Needs root and `/dev/fuse`; without them it says so and tests nothing, since the tree behind the mount is tested
//! apart (`src/disk/tree_tests.rs`).

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use arca_jepsen::disk::{Disk, Effect, Files, Loss, Operation, Trouble};
use tempfile::TempDir;

fn mounted() -> Option<(Disk, PathBuf, TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let can_mount = rustix::process::geteuid().is_root()
        && File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !can_mount {
        eprintln!("not tested: it needs root and /dev/fuse");
        return None;
    }
    let mount = dir.path().join("mount");
    let disk = Disk::mount(&dir.path().join("backing"), &mount).unwrap();
    Some((disk, mount, dir))
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn what_is_synced_is_kept_and_the_rest_is_lost() {
    let Some((disk, mount, _dir)) = mounted() else { return };
    let path = mount.join("a");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_data().unwrap();
    sync_dir(&mount);
    file.write_all(b", and more").unwrap();
    fs::write(mount.join("b"), "never synced").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "synced, and more");
    drop(file);
    assert_eq!(disk.unsynced(), (2, 1));
    let lost = disk.lose_power(Loss::All).unwrap();
    assert_eq!((lost.files, lost.names), (2, 1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "synced");
    assert!(!mount.join("b").exists());
}

#[test]
fn it_does_what_a_database_asks_of_a_file_system() {
    let Some((_disk, mount, _dir)) = mounted() else { return };
    fs::create_dir_all(mount.join("db/one")).unwrap();
    let table = mount.join("db/one/1.sst");
    let big = vec![7_u8; 3 << 20];
    fs::write(&table, &big).unwrap();
    fs::hard_link(&table, mount.join("db/linked")).unwrap();
    fs::write(mount.join("db/CURRENT.tmp"), "1").unwrap();
    fs::write(mount.join("db/CURRENT"), "0").unwrap();
    fs::rename(mount.join("db/CURRENT.tmp"), mount.join("db/CURRENT")).unwrap();
    assert_eq!(fs::read_to_string(mount.join("db/CURRENT")).unwrap(), "1");
    fs::remove_file(&table).unwrap();
    assert!(fs::read(mount.join("db/linked")).unwrap() == big);
    assert!(fs::remove_dir(mount.join("db")).is_err());
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(mount.join("lock")).unwrap();
    file.lock().unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 4_096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4_096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4_096);
    // Names removed while a directory is read leave no others out.
    for number in 0..500 {
        fs::write(mount.join("db/one").join(number.to_string()), "x").unwrap();
    }
    fs::remove_dir_all(mount.join("db")).unwrap();
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 1);
}

#[test]
fn troubles_reach_the_program() {
    let Some((disk, mount, _dir)) = mounted() else { return };
    let path = mount.join("a");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(&[0; 100], 0).unwrap();
    let trouble = |operation, effect| Trouble { operation, files: Files::Any, effect, times: Some(1) };
    disk.trouble(trouble(Operation::Sync, Effect::Broken));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    disk.trouble(trouble(Operation::Write, Effect::Full));
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    file.sync_data().unwrap();
    disk.flip_bit(Files::Any, arca_jepsen::dice::Dice::new(1));
    let mut bytes = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    disk.heal();
    assert_eq!(fs::read(&path).unwrap(), [0; 100]);
}
