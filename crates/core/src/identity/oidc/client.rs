//! `identity/oidc/client`: relying parties.

use std::collections::BTreeMap;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::{CommaList, Flag, Quoted, Seconds, Text, unless_null};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{ByName, names, with_info};
use super::records::{
    ALLOW_ALL, CLIENT_IDS, CLIENTS, CLIENTS_OF_ASSIGNMENT, CLIENTS_OF_KEY, Client, ClientType, assignment, bounded,
    ensure_ring, key_settings, refer,
};
use super::ring::DEFAULT_KEY;
use super::stored::secret_text;
use crate::identity::engine::IdentityEngine;

const CLIENT: Help = Help { synopsis: "Reads, creates, changes and deletes a client.", description: "" };
const LIST: Help = Help { synopsis: "Lists the clients.", description: "" };

/// The prefix of client secrets.
const SECRET: &str = "hvo_secret_";
/// The default TTL of tokens, in seconds.
const DEFAULT_TTL: u64 = 86_400;
/// The maximum number of redirect URIs and of assignments of a client.
const MOST_ENTRIES: usize = 100;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/client/", LIST).list(list);
    r.path("oidc/client/{name}", CLIENT).names_only().read(read).update(write).delete(delete).exists(exists);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the client.
    name: Text,
    /// Name of the key that signs its tokens, which cannot be changed. Default: `default`.
    key: Option<Text>,
    /// Comma-separated redirect URIs, of which a request must have one. Default: none.
    redirect_uris: Option<CommaList>,
    /// Comma-separated names of assignments. Default: none.
    assignments: Option<CommaList>,
    /// TTL of its identity tokens in seconds, at most the verification_ttl of the key. Default: 24 hours.
    #[serde(default, deserialize_with = "unless_null")]
    id_token_ttl: Option<Seconds>,
    /// TTL of its access tokens in seconds. Default: 24 hours.
    #[serde(default, deserialize_with = "unless_null")]
    access_token_ttl: Option<Seconds>,
    /// Type of the client, which cannot be changed: `confidential` or `public`. Default: `confidential`.
    client_type: Option<Text>,
    /// Whether the authorization code flow is enabled. Default: true.
    authorization_code: Option<Flag>,
    /// Whether the client credentials flow is enabled, for a confidential client. Default: false.
    client_credentials: Option<Flag>,
}

#[derive(Serialize, JsonSchema)]
struct ClientResponse {
    access_token_ttl: u64,
    assignments: Vec<String>,
    authorization_code: bool,
    client_credentials: bool,
    client_id: String,
    #[serde(with = "secret_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    client_secret: Option<SecretString>,
    client_type: &'static str,
    id_token_ttl: u64,
    key: String,
    redirect_uris: Vec<String>,
}

impl ClientResponse {
    fn new(client: Client) -> Self {
        ClientResponse {
            access_token_ttl: client.access_token_ttl,
            assignments: client.assignments,
            authorization_code: client.authorization_code,
            client_credentials: client.client_credentials,
            client_id: client.client_id,
            client_secret: client.secret,
            client_type: client.client_type.name(),
            id_token_ttl: client.id_token_ttl,
            key: client.key,
            redirect_uris: client.redirect_uris,
        }
    }
}

impl ClientType {
    fn name(self) -> &'static str {
        match self {
            ClientType::Confidential => "confidential",
            ClientType::Public => "public",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let found = [ClientType::Confidential, ClientType::Public].into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| Error::invalid(format!("invalid client_type {}", Quoted(name))))
    }
}

impl Client {
    fn new(key: String, client_type: ClientType) -> Self {
        let secret = || SecretString::new(format!("{SECRET}{}", random::base62(64)));
        Client {
            client_id: random::base62(32),
            secret: (client_type == ClientType::Confidential).then(secret),
            client_type,
            key,
            redirect_uris: Vec::new(),
            assignments: Vec::new(),
            id_token_ttl: DEFAULT_TTL,
            access_token_ttl: DEFAULT_TTL,
            authorization_code: true,
            client_credentials: false,
        }
    }

