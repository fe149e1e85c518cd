//! The request pipeline, one stage per file.
//!
//! [`Incoming`] → [`route::Routed`] → [`authenticate::Authenticated`] → [`authorize::Authorized`] →
//! [`audit::Audited`] → [`dispatch::Handled`] → [`Response`]. Only the file of a type constructs it, so that this
//! file shows what the type proves. A refused request leaves at one of the first three stages and is audited like every
//! other request.

pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod authorize;
mod controlled;
pub(crate) mod dispatch;
pub(crate) mod envelope;
pub(crate) mod in_flight;
pub(crate) mod login;
mod pipeline;
mod refused;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod settle;
pub(crate) mod wiped;
mod wrap;

pub(crate) use pipeline::{Pipeline, has_live_token};
use refused::{Departure, Refused};
pub use response::{Response, ResponseHeaders};
