//! The paths below `sys/`, one file a topic. Each is a group of routes; the order of groups does not matter, since
//! no two serve the same path.

mod audit;
mod auth_mounts;
mod capabilities;
mod config;
mod info;
mod internal_ui;
mod keys;
mod leases;
mod locked_users;
mod mount_info;
mod mounts;
mod openapi;
pub(crate) mod pace;
mod password_policies;
mod policies;
mod raft;
mod remount;
mod replication;
mod root_keys;
#[cfg(test)]
mod root_keys_tests;
mod root_tokens;
mod tools;
mod wrapping;

pub use config::CorsConfig;
pub(crate) use mounts::path_of as mount_path_of;
pub(crate) use remount::{Migration, migration_path, paths_of as remount_paths_of};

use crate::builtin::Builtin;

/// Every group below `sys/`.
pub(crate) fn groups() -> Vec<Box<dyn Builtin>> {
    vec![
        Box::new(audit::AuditPaths::new()),
        Box::new(auth_mounts::AuthMountPaths::new()),
        Box::new(capabilities::CapabilityPaths::new()),
        Box::new(config::ConfigPaths::new()),
        Box::new(info::InfoPaths::new()),
        Box::new(internal_ui::UiPaths::new()),
        Box::new(keys::KeyPaths::new()),
        Box::new(leases::LeasePaths::new()),
        Box::new(locked_users::LockedUserPaths::new()),
        Box::new(mounts::MountPaths::new()),
        Box::new(openapi::OpenApiPaths::new()),
        Box::new(password_policies::PasswordPolicyPaths::new()),
        Box::new(policies::PolicyPaths::new()),
        Box::new(raft::RaftPaths::new()),
        Box::new(remount::RemountPaths::new()),
        Box::new(replication::ReplicationPaths::new()),
        Box::new(root_keys::RekeyPaths::new()),
        Box::new(root_tokens::RootTokenPaths::new()),
        Box::new(tools::ToolPaths::new()),
        Box::new(wrapping::WrappingPaths::new()),
    ]
}
