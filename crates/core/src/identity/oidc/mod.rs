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

use std::collections::BTreeMap;

use keepfast_framework::fields::Text;
use keepfast_framework::routes::Paged;
use keepfast_framework::{Cx, Error, Keys, Page, Records, Result, Routes};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use codes::delete_expired as delete_expired_codes;
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

/// The name in a path.
#[derive(Deserialize, JsonSchema)]
struct ByName {
    /// Name of the object.
    name: Text,
}

/// The maximum number of names in the response to a list without a limit.
const MOST_LISTED: usize = 10_000;

/// The names of records, with one that exists without a record.
async fn names<T: Serialize + DeserializeOwned>(
    cx: &mut Cx,
    records: &Records<T>,
    always: Option<&str>,
    req: Paged,
) -> Result<Vec<String>> {
    let Page { after, limit } = req.page();
    let page = Page { after: after.clone(), limit: Some(limit.unwrap_or(MOST_LISTED + 1)) };
    let mut names = records.list(cx, "", &page).await?;
    if let Some(always) = always
        && after.as_deref().is_none_or(|after| always > after)
        && !names.iter().any(|name| name == always)
    {
        names.push(always.to_owned());
        names.sort();
        names.truncate(page.limit.unwrap_or(usize::MAX));
    }
    if names.len() > MOST_LISTED {
        return Err(Error::invalid(format!("a list has at most {MOST_LISTED} entries: use 'after' and 'limit'")));
    }
    Ok(names)
}

/// A list with information about each name.
fn with_info<T: Serialize>(found: BTreeMap<String, T>) -> Result<Keys> {
    Keys::with_info(found.keys().cloned().collect(), &found)
}
