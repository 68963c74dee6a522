//! Every request and every answer, one JSON line each, before anything happens and before anything is shown.
//!
//! **Invariant:** with devices enabled, a request that none of them took does not run, and an answer that none of
//! them took is not given. String values leave only as HMACs under a device's own salt (unless that device logs
//! raw). Reads pass through here twice, so lines are built straight into bytes and written in batches.
//! Read next: [`entry`] for what is recorded, [`broker`] for the rule above, [`chain`] for what verifies a file.

pub mod broker;
pub mod chain;
pub mod entry;
pub mod options;
pub mod table;

mod device;
mod file;
mod json;
mod line;
mod salt;
mod socket;
mod syslog;

pub use broker::{AuditBroker, AuditSettings};
pub use entry::{AuthRecord, MountRecord, PolicyResults, RequestRecord, ResponseRecord};
pub use options::{DeviceKind, DeviceOptions};
pub use table::{DeclaredDevice, DeviceRecord, HeaderRule, SaltText};
