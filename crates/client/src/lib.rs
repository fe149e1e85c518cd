//! The Rust client library: Vault's HTTP API as typed calls.
//!
//! A [`Client`] is created from a [`Config`], usually from the environment. It supports `http`, `https` and
//! `unix` addresses, retries like Vault's own client, and returns a [`Secret`], the envelope that all
//! responses of the API share.
//!
//! ```no_run
//! # async fn example() -> Result<(), keepfast_client::Error> {
//! use keepfast_client::{Client, Config};
//!
//! let client = Client::new(Config::from_env()?)?;
//! if let Some(secret) = client.read("secret/data/app").await? {
//!     println!("version {:?}", secret.data_field("metadata"));
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
pub mod duration;
pub mod environment;
mod error;
mod rate_limit;
mod request;
mod retry;
mod secret;
mod timer;
mod transport;

pub use client::{Client, Response};
pub use config::{Address, Config, DEFAULT_ADDRESS};
pub use error::{Error, ResponseError};
pub use keepfast_crypto::secret::SecretString;
pub use keepfast_outbound::{Proxies, Proxy};

pub use rate_limit::RateLimit;
pub use request::{Method, Request};
pub use secret::{Auth, Secret, WrapInfo};
pub use timer::pause;
