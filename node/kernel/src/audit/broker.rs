//! The rule of audit: with devices enabled, an entry that none of them wrote stops the request.
//!
//! Without devices an entry costs one atomic load. With several, an entry is offered to all at once and counts as
//! taken when one wrote it; the others' failures are logged. A device that cannot be opened on this node stays in
//! the list, refuses, and is tried again now and then: a broken path never turns into "no devices".

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arca_engine_api::{Entropy, UnixMillis};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::device::{Device, MakeId, Sink};
use super::entry::{RequestRecord, ResponseRecord};
use super::file::{Discard, FileSink, Stdout};
use super::line::{Headers, Style};
use super::options::{DeviceKind, DeviceOptions, FileTarget};
use super::salt::Salt;
use super::socket::Socket;
use super::syslog::Syslog;
use super::table::{self, DeclaredDevice, DeviceRecord};
use crate::KernelError;
use crate::tx::Tx;

/// How often devices that could not be opened are tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// What the node says about audit.
#[derive(Clone, Debug, Default)]
pub struct AuditSettings {
    /// Folders no audit file may be in: where the server keeps its data.
    pub forbidden_folders: Vec<PathBuf>,
    /// Devices the configuration file declares; the active node brings them into the table.
    pub declared: Vec<DeclaredDevice>,
}

/// An enabled device on this node.
struct Slot {
    path: String,
    record: DeviceRecord,
    /// `None` when its options do not hold here: it refuses every entry.
    device: Option<Device>,
}

#[derive(Default)]
struct Current {
    slots: Vec<Arc<Slot>>,
    headers: Headers,
}

/// See the module's header.
pub struct AuditBroker {
    settings: AuditSettings,
    entropy: Arc<dyn Entropy>,
    current: ArcSwap<Current>,
    /// Applied index of the view the devices were read from.
    loaded_at: AtomicU64,
    loading: Mutex<()>,
    /// When devices that could not be opened were tried last, and how often they are.
    retried: Mutex<Option<Instant>>,
    retry_every: Duration,
}

