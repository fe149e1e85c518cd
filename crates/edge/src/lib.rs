//! The HTTP edge: sockets, TLS, connections, and HTTP/1.1 and HTTP/2 up to the request.
//!
//! A [`Listener`] accepts a connection and registers it in [`Connections`]. A request on it becomes a
//! [`keepfast_framework::Incoming`], which the [`Kernel`] handles; the edge sends the kernel's [`EdgeResponse`] as an HTTP
//! response. Checks before a request is read, such as quotas and origins, are the kernel's [`Admission`]. The edge
//! depends on no storage and no engine, so that a program without the trusted kernel can use it.

mod config;
mod connection;
mod connections;
mod http;
mod kernel;
mod listener;
mod socket;
mod timeouts;
mod tls;

pub use self::config::{
    Bind, ClientCertificates, CustomHeader, Forwarded, JsonLimits, Limits, ListenerConfig, Statuses, TlsConfig,
};
pub use self::connections::{Connections, network};
pub use self::http::Edge;
pub use self::http::body::BodyMemory;
pub use self::http::edge_response::EdgeResponse;
pub use self::kernel::{Admission, Kernel, OriginCheck, QuotaResult, Upload, UploadTurn};
pub use self::listener::Listener;
pub use self::socket::{Socket, candidates, check_directory, group_id, listen_tcp, user_id};
pub use self::tls::{Tls, TlsError, Validity, development};

#[cfg(test)]
mod tests;
