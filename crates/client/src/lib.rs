//! The Rust client library: Vault's HTTP API as typed calls.
//!
//! A [`Client`] is made from a [`Config`], usually the one the environment describes. It speaks to
//! `http`, `https` and `unix` addresses, retries as Vault's own client does, and gives answers as
//! [`Secret`], the envelope that every path of the API shares.
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
mod patience;
mod rate;
mod request;
mod retry;
mod secret;
mod transport;

pub use client::{Client, Response};
pub use config::{Address, Config, DEFAULT_ADDRESS};
pub use error::{Error, ResponseError};
pub use keepfast_crypto::secret::SecretString;
pub use keepfast_outbound::{Proxies, Proxy};
pub use patience::pause;
pub use rate::RateLimit;
pub use request::{Method, Request};
pub use secret::{Auth, Secret, WrapInfo};
