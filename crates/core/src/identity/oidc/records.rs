//! The stored records of the OIDC provider, and the references between them.

use keepfast_crypto::secret::SecretString;
use keepfast_framework::rows::is_name;
use keepfast_framework::{Cx, Error, Page, Records, Result, Timestamp};
use keepfast_storage::{ReadTx, View};
use serde::{Deserialize, Serialize};

use super::lists::has_id;
use super::pkce::Challenge;
use super::ring::{DEFAULT_KEY, KEYS, KeyRecord, KeySettings};
use super::stored::secret_text;
use crate::identity::expiring::ExpiringRecords;
use crate::identity::record::Mark;

/// A role: signs identity tokens for entities.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Role {
    /// The name of its key.
    pub(super) key: String,
    /// The audience of its tokens.
    pub(super) client_id: String,
    /// The template of further claims; empty for none.
    pub(super) template: String,
    /// Seconds until its tokens expire.
    pub(super) ttl: u64,
}

/// The type of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientType {
    /// Keeps its secret.
    #[default]
    Confidential,
    /// Cannot keep a secret, and must use PKCE.
    Public,
}

/// A client: a relying party.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Client {
    /// The random public id.
    pub(super) client_id: String,
    /// The secret of a confidential client.
    #[serde(default, with = "secret_text", skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<SecretString>,
    /// The type.
    pub(super) client_type: ClientType,
    /// The name of its key.
    pub(super) key: String,
    /// The URIs to which codes may be sent.
    pub(super) redirect_uris: Vec<String>,
    /// The names of the assignments of entities that may log in.
    pub(super) assignments: Vec<String>,
    /// Seconds until its identity tokens expire.
    pub(super) id_token_ttl: u64,
    /// Seconds until its access tokens expire.
    pub(super) access_token_ttl: u64,
    /// Whether the authorization code flow is enabled.
    pub(super) authorization_code: bool,
    /// Whether the client credentials flow is enabled.
    pub(super) client_credentials: bool,
}

/// A provider: a group of clients and scopes with an issuer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Provider {
    /// Scheme, host and port of its issuer; empty for the API address of the server.
    pub(super) issuer: String,
    /// The ids of the clients that may use it; `*` for all.
    pub(super) allowed_client_ids: Vec<String>,
    /// The names of its scopes.
    pub(super) scopes_supported: Vec<String>,
}

impl Provider {
    /// Whether this client may use it.
    pub(super) fn allows(&self, client_id: &str) -> bool {
        has_id(&self.allowed_client_ids, client_id)
    }
}

/// A scope: further claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Scope {
    /// The template of its claims; empty for none.
    pub(super) template: String,
    /// The description.
    pub(super) description: String,
}

/// An assignment: the entities and groups that may log in to a client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Assignment {
    /// The ids of entities; `*` for all.
    pub(super) entity_ids: Vec<String>,
    /// The ids of groups; `*` for all.
    pub(super) group_ids: Vec<String>,
}

/// The configuration of identity tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Config {
    /// Scheme, host and port of the issuer; empty for the API address of the server.
    pub(super) issuer: String,
}

/// An authorization code, stored under a keyed hash of it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Code {
    /// The name of the provider.
    pub(super) provider: String,
    /// The id of the client.
    pub(super) client_id: String,
    /// The redirect URI of the request.
    pub(super) redirect_uri: String,
    /// The requested scopes of the provider.
    pub(super) scopes: Vec<String>,
    /// The nonce; empty for none.
    pub(super) nonce: String,
    /// The id of the entity.
    pub(super) entity: String,
    /// The time of authentication, where the request has `max_age`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) auth_time: Option<Timestamp>,
    /// The PKCE challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) challenge: Option<Challenge>,
    /// The expiry.
    pub(super) expires: Timestamp,
}

/// Roles by name.
pub(super) const ROLES: Records<Role> = Records::at("oidc/role/");
/// Clients by name.
pub(super) const CLIENTS: Records<Client> = Records::at("oidc/client/");
/// The names of clients by their id.
pub(super) const CLIENT_IDS: Records<String> = Records::at("oidc/client-id/");
/// Providers by name.
pub(super) const PROVIDERS: Records<Provider> = Records::at("oidc/provider/");
/// Scopes by name.
pub(super) const SCOPES: Records<Scope> = Records::at("oidc/scope/");
/// Assignments by name.
pub(super) const ASSIGNMENTS: Records<Assignment> = Records::at("oidc/assignment/");
/// The configuration.
pub(super) const CONFIG: Records<Config> = Records::at("oidc/config");
/// Codes.
pub(super) const CODES: ExpiringRecords<Code> = ExpiringRecords::at("oidc/code/", "oidc/code-of/", MOST_CODES);
/// The roles of a key: `<key>/<role>`.
pub(super) const ROLES_OF_KEY: Records<Mark> = Records::at("oidc/key-role/");
/// The clients of a key: `<key>/<client>`.
pub(super) const CLIENTS_OF_KEY: Records<Mark> = Records::at("oidc/key-client/");
/// The clients of an assignment: `<assignment>/<client>`.
pub(super) const CLIENTS_OF_ASSIGNMENT: Records<Mark> = Records::at("oidc/assignment-client/");
/// The providers of a scope: `<scope>/<provider>`.
pub(super) const PROVIDERS_OF_SCOPE: Records<Mark> = Records::at("oidc/scope-provider/");

/// The maximum number of codes of an entity at a time.
const MOST_CODES: usize = 32;

/// The provider that always exists.
pub(super) const DEFAULT_PROVIDER: &str = "default";
/// The assignment that always exists: all entities.
pub(super) const ALLOW_ALL: &str = "allow_all";