impl AuditBroker {
    /// A broker without devices; [`Self::refresh`] opens them.
    #[must_use]
    pub fn new(settings: AuditSettings, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            settings,
            entropy,
            current: ArcSwap::default(),
            loaded_at: AtomicU64::new(0),
            loading: Mutex::new(()),
            retried: Mutex::default(),
            retry_every: RETRY_EVERY,
        }
    }

    /// Whether no device is enabled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.load().slots.is_empty()
    }

    /// Opens, changes and closes devices as `tx` shows them, unless that was done after `changed_at` (the applied
    /// index of the last change below [`table::PREFIX`]). Cheap when nothing changed.
    ///
    /// # Errors
    /// When the table cannot be read: the request must fail. A device that cannot be opened is no error here.
    pub fn refresh(&self, tx: &Tx, changed_at: u64) -> Result<(), KernelError> {
        // Index 0 is before anything was ever loaded.
        let is_current = || self.loaded_at.load(Ordering::Acquire) > changed_at;
        if is_current() {
            return Ok(());
        }
        let _one_at_a_time = self.loading.lock();
        if is_current() {
            return Ok(());
        }
        let headers = table::headers(tx)?;
        let old = self.current.load();
        let mut slots = Vec::new();
        for (path, record) in table::devices(tx)? {
            let same = old
                .slots
                .iter()
                .find(|slot| slot.path == path && slot.record == record && slot.device.is_some());
            slots.push(same.map_or_else(|| Arc::new(self.slot(path, record)), Arc::clone));
        }
        self.current.store(Arc::new(Current { slots, headers }));
        self.loaded_at.store(tx.index() + 1, Ordering::Release);
        Ok(())
    }

    fn slot(&self, path: String, record: DeviceRecord) -> Slot {
        let device = self.open(&path, &record, false);
        if let Err(err) = &device {
            tracing::error!(device = path, %err, "audit device cannot be opened on this node");
        }
        Slot { path, record, device: device.ok() }
    }

    /// Makes a device, with its sink opened if it `must_open`; else the sink opens with the first line. Errors speak
    /// of options and of the operating system's refusal, never of entries.
    fn open(&self, path: &str, record: &DeviceRecord, must_open: bool) -> Result<Device, KernelError> {
        let options = DeviceOptions::parse(&record.kind, &record.options, &self.settings.forbidden_folders)?;
        let refused =
            |err: std::io::Error| KernelError::invalid(format!("audit device cannot be opened: {err}"));
        let timeout = options.write_timeout;
        let mut sink: Box<dyn Sink> = match &options.kind {
            DeviceKind::File { target: FileTarget::Discard, .. } => Box::new(Discard),
            DeviceKind::File { target: FileTarget::Stdout, .. } => Box::new(Stdout),
            DeviceKind::File { target: FileTarget::Path(file), mode } => Box::new(FileSink::new(file, *mode)),
            DeviceKind::Socket { address, protocol } => Box::new(Socket::new(address, *protocol, timeout)),
            DeviceKind::Syslog { facility, tag } => Box::new(Syslog::new(*facility, tag, timeout)),
        };
        if must_open {
            sink.prepare().map_err(refused)?;
        }
        let style = Style {
            salt: Salt::new(&record.salt.decode()?),
            is_raw: options.is_raw,
            hashes_accessors: options.hashes_accessors,
            elides_lists: options.elides_lists,
            prefix: options.prefix,
        };
        Device::start(path, style, timeout, sink, self.make_id()?).map_err(refused)
    }

    /// Names of chains: random per device, then counted.
    fn make_id(&self) -> Result<MakeId, KernelError> {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes)?;
        let name = hex::encode(bytes);
        let made = AtomicU64::new(0);
        Ok(Box::new(move || format!("{name}-{}", made.fetch_add(1, Ordering::Relaxed))))
    }

    /// Records a request before it runs.
    ///
    /// # Errors
    /// [`KernelError::AuditFailed`] when devices are enabled and none wrote the entry.
    pub async fn request(&self, record: &RequestRecord<'_>) -> Result<(), KernelError> {
        self.log(|style, headers| style.request(record, headers)).await.inspect_err(|_| {
            metrics::counter!("vault.audit.log_request_failure").increment(1);
        })
    }

    /// Records an answer before it is given.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn response(&self, record: &ResponseRecord<'_>) -> Result<(), KernelError> {
        self.log(|style, headers| style.response(record, headers)).await.inspect_err(|_| {
            metrics::counter!("vault.audit.log_response_failure").increment(1);
        })
    }

    async fn log(&self, line: impl Fn(&Style, &Headers) -> String) -> Result<(), KernelError> {
        let current = {
            let loaded = self.current.load();
            if loaded.slots.is_empty() {
                return Ok(());
            }
            Arc::clone(&loaded)
        };
        let current =
            if current.slots.iter().all(|slot| slot.device.is_some()) { current } else { self.mended() };
        let devices = current.slots.iter().filter_map(|slot| slot.device.as_ref());
        let offered: Vec<_> =
            devices.filter_map(|device| device.offer(line(&device.style, &current.headers))).collect();
        let written = join_all(offered.into_iter().map(super::device::Pending::written)).await;
        if written.into_iter().any(|is_written| is_written) { Ok(()) } else { Err(KernelError::AuditFailed) }
    }

    /// Tries devices again whose options did not hold here, such as a file in a folder that is missing: now and then,
    /// and never while somebody else does, for the file system may hang.
    fn mended(&self) -> Arc<Current> {
        let current = self.current.load_full();
        {
            let mut retried = self.retried.lock();
            if retried.is_some_and(|at| at.elapsed() < self.retry_every) {
                return current;
            }
            *retried = Some(Instant::now());
        }
        let Some(_one_at_a_time) = self.loading.try_lock() else { return current };
        let current = self.current.load_full();
        let again = |slot: &Arc<Slot>| {
            if slot.device.is_some() {
                return Arc::clone(slot);
            }
            // Why not was told when the slot was made.
            let Ok(device) = self.open(&slot.path, &slot.record, false) else { return Arc::clone(slot) };
            tracing::info!(device = slot.path, "audit device can be opened again");
            Arc::new(Slot { path: slot.path.clone(), record: slot.record.clone(), device: Some(device) })
        };
        let slots = current.slots.iter().map(again).collect();
        let mended = Arc::new(Current { slots, headers: current.headers.clone() });
        self.current.store(Arc::clone(&mended));
        mended
    }

    /// Opens every file anew (SIGHUP), after it was moved away by log rotation. Devices whose options did not hold
    /// here are tried again.
    pub fn reopen(&self) {
        let _one_at_a_time = self.loading.lock();
        let current = self.current.load();
        let slots = current.slots.iter().map(|slot| match &slot.device {
            Some(device) => {
                device.reopen();
                Arc::clone(slot)
            }
            None => Arc::new(self.slot(slot.path.clone(), slot.record.clone())),
        });
        let slots = slots.collect();
        self.current.store(Arc::new(Current { slots, headers: current.headers.clone() }));
    }

    /// The devices the configuration file declares.
    #[must_use]
    pub fn declared(&self) -> &[DeclaredDevice] {
        &self.settings.declared
    }

    /// `hmac-sha256:…` of `input` under a device's salt; `None` when there is no such device here.
    #[must_use]
    pub fn hash(&self, device: &str, input: &str) -> Option<String> {
        let current = self.current.load();
        let slot = current.slots.iter().find(|slot| slot.path == device)?;
        Some(slot.device.as_ref()?.style.salt.hash(input.as_bytes()))
    }

    /// Opens a device that is about to be enabled and has it write a line.
    ///
    /// # Errors
    /// When it cannot be opened or does not write.
    pub async fn test(
        &self,
        path: &str,
        record: &DeviceRecord,
        now: UnixMillis,
        id: &str,
    ) -> Result<(), KernelError> {
        let device = self.open(path, record, true)?;
        let (data, headers) = (arca_engine_api::Map::new(), std::collections::BTreeMap::new());
        let entry = RequestRecord {
            time: now,
            id,
            operation: arca_engine_api::Operation::Update,
            auth: None,
            mount: None,
            namespace_id: "root",
            namespace_path: "",
            path: "sys/audit/test",
            data: &data,
            headers: &headers,
            remote_addr: None,
            remote_port: 0,
            wrap_ttl: None,
            client_certificate_serial: None,
            forwarded_from: None,
            error: None,
        };
        let line = device.style.request(&entry, &Headers::new());
        let is_written = match device.offer(line) {
            Some(pending) => pending.written().await,
            None => false,
        };
        if is_written { Ok(()) } else { Err(KernelError::invalid("audit device did not write a test line")) }
    }
}

impl std::fmt::Debug for AuditBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuditBroker({} devices)", self.current.load().slots.len())
    }
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
