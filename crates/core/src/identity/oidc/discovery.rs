//! The configuration of identity tokens, and the documents that relying parties read without a token: discovery (OpenID
//! Connect Discovery 1.0) and key sets (RFC 7517).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use keepfast_framework::fields::Text;
use keepfast_framework::reply::{Described, Raw};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::ByName;
use super::records::{CLIENTS_OF_KEY, CONFIG, Config, Provider, ROLES_OF_KEY, client_of_id, provider};
use super::ring::KEYS;
use super::state::KeySet;
use super::{algorithm, issuer, oauth_error, scope};
use crate::identity::engine::{IdentityEngine, identity};

const CONFIGURE: Help = Help { synopsis: "Reads and writes the issuer of identity tokens.", description: "" };
const DISCOVERY: Help = Help { synopsis: "Returns the discovery document.", description: "" };
const KEY_SET: Help = Help { synopsis: "Returns the public keys that verify tokens.", description: "" };

/// Seconds for which a relying party may cache a discovery document, and the most for a key set.
const MAX_AGE: u64 = 3600;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/config", CONFIGURE).read(read_config).update(write_config);
    r.path("oidc/.well-known/openid-configuration", DISCOVERY).read(of_roles).unauthenticated();
    r.path("oidc/.well-known/keys", KEY_SET).read(keys_of_roles).unauthenticated();
    r.path("oidc/provider/{name}/.well-known/openid-configuration", DISCOVERY)
        .names_only()
        .read(of_provider)
        .unauthenticated();
    r.path("oidc/provider/{name}/.well-known/keys", KEY_SET).names_only().read(keys_of_provider).unauthenticated();
}

#[derive(Deserialize, JsonSchema)]
struct WriteConfig {
    /// Scheme, host and port of the issuer. Default: the API address of the server.
    issuer: Option<Text>,
}

#[derive(Serialize, JsonSchema)]
struct ConfigResponse {
    issuer: String,
}

async fn read_config(_: &IdentityEngine, cx: &mut Cx, _: Nothing) -> Result<Described<ConfigResponse>> {
    Ok(Described(ConfigResponse { issuer: CONFIG.get(cx, "").await?.unwrap_or_default().issuer }))
}

async fn write_config(_: &IdentityEngine, cx: &mut Cx, req: WriteConfig) -> Result<()> {
    let Some(Text(issuer)) = req.issuer else { return Ok(()) };
    let issuer = issuer::checked(cx, issuer)?;
    CONFIG.put(cx, "", &Config { issuer })
}

#[derive(Serialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    userinfo_endpoint: Option<String>,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 7],
    #[serde(flatten)]
    of_provider: Option<ProviderDiscovery>,
}

#[derive(Serialize)]
struct ProviderDiscovery {
    scopes_supported: Vec<String>,
    claims_supported: [&'static str; 0],
    request_parameter_supported: bool,
    request_uri_parameter_supported: bool,
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 3],
}

async fn of_roles(_: &IdentityEngine, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    let issuer = issuer::of_roles(cx).await?;
    let document = Discovery {
        jwks_uri: format!("{issuer}/.well-known/keys"),
        issuer,
        authorization_endpoint: None,
        token_endpoint: None,
        userinfo_endpoint: None,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithm::names(),
        of_provider: None,
    };
    oauth_error::json(Status::OK, &document, vec![max_age(MAX_AGE)])
}

async fn of_provider(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Raw>> {
    let name = &req.name;
    let Some(provider) = provider(cx, name).await? else { return Ok(None) };
    let (issuer, base) = (issuer::of_provider(cx, name, &provider.issuer)?, issuer::base(cx, &provider.issuer)?);
    let mut scopes_supported = provider.scopes_supported;
    scopes_supported.push(scope::OPENID.to_owned());
    let document = Discovery {
        jwks_uri: format!("{issuer}/.well-known/keys"),
        authorization_endpoint: Some(format!(
            "{base}/ui/vault/{}identity/oidc/provider/{name}/authorize",
            issuer::namespace(cx)?
        )),
        token_endpoint: Some(format!("{issuer}/token")),
        userinfo_endpoint: Some(format!("{issuer}/userinfo")),
        issuer,
        response_types_supported: ["code"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithm::names(),
        of_provider: Some(ProviderDiscovery {
            scopes_supported,
            claims_supported: [],
            request_parameter_supported: false,
            request_uri_parameter_supported: false,
            grant_types_supported: ["authorization_code"],
            token_endpoint_auth_methods_supported: ["none", "client_secret_basic", "client_secret_post"],
        }),
    };
    Ok(Some(oauth_error::json(Status::OK, &document, vec![max_age(MAX_AGE)])?))
}

async fn keys_of_roles(_: &IdentityEngine, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    let generation = identity(cx)?.oidc.generation();
    key_set(cx, "", None, generation).await
}

async fn keys_of_provider(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Raw>> {
    let state = identity(cx)?.oidc.clone();
    if let Some(known) = state.key_set(&req.name, cx.now()) {
        return response(cx, &known).map(Some);
    }
    // Taken before the provider is read, whose change increments it.
    let generation = state.generation();
    match provider(cx, &req.name).await? {
        Some(provider) => key_set(cx, &req.name, Some(&provider), generation).await.map(Some),
        None => Ok(None),
    }
}

/// The keys of a provider, or of roles, read in a generation. The request needs no token, so they are read once for each
/// change.
async fn key_set(cx: &mut Cx, name: &str, provider: Option<&Provider>, generation: u64) -> Result<Raw> {
    let (state, now) = (identity(cx)?.oidc.clone(), cx.now());
    if let Some(known) = state.key_set(name, now) {
        return response(cx, &known);
    }
    let mut until = now.after(Duration::from_secs(MAX_AGE));
    let mut keys = Vec::new();
    for name in used_keys(cx, provider).await? {
        let Some(key) = KEYS.get(cx, &name).await? else { continue };
        // A rotation that is late changes the set at any time.
        until = until.min(key.unchanged_until(now)).max(now.after(Duration::from_secs(1)));
        for key in key.published(now) {
            keys.extend(key.jwk().map(|jwk| serde_json::to_value(&jwk)).transpose()?);
        }
    }
    let json = Bytes::from(serde_json::to_vec(&serde_json::json!({ "keys": keys }))?);
    let set = KeySet { json, until };
    state.keep(name, generation, set.clone());
    response(cx, &set)
}

/// The names of the keys that roles use, or that the clients of a provider use.
async fn used_keys(cx: &mut Cx, provider: Option<&Provider>) -> Result<BTreeSet<String>> {
    let all = Page::all();
    let folders = match provider {
        None => ROLES_OF_KEY.list(cx, "", &all).await?,
        Some(provider) if provider.allows("*") => CLIENTS_OF_KEY.list(cx, "", &all).await?,
        Some(provider) => {
            let mut names = Vec::new();
            for id in &provider.allowed_client_ids {
                names.extend(client_of_id(cx, id).await?.map(|(_, client)| client.key));
            }
            names
        }
    };
    Ok(folders.into_iter().map(|folder| folder.trim_end_matches('/').to_owned()).collect())
}

fn response(cx: &Cx, set: &KeySet) -> Result<Raw> {
    let headers = vec![max_age(set.until.since(cx.now()).as_secs())];
    Ok(Raw { status: Status::OK, content_type: "application/json", body: set.json.to_vec(), headers })
}

fn max_age(seconds: u64) -> (&'static str, String) {
    ("cache-control", format!("max-age={seconds}"))
}
