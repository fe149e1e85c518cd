//! The HTTP edge: sockets, TLS, connections, and HTTP/1.1 and HTTP/2 up to the request.
//!
//! A [`Listener`] accepts a connection, which takes a place in [`Connections`]. A request on it becomes a
//! [`keepfast_framework::Incoming`], which the [`Kernel`] handles; the kernel's [`Answer`] leaves as an HTTP response. What may be
//! refused before a request is read, quotas and origins, is the kernel's [`Admission`]. The edge knows no storage and no engine, so
//! that a program without the trusted kernel can listen with it.

mod config;
mod connection;
mod connections;
mod http;
mod kernel;
mod listener;
mod patience;
mod socket;
mod tls;

pub use self::config::{
    Bind, ClientCertificates, CustomHeader, Forwarded, JsonLimits, Limits, ListenerConfig, Statuses, TlsConfig,
};
pub use self::connections::Connections;
pub use self::http::Edge;
pub use self::http::answer::Answer;
pub use self::http::body::BodyMemory;
pub use self::kernel::{Admission, Kernel, OriginCheck, QuotaVerdict};
pub use self::listener::Listener;
pub use self::socket::{Socket, candidates, check_directory, group_id, user_id};
pub use self::tls::{Tls, TlsError, Validity, development};

#[cfg(test)]
mod tests;
