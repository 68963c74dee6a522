//! The broker with real files and a device that blocks: fail-closed, never hanging, chains that hold.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::super::chain::{Chain, Report, Start, verify};
use super::super::device::Torn;
use super::super::line::tests::{NO_DATA, request, style};
use super::*;

#[derive(Debug)]
struct Counting;

impl Entropy for Counting {
    fn fill(&self, dest: &mut [u8]) -> Result<(), arca_engine_api::EntropyError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        dest.iter_mut().rev().zip(next.iter().rev()).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

fn broker() -> AuditBroker {
    AuditBroker::new(AuditSettings::default(), Arc::new(Counting))
}

fn file_record(path: &Path) -> DeviceRecord {
    DeviceRecord {
        kind: "file".to_owned(),
        description: String::new(),
        options: BTreeMap::from([("file_path".to_owned(), path.to_str().unwrap().to_owned())]),
        is_local: false,
        is_declared: false,
        salt: super::super::SaltText::generate(&Counting).unwrap(),
    }
}

/// Puts devices in place as a refresh would.
fn install(broker: &AuditBroker, records: Vec<(&str, DeviceRecord)>) {
    let slots =
        records.into_iter().map(|(path, record)| Arc::new(broker.slot(path.to_owned(), record))).collect();
    broker.current.store(Arc::new(Current { slots, headers: Headers::new() }));
}

fn install_sink(broker: &AuditBroker, sinks: Vec<Box<dyn Sink>>) {
    let slot = |sink| {
        let timeout = Duration::from_millis(50);
        let device = Device::start("d/", style(), timeout, sink, broker.make_id().unwrap()).unwrap();
        Arc::new(Slot { path: "d/".to_owned(), record: file_record(Path::new("/x")), device: Some(device) })
    };
    broker
        .current
        .store(Arc::new(Current { slots: sinks.into_iter().map(slot).collect(), headers: Headers::new() }));
}

fn report(path: &Path) -> Report {
    verify(BufReader::new(std::fs::File::open(path).unwrap())).unwrap()
}

/// Writes until told to block; then until told to go on.
struct Gate {
    opened: mpsc::Receiver<()>,
    written: mpsc::Sender<String>,
}

impl Sink for Gate {
    fn prepare(&mut self) -> std::io::Result<bool> {
        Ok(false)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        Err(Start::New)
    }

