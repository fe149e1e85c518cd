//! Tokens: ids, records, TTLs, creation, lookup, renewal, revocation, and token roles.

mod auth;
pub(crate) mod batch;
pub(crate) mod bound_cidrs;
pub(crate) mod create;
mod handlers;
pub(crate) mod id;
mod issue;
mod live;
pub(crate) mod record;
mod renew;
pub(crate) mod revoke;
pub(crate) mod roles;
pub(crate) mod store;
pub(crate) mod ttl;

pub(crate) use auth::TokenAuth;
pub(crate) use bound_cidrs::BoundCidrs;
pub(crate) use id::TokenKey;
pub(crate) use live::finds_live_token;
pub(crate) use record::{Authority, TokenRecord, UserinfoGrant};
pub(crate) use store::{Token, TokenSecrets, Tokens};
