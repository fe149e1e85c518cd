//! The OIDC provider at `identity/oidc/`: identity tokens of roles, and OpenID Connect providers for relying parties.
//!
//! | key, below `identity/oidc/` | record |
//! |---|---|
//! | `key/<name>` | a [`ring::KeyRecord`]: the signing key, the next one, and retired public keys |
//! | `role/<name>`, `scope/<name>`, `assignment/<name>`, `provider/<name>`, `client/<name>` | see [`records`] |
//! | `client-id/<id>` | the name of the client |
//! | `code/<keyed hash>` | an authorization code, for five minutes or until its first exchange |
//! | `code-of/<entity>/<expiry>-<keyed hash>` | the codes of an entity, to bound their number and to delete expired ones |
//! | `key-role/`, `key-client/`, `assignment-client/`, `scope-provider/` | the records that refer to another |
//! | `config` | the issuer of identity tokens |
//!
//! The key `default`, the provider `default` and the assignment `allow_all` exist without a record.
//!
//! Tests of the whole: `tests/oidc.rs`, `conformance/scenarios/identity/oidc_*.yaml`, and `conformance/oidc` with a
//! relying party.

mod algorithm;
mod assignment;
mod authorize;
mod claims;
mod client;
mod codes;
mod discovery;
mod id_token;
mod introspect;
mod issuer;
mod jws;
mod key;
mod lists;
mod oauth_error;
mod pkce;
mod provider;
mod records;
mod redirect;
mod ring;
mod role;
mod scope;
mod state;
mod stored;
mod token;
mod userinfo;

use keepfast_framework::Routes;

pub(crate) use codes::delete_expired_codes;
pub(crate) use state::{OidcState, rotate_due_keys};

use super::engine::IdentityEngine;

/// The prefixes of records with private keys and client secrets, which seal wrap encrypts.
pub(super) const WRAPPED: [&str; 2] = [ring::KEY_FOLDER, "oidc/client/"];

/// Adds the paths of the provider.
pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    key::routes(r);
    role::routes(r);
    introspect::routes(r);
    discovery::routes(r);
    assignment::routes(r);
    scope::routes(r);
    client::routes(r);
    provider::routes(r);
    authorize::routes(r);
    token::routes(r);
    userinfo::routes(r);
}
