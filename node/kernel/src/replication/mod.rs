//! What this cluster is to other clusters: its role of each kind, as it is stored, and what the kernel asks the node to do
//! about it.
//!
//! Read next: [`record`] for what is stored, [`standing`] for what follows, [`port`] for what the node does.

pub(crate) mod door;
pub mod port;
pub mod record;
pub mod standing;

pub use port::{ActivationToken, ReplicationPort, SecondaryToken, SecondaryUpdate};
pub use record::{Fence, Kind, Mode, RoleRecord, UpstreamRecord};
pub use standing::{Serves, Standing};
