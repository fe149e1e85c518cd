//! `identity/oidc/provider`: OpenID Connect providers.

use std::collections::BTreeMap;

use keepfast_framework::fields::{CommaList, Int, Quoted, Text};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::rows::is_name;
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{ByName, names, with_info};
use super::records::{
    DEFAULT_PROVIDER, MOST_CLIENT_IDS, PROVIDERS, PROVIDERS_OF_SCOPE, Provider, SCOPES, bounded, provider, refer,
};
use super::{claims, issuer};
use crate::identity::engine::{IdentityEngine, named};

const PROVIDER: Help = Help { synopsis: "Reads, creates, changes and deletes a provider.", description: "" };
const LIST: Help = Help { synopsis: "Lists the providers.", description: "" };

/// The maximum number of scopes of a provider.
const MOST_SCOPES: usize = 100;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/provider/", LIST).list(list);
    r.path("oidc/provider/{name}", PROVIDER).names_only().read(read).update(write).delete(delete).exists(exists);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the provider.
    name: Text,
    /// Scheme, host and port of the issuer. Default: the API address of the server.
    issuer: Option<Text>,
    /// Comma-separated ids of the clients that may use the provider, `*` for all. Default: none.
    allowed_client_ids: Option<CommaList>,
    /// Comma-separated names of scopes. Default: none.
    scopes_supported: Option<CommaList>,
}

#[derive(Serialize, JsonSchema)]
struct ProviderResponse {
    allowed_client_ids: Vec<String>,
    issuer: String,
    scopes_supported: Vec<String>,
}

impl ProviderResponse {
    fn new(cx: &Cx, name: &str, provider: Provider) -> Result<Self> {
        Ok(ProviderResponse {
            issuer: issuer::of_provider(cx, name, &provider.issuer)?,
            allowed_client_ids: provider.allowed_client_ids,
            scopes_supported: provider.scopes_supported,
        })
    }
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(provider(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let name = &req.name;
    let mut record = provider(cx, name).await?.unwrap_or_default();
    let old_scopes = record.scopes_supported.clone();
    if let Some(CommaList(ids)) = req.allowed_client_ids {
        record.allowed_client_ids = bounded("allowed_client_ids", ids, MOST_CLIENT_IDS)?;
    }
    if let Some(CommaList(scopes)) = req.scopes_supported {
        record.scopes_supported = bounded("scopes_supported", scopes, MOST_SCOPES)?;
    }
    check_scopes(cx, &record.scopes_supported).await?;
    if let Some(Text(issuer)) = req.issuer {
        record.issuer = issuer::checked(cx, issuer)?;
    }
    refer(cx, &PROVIDERS_OF_SCOPE, name, &old_scopes, &record.scopes_supported)?;
    PROVIDERS.put(cx, name, &record)
}

/// Refuses scopes that do not exist, and warns about claims that two of them have.
async fn check_scopes(cx: &mut Cx, scopes: &[String]) -> Result<()> {
    let mut by = BTreeMap::<String, &String>::new();
    for name in scopes {
        let found = if is_name(name) { SCOPES.get(cx, name).await? } else { None };
        let scope = found.ok_or_else(|| Error::invalid(format!("scope {} does not exist", Quoted(name))))?;
        for claim in claims::check(&scope.template)? {
            if let Some(other) = by.insert(claim.clone(), name) {
                cx.warn(format!(
                    "Found scope templates with conflicting top-level keys: conflict {claim:?} in scopes {other:?}, \
                     {name:?}. This may result in an error if the scopes are requested in an OIDC Authentication \
                     Request."
                ));
            }
        }
    }
    Ok(())
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<ProviderResponse>>> {
    let found = provider(cx, &req.name).await?;
    found.map(|provider| Ok(Described(ProviderResponse::new(cx, &req.name, provider)?))).transpose()
}

#[derive(Deserialize, JsonSchema)]
struct List {
    /// Returns only providers that this client may use.
    allowed_client_id: Option<Text>,
    /// Returns only names after this one, which need not exist.
    after: Option<Text>,
    /// Maximum number of names; no limit if it is not positive.
    limit: Option<Int>,
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: List) -> Result<Keys> {
    let client_id = named(req.allowed_client_id);
    let mut found = BTreeMap::new();
    for name in names(cx, &PROVIDERS, Some(DEFAULT_PROVIDER), Paged::new(req.after, req.limit)).await? {
        let Some(provider) = provider(cx, &name).await? else { continue };
        if client_id.as_deref().is_none_or(|id| provider.allows(id)) {
            let response = ProviderResponse::new(cx, &name, provider)?;
            found.insert(name, response);
        }
    }
    with_info(found)
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let name = &req.name;
    if **name == *DEFAULT_PROVIDER {
        return Err(Error::invalid("deletion of OIDC provider \"default\" not allowed"));
    }
    if let Some(provider) = PROVIDERS.get(cx, name).await? {
        refer(cx, &PROVIDERS_OF_SCOPE, name, &provider.scopes_supported, &[])?;
        PROVIDERS.delete(cx, name);
    }
    Ok(())
}