/// The maximum number of client ids that a key or a provider allows.
pub(super) const MOST_CLIENT_IDS: usize = 1000;
/// The longest text of a record or a request, in bytes.
pub(super) const LONGEST_TEXT: usize = 2048;
/// The maximum number of names in an error text.
const MOST_NAMED: usize = 100;

/// The provider of this name.
pub(super) async fn provider(cx: &mut Cx, name: &str) -> Result<Option<Provider>> {
    let stored = PROVIDERS.get(cx, name).await?;
    let virtual_one = || Provider { allowed_client_ids: vec!["*".to_owned()], ..Provider::default() };
    Ok(stored.or_else(|| (name == DEFAULT_PROVIDER).then(virtual_one)))
}

/// The assignment of this name.
pub(super) async fn assignment(cx: &mut Cx, name: &str) -> Result<Option<Assignment>> {
    if name == ALLOW_ALL {
        let all = || vec!["*".to_owned()];
        return Ok(Some(Assignment { entity_ids: all(), group_ids: all() }));
    }
    if is_name(name) { ASSIGNMENTS.get(cx, name).await } else { Ok(None) }
}

/// The client with this id, and its name.
pub(super) async fn client_of_id(cx: &mut Cx, id: &str) -> Result<Option<(String, Client)>> {
    // An id is base62, so any other text is none.
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let Some(name) = CLIENT_IDS.get(cx, id).await? else { return Ok(None) };
    Ok(CLIENTS.get(cx, &name).await?.map(|client| (name, client)))
}

/// The settings of the key of this name.
pub(super) async fn key_settings(cx: &mut Cx, name: &str) -> Result<Option<KeySettings>> {
    if !is_name(name) {
        return Ok(None);
    }
    let stored = KEYS.get(cx, name).await?.map(|key| key.settings);
    Ok(stored.or_else(|| (name == DEFAULT_KEY).then(KeySettings::of_default_key)))
}

/// Creates the ring of the default key if it does not exist, because a role or a client refers to it now.
pub(super) async fn ensure_ring(cx: &mut Cx, name: &str) -> Result<()> {
    if name == DEFAULT_KEY && KEYS.get(cx, name).await?.is_none() {
        let record = KeyRecord::create(KeySettings::of_default_key(), cx.now()).await?;
        KEYS.put(cx, name, &record)?;
    }
    Ok(())
}

/// The key of this name with its ring.
pub(super) async fn ring(cx: &mut Cx, name: &str) -> Result<KeyRecord> {
    KEYS.get(cx, name).await?.ok_or_else(|| Error::internal("a reference to a key that does not exist"))
}

/// Refuses the deletion of a record, of the kind `what`, to which others refer. The commit fails when others refer to
/// it by then.
///
/// # Errors
/// 400 with the names of the others and their kind, `by`.
pub(super) async fn check_unreferenced(
    cx: &mut Cx,
    (of, by): (&Records<Mark>, &str),
    what: &str,
    name: &str,
) -> Result<()> {
    let (tx, view) = cx.store();
    let found = references_in(tx, view, of, name).await?.join(", ");
    if found.is_empty() {
        return Ok(());
    }
    let text = format!("unable to delete {what} \"{name}\" because it is currently referenced by these {by}: {found}");
    Err(Error::invalid(text))
}

/// The names of the records that refer to one.
async fn references_in(tx: &mut ReadTx, view: &View, of: &Records<Mark>, name: &str) -> Result<Vec<String>> {
    of.list_verified_in(tx, view, &format!("{name}/"), &Page::first(MOST_NAMED)).await
}

/// Replaces a reference.
pub(super) fn refer(cx: &mut Cx, of: &Records<Mark>, by: &str, old: &[String], new: &[String]) -> Result<()> {
    for gone in old.iter().filter(|name| !new.contains(name)) {
        of.delete(cx, &format!("{gone}/{by}"));
    }
    for added in new.iter().filter(|name| !old.contains(name)) {
        of.put(cx, &format!("{added}/{by}"), &Mark {})?;
    }
    Ok(())
}

/// A sorted list without duplicates, with at most `most` texts of at most 2048 bytes.
///
/// # Errors
/// 400 when it is longer.
pub(super) fn bounded(field: &str, mut texts: Vec<String>, most: usize) -> Result<Vec<String>> {
    texts.sort();
    texts.dedup();
    check_bounds(field, &texts, most)?;
    Ok(texts)
}

/// Checks a list that keeps its order.
///
/// # Errors
/// 400 when it is too long.
pub(super) fn check_bounds(field: &str, texts: &[String], most: usize) -> Result<()> {
    if texts.len() > most || texts.iter().any(|text| text.len() > LONGEST_TEXT) {
        return Err(Error::invalid(format!("{field} has at most {most} entries of at most {LONGEST_TEXT} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deletion_conflicts_with_a_reference_that_is_added_meanwhile() {
        let server = crate::tests::fixture::TestServer::new().await;
        let barrier = server.unsealed().barrier.clone();
        let view = barrier.view("test/");
        for of in [&ROLES_OF_KEY, &CLIENTS_OF_KEY, &CLIENTS_OF_ASSIGNMENT, &PROVIDERS_OF_SCOPE] {
            let (mut deletes, mut refers) = (barrier.begin(), barrier.begin());
            assert!(references_in(&mut deletes, &view, of, "a").await.unwrap().is_empty());
            KEYS.delete_in(&mut deletes, &view, "a");
            of.put_in(&mut refers, &view, "a/b", &Mark {}).unwrap();
            refers.commit().await.unwrap();
            assert!(deletes.commit().await.is_err());
        }
    }
}
