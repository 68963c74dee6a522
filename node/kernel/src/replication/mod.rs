//! What this cluster is to other clusters: its role of each kind, as it is stored, and what the kernel asks the node to do
//! about it.
//!
//! Read next: [`record`] for what is stored, [`standing`] for what follows, [`port`] for what the node does; of a
//! performance secondary, [`ask`] for what it has done at its primary, and [`answer`] for what that does.

mod answer;
mod ask;
pub mod contact;
pub(crate) mod door;
pub mod filter;
#[cfg(test)]
mod filter_tests;
mod follow;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod outage_tests;
pub mod port;
pub(crate) mod question;
pub mod record;
pub mod recorded;
#[cfg(test)]
mod secondary_identity_tests;
#[cfg(test)]
mod secondary_tests;
pub mod standing;

pub(crate) use answer::{Behalf, no_lease};
pub(crate) use ask::EntityKnown;
pub use contact::Contact;
pub use filter::{Filter, FilterMode};
pub use port::{ActivationToken, Promotion, ReplicationPort, SecondaryToken, SecondaryUpdate};
pub use question::EntityQuestion;
pub use record::{Fence, Kind, Mode, RoleRecord, UpstreamRecord};
pub use recorded::RecordedActivation;
pub use standing::{Serves, Standing};
