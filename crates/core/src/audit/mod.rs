//! Audit: every request and every answer is recorded before it takes effect outside.

pub mod broker;
pub mod caller;
pub(crate) mod created;
pub mod device;
pub mod entry;
pub mod extent;
pub mod options;
pub mod own_files;
pub mod redact;
pub mod target;

pub use broker::{Broker, Marks, Said};
pub use caller::Mark;
pub use entry::{Entry, RequestPart, ResponsePart, Verdict};
pub use extent::Extent;
pub use options::DeviceOptions;
pub use own_files::OwnFiles;
pub use target::DeviceError;
