//! HTTP calls to other servers.
//!
//! An [`Outbound`] is created from [`Settings`]: timeouts, the response limit, trusted CAs, the client certificate and
//! proxies. It follows no redirect, because the new address is not checked. Its errors contain the host and the
//! cause, and never a path, a query or a header.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use keepfast_outbound::{Outbound, Settings};
//!
//! let outbound = Outbound::new(&Settings::default())?;
//! let request = http::Request::get("https://issuer.example/keys").body(bytes::Bytes::new())?;
//! let response = outbound.call(request).await?;
//! assert!(response.body().len() <= Settings::default().max_response);
//! # Ok(())
//! # }
//! ```

mod addresses;
mod connect;
mod error;
mod outbound;
mod payload;
mod proxy;
mod settings;
mod tls;

pub use error::{CallError, Failure, SettingsError};
pub use outbound::Outbound;
pub use payload::Payload;
pub use proxy::{Proxies, Proxy};
pub use settings::{AllowedAddresses, Authorities, ClientCertificate, Settings, Trust};
pub use tls::tls_config;
