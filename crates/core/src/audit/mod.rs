//! Audit: every request and every response is audited before it takes effect outside.

mod allowed_targets;
pub(crate) mod auth_members;
pub(crate) mod broker;
pub(crate) mod device;
mod device_error;
pub(crate) mod entry;
pub(crate) mod entry_size;
pub(crate) mod line;
pub(crate) mod mount_members;
pub(crate) mod options;
pub(crate) mod own_files;
pub(crate) mod redact;
pub(crate) mod stored_devices;
pub mod target;
pub(crate) mod token_members;

pub use allowed_targets::AllowedTargets;
pub(crate) use broker::{Broker, SerializedRequest, make_salts};
pub use device_error::DeviceError;
pub(crate) use entry::{Entry, PolicyResults, RequestPart, ResponsePart};
pub(crate) use mount_members::MountMembers;
pub use options::DeviceOptions;
pub use own_files::OwnFiles;
pub(crate) use token_members::TokenMembersByDevice;
