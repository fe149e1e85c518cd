//! The journey of a request, one stage per file.
//!
//! [`Incoming`] → [`route::Routed`] → [`authenticate::Authenticated`] → [`authorize::Authorized`] → [`record::Recorded`]
//! → [`dispatch::Answered`] → [`Response`]. Each is a type that only its own file makes, so that reading that file shows
//! what it proves. A refusal leaves at one of the first three stages and is audited like every other request.

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