    /// The longest TTL of a token that its key signs.
    pub(super) fn longest_signed_ttl(&self) -> u64 {
        // The access tokens of this flow are signed, too.
        if self.client_credentials { self.id_token_ttl.max(self.access_token_ttl) } else { self.id_token_ttl }
    }
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(CLIENTS.get(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let name = &req.name;
    let known = CLIENTS.get(cx, name).await?;
    let old = known.as_ref().map(|client| (vec![client.key.clone()], client.assignments.clone()));
    let (old_keys, old_assignments) = old.unwrap_or_default();
    let client_type = req.client_type.map(|Text(kind)| kind);
    let mut client = match known {
        Some(client) => {
            if req.key.is_some_and(|key| *key != *client.key) {
                return Err(Error::invalid("key modification is not allowed"));
            }
            if client_type.is_some_and(|kind| kind != client.client_type.name()) {
                return Err(Error::invalid("client_type modification is not allowed"));
            }
            client
        }
        None => {
            let kind = client_type.map_or(Ok(ClientType::default()), |kind| ClientType::named(&kind))?;
            Client::new(req.key.map_or_else(|| DEFAULT_KEY.to_owned(), String::from), kind)
        }
    };
    if let Some(CommaList(uris)) = req.redirect_uris {
        client.redirect_uris = bounded("redirect_uris", uris, MOST_ENTRIES)?;
    }
    if let Some(CommaList(assignments)) = req.assignments {
        let assignments = assignments.into_iter().filter(|name| !name.is_empty()).collect();
        client.assignments = bounded("assignments", assignments, MOST_ENTRIES)?;
        check_assignments(cx, &client.assignments).await?;
    }
    client.id_token_ttl = req.id_token_ttl.map_or(client.id_token_ttl, |Seconds(seconds)| seconds);
    client.access_token_ttl = req.access_token_ttl.map_or(client.access_token_ttl, |Seconds(seconds)| seconds);
    client.authorization_code = req.authorization_code.map_or(client.authorization_code, |Flag(flag)| flag);
    client.client_credentials = req.client_credentials.map_or(client.client_credentials, |Flag(flag)| flag);
    check_key(cx, &client).await?;
    ensure_ring(cx, &client.key).await?;
    refer(cx, &CLIENTS_OF_KEY, name, &old_keys, std::slice::from_ref(&client.key))?;
    let assigned: Vec<String> = client.assignments.iter().filter(|name| *name != ALLOW_ALL).cloned().collect();
    refer(cx, &CLIENTS_OF_ASSIGNMENT, name, &old_assignments, &assigned)?;
    CLIENT_IDS.put(cx, &client.client_id, &String::from(&**name))?;
    CLIENTS.put(cx, name, &client)
}

async fn check_assignments(cx: &mut Cx, names: &[String]) -> Result<()> {
    for name in names {
        if assignment(cx, name).await?.is_none() {
            return Err(Error::invalid(format!("assignment {} does not exist", Quoted(name))));
        }
    }
    Ok(())
}

async fn check_key(cx: &mut Cx, client: &Client) -> Result<()> {
    let Some(settings) = key_settings(cx, &client.key).await? else {
        return Err(Error::invalid(format!("key {} does not exist", Quoted(&client.key))));
    };
    if client.id_token_ttl > settings.verification_ttl {
        let text = "a client's id_token_ttl cannot be greater than the verification_ttl of the key it references";
        return Err(Error::invalid(text));
    }
    if client.client_credentials && client.client_type == ClientType::Public {
        return Err(Error::invalid("client_credentials=true is only allowed for client_type=confidential"));
    }
    if client.longest_signed_ttl() > settings.verification_ttl {
        let text = "the access_token_ttl of a client with client_credentials cannot be greater than the \
            verification_ttl of the key it references";
        return Err(Error::invalid(text));
    }
    Ok(())
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<ClientResponse>>> {
    Ok(CLIENTS.get(cx, &req.name).await?.map(|client| Described(ClientResponse::new(client))))
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    let mut found = BTreeMap::new();
    for name in names(cx, &CLIENTS, None, req).await? {
        if let Some(client) = CLIENTS.get(cx, &name).await? {
            found.insert(name, ClientResponse::new(Client { secret: None, ..client }));
        }
    }
    with_info(found)
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let name = &req.name;
    if let Some(client) = CLIENTS.get(cx, name).await? {
        refer(cx, &CLIENTS_OF_KEY, name, &[client.key], &[])?;
        refer(cx, &CLIENTS_OF_ASSIGNMENT, name, &client.assignments, &[])?;
        CLIENT_IDS.delete(cx, &client.client_id);
        CLIENTS.delete(cx, name);
    }
    Ok(())
}
