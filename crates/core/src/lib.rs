//! The trusted kernel: who may do what, in one transaction, audited. It speaks no HTTP and knows no engine by name.

pub mod request;
pub mod settings;

pub use request::incoming::Incoming;
pub use request::response::Response;
pub use settings::Settings;
