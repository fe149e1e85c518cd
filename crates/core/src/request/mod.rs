//! The request pipeline, one stage per file.
//!
//! [`Incoming`] → [`route::Routed`] → [`authenticate::Authenticated`] → [`authorize::Authorized`] →
//! [`record::Recorded`] → [`dispatch::Answered`] → [`Response`]. Only the file of a type constructs it, so that this
//! file shows what the type proves. A refused request leaves at one of the first three stages and is audited like every
//! other request.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod dispatch;
pub(crate) mod envelope;
pub(crate) mod in_flight;
mod pipeline;
pub(crate) mod record;
mod refused;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod settle;
pub(crate) mod wiped;
mod wrap;

pub(crate) use pipeline::Pipeline;
use refused::Refused;
pub use response::Response;
