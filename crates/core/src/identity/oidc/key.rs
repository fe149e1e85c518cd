//! `identity/oidc/key`: named keys, which sign identity tokens.

use keepfast_framework::fields::{CommaList, Seconds, Text, unless_null};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use keepfast_storage::{ReadTx, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::lists::{ByName, names};
use super::records::{
    CLIENTS, CLIENTS_OF_KEY, MOST_CLIENT_IDS, ROLES, ROLES_OF_KEY, check_bounds, check_unreferenced, ensure_ring,
    key_settings,
};
use super::ring::{DEFAULT_KEY, KEYS, KeyRecord, KeySettings, SigningKey};
use crate::identity::engine::IdentityEngine;

const KEY: Help = Help { synopsis: "Reads, creates, changes and deletes a key of identity tokens.", description: "" };
const LIST: Help = Help { synopsis: "Lists the keys of identity tokens.", description: "" };
const ROTATE: Help = Help {
    synopsis: "Rotates a key of identity tokens.",
    description: "The next key, which is already published, becomes the signing key. The former one stays published \
        for the verification_ttl.",
};

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/key/", LIST).list(list);
    r.path("oidc/key/{name}", KEY).names_only().read(read).update(write).delete(delete).exists(exists);
    r.path("oidc/key/{name}/rotate", ROTATE).names_only().update(rotate);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the key.
    name: Text,
    /// Signature algorithm: RS256, RS384, RS512, ES256, ES384, ES512 or EdDSA. Default: RS256.
    algorithm: Option<Text>,
    /// Seconds between rotations, at least 60. Default: 24 hours.
    #[serde(default, deserialize_with = "unless_null")]
    rotation_period: Option<Seconds>,
    /// Seconds for which a key stays published after its rotation, at most ten rotation periods. Default: 24 hours.
    #[serde(default, deserialize_with = "unless_null")]
    verification_ttl: Option<Seconds>,
    /// Comma-separated ids of the clients that may use the key, `*` for all. Default: none.
    allowed_client_ids: Option<CommaList>,
}

#[derive(Serialize, JsonSchema)]
struct KeyResponse {
    algorithm: &'static str,
    allowed_client_ids: Vec<String>,
    rotation_period: u64,
    verification_ttl: u64,
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(key_settings(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let (name, now) = (&req.name, cx.now());
    let stored = KEYS.get(cx, name).await?;
    let known = match &stored {
        Some(key) => Some(key.settings.clone()),
        None => key_settings(cx, name).await?,
    };
    let old = known.unwrap_or_default();
    let settings = KeySettings {
        algorithm: req.algorithm.map_or(Ok(old.algorithm), |algorithm| Algorithm::named(&algorithm))?,
        rotation_period: req.rotation_period.map_or(old.rotation_period, |Seconds(seconds)| seconds),
        verification_ttl: req.verification_ttl.map_or(old.verification_ttl, |Seconds(seconds)| seconds),
        allowed_client_ids: req.allowed_client_ids.map_or(old.allowed_client_ids, |CommaList(ids)| ids),
    };
    settings.check()?;
    check_bounds("allowed_client_ids", &settings.allowed_client_ids, MOST_CLIENT_IDS)?;
    if settings.verification_ttl < old.verification_ttl {
        let (tx, view) = cx.store();
        check_referring_ttls(tx, view, name, settings.verification_ttl).await?;
    }
    let record = match stored {
        Some(mut key) => {
            key.change(settings, now).await?;
            key
        }
        None => KeyRecord::create(settings, now).await?,
    };
    KEYS.put(cx, name, &record)
}

/// Refuses a verification TTL that tokens of a role or client would outlive. The commit fails when others refer to the
/// key by then.
async fn check_referring_ttls(tx: &mut ReadTx, view: &View, name: &str, ttl: u64) -> Result<()> {
    let refused = |by: &str| {
        let text = format!(
            "unable to update key {name:?} because it is currently referenced by one or more {by} greater than {ttl} \
             seconds"
        );
        Err(Error::invalid(text))
    };
    let all = keepfast_framework::Page::all();
    for role in ROLES_OF_KEY.list_verified_in(tx, view, &format!("{name}/"), &all).await? {
        if ROLES.get_in(tx, view, &role).await?.is_some_and(|role| role.ttl > ttl) {
            return refused("roles with a token ttl");
        }
    }
    for client in CLIENTS_OF_KEY.list_verified_in(tx, view, &format!("{name}/"), &all).await? {
        if CLIENTS.get_in(tx, view, &client).await?.is_some_and(|client| client.longest_signed_ttl() > ttl) {
            return refused("clients with an id_token_ttl");
        }
    }
    Ok(())
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<KeyResponse>>> {
    let settings = key_settings(cx, &req.name).await?;
    Ok(settings.map(|settings| {
        Described(KeyResponse {
            algorithm: settings.algorithm.name(),
            allowed_client_ids: settings.allowed_client_ids,
            rotation_period: settings.rotation_period,
            verification_ttl: settings.verification_ttl,
        })
    }))
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(names(cx, &KEYS, Some(DEFAULT_KEY), req).await?))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let name = &req.name;
    if **name == *DEFAULT_KEY {
        return Err(Error::invalid("deletion of key \"default\" not allowed"));
    }
    check_unreferenced(cx, (&ROLES_OF_KEY, "roles"), "key", name).await?;
    check_unreferenced(cx, (&CLIENTS_OF_KEY, "clients"), "key", name).await?;
    KEYS.delete(cx, name);
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
struct Rotate {
    /// Name of the key.
    name: Text,
    /// Seconds for which the present signing key stays published. Default: the verification_ttl of the key.
    #[serde(default, deserialize_with = "unless_null")]
    verification_ttl: Option<Seconds>,
}

async fn rotate(_: &IdentityEngine, cx: &mut Cx, req: Rotate) -> Result<()> {
    let (name, now) = (&req.name, cx.now());
    ensure_ring(cx, name).await?;
    let stored = KEYS.get(cx, name).await?;
    let mut key = stored.ok_or_else(|| Error::invalid(format!("no named key found at \"{name}\"")))?;
    let ttl = req.verification_ttl.map_or(key.settings.verification_ttl, |Seconds(seconds)| seconds);
    key.check_retired(now)?;
    // A retired key does not stay longer than a key may by its settings.
    let ttl = ttl.min(key.settings.longest_verification_ttl());
    key.rotate(SigningKey::generate(key.settings.algorithm).await?, now, ttl);
    KEYS.put(cx, name, &key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::record::Mark;

    #[tokio::test]
    async fn a_shorter_ttl_conflicts_with_a_reference_that_is_added_meanwhile() {
        let server = crate::tests::fixture::TestServer::new().await;
        let barrier = server.unsealed().barrier.clone();
        let view = barrier.view("test/");
        for of in [&ROLES_OF_KEY, &CLIENTS_OF_KEY] {
            let (mut changes, mut refers) = (barrier.begin(), barrier.begin());
            check_referring_ttls(&mut changes, &view, "a", 100).await.unwrap();
            KEYS.delete_in(&mut changes, &view, "a");
            of.put_in(&mut refers, &view, "a/b", &Mark {}).unwrap();
            refers.commit().await.unwrap();
            assert!(changes.commit().await.is_err());
        }
    }
}
