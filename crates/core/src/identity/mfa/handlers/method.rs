//! `identity/mfa/method`: the MFA methods of all types.

use std::collections::BTreeMap;

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Nothing, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::engine::{IdentityEngine, checked_length, identity, page_of};
use crate::identity::mfa::records::{METHODS, Method, MethodSettings};

const METHOD: Help = Help { synopsis: "Reads an MFA method of any type.", description: "" };
const LIST: Help = Help { synopsis: "Lists the MFA methods of all types.", description: "" };

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("mfa/method/", LIST).list(list);
    r.paths(["mfa/method", "mfa/method/{method_id}"], METHOD).ids_only().read(read);
}

/// The id in a path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ById {
    /// Id of the MFA method.
    method_id: Text,
}

impl ById {
    /// The id, which the path may leave out.
    pub(super) fn given(&self) -> Result<&str> {
        given(&self.method_id)
    }
}

/// An id that is not empty.
pub(super) fn given(id: &str) -> Result<&str> {
    if id.is_empty() { Err(Error::invalid("missing method ID")) } else { Ok(id) }
}

/// A method as the API shows it.
#[derive(Serialize, JsonSchema)]
pub(super) struct MethodResponse {
    algorithm: String,
    digits: u32,
    id: String,
    issuer: String,
    key_size: usize,
    max_validation_attempts: u32,
    name: String,
    namespace_id: String,
    namespace_path: String,
    period: u64,
    qr_size: usize,
    skew: u64,
    #[serde(rename = "type")]
    kind: String,
}

impl From<Method> for MethodResponse {
    fn from(method: Method) -> Self {
        let kind = method.settings.kind().to_owned();
        let MethodSettings::Totp(settings) = method.settings;
        MethodResponse {
            algorithm: settings.algorithm.name().to_owned(),
            digits: settings.digits,
            id: method.id,
            issuer: settings.issuer,
            key_size: settings.key_size,
            max_validation_attempts: settings.max_validation_attempts,
            name: method.name,
            namespace_id: method.namespace.as_str().to_owned(),
            namespace_path: String::new(),
            period: settings.period,
            qr_size: settings.qr_size,
            skew: settings.skew,
            kind,
        }
    }
}

/// Reads a method of any type.
pub(super) async fn read(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<Option<Described<MethodResponse>>> {
    let identity = identity(cx)?;
    let found = identity.read(&METHODS, cx.store().0, req.given()?).await?;
    Ok(found.map(|method| Described(MethodResponse::from(method))))
}

/// Lists the methods of all types.
pub(super) async fn list(_: &IdentityEngine, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let identity = identity(cx)?;
    let ids = checked_length(METHODS.list(cx, "", &page_of(Paged::new(None, None))).await?)?;
    let mut info = BTreeMap::new();
    for id in ids {
        if let Some(method) = identity.read(&METHODS, cx.store().0, &id).await? {
            info.insert(id, MethodResponse::from(method));
        }
    }
    Keys::with_info(info.keys().cloned().collect(), &info)
}
