//! `identity/oidc/role` and `identity/oidc/token`: identity tokens of the caller's entity.

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::fields::{Quoted, Seconds, Text, unless_null};
use keepfast_framework::reply::{Described, Outcome};
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::{Cx, Data, Error, Keys, Reply as _, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id_token::{self, IdToken};
use super::lists::{ByName, names};
use super::records::{LONGEST_TEXT, ROLES, ROLES_OF_KEY, Role, ensure_ring, key_settings, refer, ring};
use super::ring::KeySettings;
use super::stored::secret_text;
use super::{claims, issuer};
use crate::identity::engine::{IdentityEngine, identity, named};

const ROLE: Help = Help { synopsis: "Reads, creates, changes and deletes a role of identity tokens.", description: "" };
const LIST: Help = Help { synopsis: "Lists the roles of identity tokens.", description: "" };
const TOKEN: Help = Help { synopsis: "Returns an identity token of the caller's entity.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/role/", LIST).list(list);
    r.path("oidc/role/{name}", ROLE).names_only().read(read).update(write).delete(delete).exists(exists);
    r.path("oidc/token/{name}", TOKEN).names_only().read(token);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the role.
    name: Text,
    /// Name of the key that signs the tokens.
    key: Option<Text>,
    /// Template of further claims: JSON, or JSON in base64. Default: none.
    template: Option<Text>,
    /// TTL of the tokens in seconds, at most the verification_ttl of the key. Default: 24 hours.
    #[serde(default, deserialize_with = "unless_null")]
    ttl: Option<Seconds>,
    /// Audience of the tokens. Default: a random id.
    client_id: Option<Text>,
}

#[derive(Serialize, JsonSchema)]
struct RoleResponse {
    client_id: String,
    key: String,
    template: String,
    ttl: u64,
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(ROLES.get(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let name = &req.name;
    let known = ROLES.get(cx, name).await?;
    let old_key: Vec<String> = known.iter().map(|role| role.key.clone()).collect();
    let old = known.unwrap_or(Role {
        key: String::new(),
        client_id: String::new(),
        template: String::new(),
        ttl: KeySettings::default().verification_ttl,
    });
    let key = req.key.map_or(old.key, String::from);
    if key.is_empty() {
        return Err(Error::invalid("the key parameter is required"));
    }
    let template = req.template.map_or(old.template, |Text(template)| claims::decoded(template));
    claims::check(&template)?;
    let ttl = req.ttl.map_or(old.ttl, |Seconds(seconds)| seconds);
    let missing = || Error::invalid(format!("cannot find key {}", Quoted(&key)));
    let settings = key_settings(cx, &key).await?.ok_or_else(missing)?;
    if ttl > settings.verification_ttl {
        let text = "a role's token ttl cannot be longer than the verification_ttl of the key it references";
        return Err(Error::invalid(text));
    }
    let client_id = match req.client_id {
        Some(id) => named(Some(id)),
        None => Some(old.client_id).filter(|id| !id.is_empty()),
    };
    let client_id = client_id.unwrap_or_else(|| random::base62(26));
    if client_id.len() > LONGEST_TEXT {
        return Err(Error::invalid(format!("client_id has at most {LONGEST_TEXT} bytes")));
    }
    ensure_ring(cx, &key).await?;
    refer(cx, &ROLES_OF_KEY, name, &old_key, std::slice::from_ref(&key))?;
    ROLES.put(cx, name, &Role { key, client_id, template, ttl })
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<RoleResponse>>> {
    let role = ROLES.get(cx, &req.name).await?;
    Ok(role.map(|Role { key, client_id, template, ttl }| Described(RoleResponse { client_id, key, template, ttl })))
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(names(cx, &ROLES, None, req).await?))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    if let Some(role) = ROLES.get(cx, &req.name).await? {
        refer(cx, &ROLES_OF_KEY, &req.name, &[role.key], &[])?;
        ROLES.delete(cx, &req.name);
    }
    Ok(())
}

#[derive(Serialize)]
struct TokenResponse<'a> {
    client_id: &'a str,
    #[serde(with = "secret_text")]
    token: Option<SecretString>,
    ttl: u64,
}

async fn token(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Outcome> {
    let (name, now) = (&req.name, cx.now());
    let found = ROLES.get(cx, name).await?;
    let role = found.ok_or_else(|| Error::invalid(format!("role \"{name}\" not found")))?;
    let key = ring(cx, &role.key).await?;
    if !key.settings.allows(&role.client_id) {
        let text = format!(
            "the key \"{}\" does not list the client ID of the role \"{name}\" as an allowed client ID",
            role.key
        );
        return Err(Error::invalid(text));
    }
    let entity = cx.caller().entity_id.clone();
    let effective = identity(cx)?.effective(&entity).await?;
    let effective = effective.ok_or_else(|| Error::invalid("no entity associated with the request's token"))?;
    let mut left = claims::RENDERED_BYTES;
    let further = claims::render(&role.template, &claims::Source::Subject(&effective), now, &mut left);
    let further = further.map_err(Error::invalid)?;
    let issuer = issuer::of_roles(cx).await?;
    let signed = id_token::sign(
        &key.current,
        IdToken {
            issuer: &issuer,
            audience: &role.client_id,
            subject: &effective.entity.id,
            namespace: effective.entity.namespace.as_str(),
            ttl: role.ttl,
        },
        further,
        now,
    )?;
    Data(TokenResponse { client_id: &role.client_id, token: Some(signed), ttl: role.ttl }).into_outcome()
}
