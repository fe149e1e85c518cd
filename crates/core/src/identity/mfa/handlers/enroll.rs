//! `identity/mfa/method/totp/generate`, `admin-generate` and `admin-destroy`: the TOTP secrets of entities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::Zeroizing;
use keepfast_framework::fields::{Quoted, Text};
use keepfast_framework::reply::Outcome;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::method::given;
use crate::identity::engine::{IdentityEngine, call, identity, named};
use crate::identity::mfa::qr;
use crate::identity::mfa::records::{Method, MethodSettings};
use crate::identity::store::Identity;

const GENERATE: Help = Help {
    synopsis: "Creates the TOTP secret of the caller's entity for a method.",
    description: "The response has the URL of the secret, and its QR code as a PNG image in base64. It is returned once.",
};
const ADMIN_GENERATE: Help = Help {
    synopsis: "Creates the TOTP secret of an entity for a method.",
    description: "The response has the URL of the secret, and its QR code as a PNG image in base64. It is returned once.",
};
const ADMIN_DESTROY: Help = Help { synopsis: "Deletes the TOTP secret of an entity for a method.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("mfa/method/totp/generate", GENERATE).update(generate);
    r.path("mfa/method/totp/admin-generate", ADMIN_GENERATE).update(admin_generate);
    r.path("mfa/method/totp/admin-destroy", ADMIN_DESTROY).update(admin_destroy);
}

#[derive(Deserialize, JsonSchema)]
struct Generate {
    /// Id of the MFA method.
    method_id: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct OfEntity {
    /// Id of the MFA method.
    method_id: Option<Text>,
    /// Id of the entity.
    entity_id: Option<Text>,
}

async fn generate(_: &IdentityEngine, cx: &mut Cx, req: Generate) -> Result<Outcome> {
    let method = given(req.method_id.as_deref().unwrap_or_default())?.to_owned();
    let token = call(cx)?.token.clone();
    let entity = token.map(|token| token.record.entity_id.clone()).filter(|id| !id.is_empty()).ok_or_else(no_entity)?;
    enroll(cx, &method, &entity).await
}

async fn admin_generate(_: &IdentityEngine, cx: &mut Cx, req: OfEntity) -> Result<Outcome> {
    let method = given(req.method_id.as_deref().unwrap_or_default())?.to_owned();
    let entity = named(req.entity_id).ok_or_else(no_entity)?;
    enroll(cx, &method, &entity).await
}

async fn admin_destroy(_: &IdentityEngine, cx: &mut Cx, req: OfEntity) -> Result<()> {
    let method = given(req.method_id.as_deref().unwrap_or_default())?.to_owned();
    let entity = named(req.entity_id).ok_or_else(|| Error::invalid("missing entity ID"))?;
    let identity = identity(cx)?;
    let tx = cx.store().0;
    method_of(&identity, tx, &method).await?;
    let entity = entity_of(&identity, tx, &entity).await?;
    identity.unenroll(tx, &entity, &method);
    Ok(())
}

/// Creates the secret of an entity for a method. An entity with one keeps it, with a warning.
async fn enroll(cx: &mut Cx, method: &str, entity: &str) -> Result<Outcome> {
    let identity = identity(cx)?;
    let (tx, view) = cx.store();
    let Method { id, name, settings, .. } = method_of(&identity, tx, method).await?;
    let MethodSettings::Totp(settings) = settings;
    let entity = entity_of(&identity, tx, entity).await?;
    let Some(secret) = identity.enroll(tx, view, (&entity, &id), &settings).await? else {
        cx.warn(format!("Entity already has a secret for MFA method {}", Quoted(&name)));
        return Ok(Outcome::Empty(None));
    };
    let url = secret.form.url(secret.key.expose(), &settings.issuer, &entity);
    let barcode = Zeroizing::new(match settings.qr_size {
        0 => String::new(),
        size => STANDARD.encode(&*qr::png(url.expose(), size)?),
    });
    // Both are texts without characters to escape. Written to its final size: a text that grows leaves copies behind.
    let mut json = String::with_capacity(barcode.len() + url.expose().len() + 26);
    json.extend(["{\"barcode\":\"", &barcode, "\",\"url\":\"", url.expose(), "\"}"]);
    Ok(Outcome::of(RawValue::from_string(json)?))
}

/// The method with this id, of this namespace or one above.
async fn method_of(identity: &Identity, tx: &mut Tx, id: &str) -> Result<Method> {
    let unknown = || Error::invalid(format!("configuration for method ID {} does not exist", Quoted(id)));
    identity.mfa_method(tx, id).await?.ok_or_else(unknown)
}

/// The id of the entity with this id, or of the one that it was merged into.
async fn entity_of(identity: &Identity, tx: &mut Tx, id: &str) -> Result<String> {
    let found = identity.read_effective(tx, id).await?.map(|effective| effective.entity.id);
    found.ok_or_else(|| Error::invalid("invalid entity ID"))
}

fn no_entity() -> Error {
    Error::invalid("missing entityID")
}
