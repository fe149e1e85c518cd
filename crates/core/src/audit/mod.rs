//! Audit: every request and every response is audited before it takes effect outside.

mod allowed;
pub(crate) mod broker;
pub(crate) mod caller;
pub(crate) mod created;
pub(crate) mod device;
mod device_error;
pub(crate) mod entry;
pub(crate) mod extent;
pub(crate) mod line;
mod marks;
pub(crate) mod mount;
pub(crate) mod options;
pub(crate) mod own_files;
pub(crate) mod redact;
pub mod target;

pub use allowed::Allowed;
pub(crate) use broker::{Broker, SerializedRequest, make_salts};
pub use device_error::DeviceError;
pub(crate) use entry::{Entry, RequestPart, ResponsePart, Verdict};
pub(crate) use marks::Marks;
pub(crate) use mount::MountMark;
pub use options::DeviceOptions;
pub use own_files::OwnFiles;