    fn write(&mut self, lines: &str) -> Result<(), Torn> {
        self.opened.recv().map_err(|_| Torn::No(std::io::ErrorKind::BrokenPipe.into()))?;
        self.written.send(lines.to_owned()).map_err(|_| Torn::No(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Refuses everything.
struct Broken;

impl Sink for Broken {
    fn prepare(&mut self) -> std::io::Result<bool> {
        Ok(false)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        Err(Start::New)
    }

    fn write(&mut self, _lines: &str) -> Result<(), Torn> {
        Err(Torn::Maybe(std::io::ErrorKind::StorageFull.into()))
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_refused(outcome: Result<(), KernelError>) -> bool {
    matches!(outcome, Err(KernelError::AuditFailed))
}

#[tokio::test]
async fn no_device_lets_everything_pass() {
    assert!(broker().request(&request("a", &NO_DATA)).await.is_ok());
}

#[tokio::test]
async fn one_device_that_writes_is_enough_and_none_is_not() {
    let broker = broker();
    install_sink(&broker, vec![Box::new(Broken)]);
    assert!(is_refused(broker.request(&request("a", &NO_DATA)).await));
    install_sink(&broker, vec![Box::new(Broken), Box::new(Discard)]);
    assert!(broker.request(&request("a", &NO_DATA)).await.is_ok());
    let record = request("a", &NO_DATA);
    install_sink(&broker, vec![Box::new(Broken)]);
    assert!(is_refused(broker.response(&ResponseRecord::to(&record, UnixMillis(0))).await));
}

#[tokio::test]
async fn a_device_whose_path_is_gone_refuses_rather_than_vanishes() {
    let broker = broker();
    install(&broker, vec![("f/", file_record(Path::new("/nowhere/at/all")))]);
    assert!(!broker.is_empty());
    assert!(is_refused(broker.request(&request("a", &NO_DATA)).await));
}

#[tokio::test]
async fn a_device_writes_again_once_its_folder_is_back() {
    let mut broker = broker();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    install(&broker, vec![("f/", file_record(&folder.join("audit.log")))]);
    assert!(is_refused(broker.request(&request("a", &NO_DATA)).await));
    std::fs::create_dir(&folder).unwrap();
    assert!(is_refused(broker.request(&request("a", &NO_DATA)).await), "tried a moment ago");
    broker.retry_every = Duration::ZERO;
    assert!(broker.request(&request("a", &NO_DATA)).await.is_ok());
    assert!(folder.join("audit.log").exists());
}

#[tokio::test]
async fn a_blocking_device_hangs_nobody() {
    let broker = broker();
    let (open, opened) = mpsc::channel();
    let (written, lines) = mpsc::channel();
    install_sink(&broker, vec![Box::new(Gate { opened, written })]);
    let record = request("a", &NO_DATA);
    // The first waits for the timeout, the next are refused at once; all stay queued.
    for _ in 0..3 {
        assert!(is_refused(broker.request(&record).await));
    }
    open.send(()).unwrap();
    open.send(()).unwrap();
    let mut seen = lines.recv().unwrap();
    while seen.lines().count() < 3 {
        seen += &lines.recv().unwrap();
    }
    assert_eq!(verify(seen.as_bytes()).unwrap().lines, 3);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let broker = broker();
    let (_open, opened) = mpsc::channel();
    let (written, _lines) = mpsc::channel();
    install_sink(&broker, vec![Box::new(Gate { opened, written })]);
    let current = broker.current.load_full();
    let device = current.slots[0].device.as_ref().unwrap();
    let taken = (0..20_000).take_while(|_| device.offer("{".to_owned()).is_some()).count();
    assert!((8_192..=16_384).contains(&taken), "{taken}");
}

#[tokio::test]
async fn many_requests_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let broker = broker();
    install(&broker, vec![("f/", file_record(&path))]);
    let record = request("a", &NO_DATA);
    let outcomes = join_all((0..200).map(|_| broker.request(&record))).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    let found = report(&path);
    assert_eq!((found.lines, found.chains.len()), (200, 1));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Waits for the writer of a device that was dropped to let go of its file.
fn wait_for_lock(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.lock().unwrap();
}

#[tokio::test]
async fn a_chain_goes_on_after_a_restart_and_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
    let record = request("a", &NO_DATA);
    let broker = broker();
    for _ in 0..2 {
        install(&broker, vec![("f/", file_record(&path))]);
        broker.request(&record).await.unwrap();
        install(&broker, Vec::new());
        wait_for_lock(&path);
    }
    let found = report(&path);
    assert_eq!((found.lines, found.chains.len()), (2, 1));
    install(&broker, vec![("f/", file_record(&path))]);
    broker.request(&record).await.unwrap();
    std::fs::rename(&path, &moved).unwrap();
    broker.reopen();
    broker.request(&record).await.unwrap();
    let (old, new) = (report(&moved), report(&path));
    assert_eq!((old.chains[0].last_seq, new.chains[0].first_seq), (3, 4));
    // Removed without a word: noticed with the next line.
    std::fs::remove_file(&path).unwrap();
    broker.request(&record).await.unwrap();
    assert_eq!(report(&path).chains[0].first_seq, 5);
}

#[tokio::test]
async fn a_torn_or_foreign_end_starts_a_marked_chain() {
    let dir = tempfile::tempdir().unwrap();
    let record = request("a", &NO_DATA);
    for (content, torn) in [("{\"time\":\"x", vec![1]), ("{\"time\":\"x\"}\n", vec![1])] {
        let path = dir.path().join(format!("{}.log", content.len()));
        std::fs::write(&path, content).unwrap();
        let broker = broker();
        install(&broker, vec![("f/", file_record(&path))]);
        broker.request(&record).await.unwrap();
        let found = report(&path);
        assert_eq!((found.lines, found.torn_lines, found.chains[0].start), (2, torn, Some(Start::Torn)));
    }
}

#[tokio::test]
async fn two_writers_of_one_file_keep_two_chains() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let record = request("a", &NO_DATA);
    let (one, two) = (broker(), broker());
    for broker in [&one, &two] {
        install(broker, vec![("f/", file_record(&path))]);
        broker.request(&record).await.unwrap();
    }
    for broker in [&two, &one, &two] {
        broker.request(&record).await.unwrap();
    }
    let found = report(&path);
    let chains: Vec<_> = found.chains.iter().map(|chain| (chain.start, chain.last_seq)).collect();
    assert_eq!(chains, [(Some(Start::New), 2), (Some(Start::Shared), 3)]);
}

/// CVE-2025-6000: an existing program is never appended to, and a pipe is never waited for.
#[tokio::test]
async fn cve_2025_6000_programs_and_folders_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for path in [&program, &dir.path().join(".")] {
        let outcome = broker().test("f/", &file_record(path), UnixMillis(0), "id").await;
        assert!(outcome.is_err(), "{}", path.display());
    }
    assert_eq!(std::fs::read(&program).unwrap(), b"#!/bin/sh\n");
}

#[tokio::test]
async fn enabling_writes_a_test_line_and_hashes_match_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (broker, record) = (broker(), file_record(&path));
    broker.test("f/", &record, UnixMillis(0), "id").await.unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("sys/audit/test"));
    wait_for_lock(&path);
    install(&broker, vec![("f/", record)]);
    let data = arca_engine_api::Map::from_iter([("k".to_owned(), "canary".into())]);
    broker.request(&request("a", &data)).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&broker.hash("f/", "canary").unwrap()) && !text.contains("canary"));
    assert_eq!(broker.hash("g/", "canary"), None);
    assert_eq!(report(&path).chains.len(), 1);
}
