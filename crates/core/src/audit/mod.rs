//! Audit: every request and every answer is recorded before it takes effect outside.

pub mod broker;
pub mod device;
pub mod entry;
pub mod extent;
pub mod redact;

pub use broker::{Broker, Said};
pub use entry::{Entry, Mark, RequestPart, ResponsePart};
pub use extent::Extent;
