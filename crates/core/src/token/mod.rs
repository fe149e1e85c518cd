//! Tokens: their ids, their records, how long they live, who may look at them.

pub mod batch;
pub mod create;
pub mod handlers;
pub mod id;
mod issue;
pub mod life;
pub mod record;
mod renew;
pub mod revoke;
pub mod roles;
pub mod store;

pub use id::{Ids, TokenKey};
pub use record::{Authority, TokenRecord};
pub use store::{Token, Tokens};
