//! The trusted kernel: who may do what, in one transaction, audited. It speaks no HTTP and knows no engine by name.

pub mod admission;
pub mod audit;
mod bare;
mod damaged;
pub mod duties;
pub mod identity;
mod init;
pub mod lease;
pub mod lockout;
pub mod metrics;
pub mod mount;
pub mod namespace;
pub mod node;
pub mod policy;
pub mod request;
pub mod seal;
pub mod services;
pub mod settings;
pub mod sys;
pub mod token;
pub mod unsealed;
pub mod versions;
pub mod wrapping;

pub use bare::is_bare_path;
pub use node::Node;
pub use request::envelope::error_body;
pub use request::{Incoming, OpenCeremonies, RecordedHeader, Response};
pub use settings::Settings;
pub use unsealed::Unsealed;
