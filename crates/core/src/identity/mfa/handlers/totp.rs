//! `identity/mfa/method/totp`: TOTP methods.

use keepfast_crypto::{hash, random};
use keepfast_framework::fields::{Int, Seconds, Text};
use keepfast_framework::reply::Outcome;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Page, Result, Routes};
use keepfast_storage::{Tx, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::method::{self, ById};
use crate::identity::engine::{IdentityEngine, identity, named};
use crate::identity::mfa::qr;
use crate::identity::mfa::records::{
    ENFORCEMENTS, ENFORCEMENTS_OF_METHOD, METHOD_NAMES, METHODS, Method, MethodSettings, TotpSettings,
};
use crate::identity::mfa::totp::Algorithm;
use crate::identity::record::Reference;
use crate::identity::store::Identity;

const METHOD: Help = Help {
    synopsis: "Reads, creates, changes and deletes a TOTP method.",
    description: "A change of a method applies to secrets that are created after it, except max_validation_attempts.",
};
const LIST: Help = Help { synopsis: "Lists the TOTP methods.", description: "" };

/// The longest issuer, in bytes: longer ones do not fit into QR codes.
const LONGEST_ISSUER: usize = 256;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 256;
/// The largest secret, in bytes: longer ones do not fit into QR codes.
const LARGEST_KEY: i64 = 256;
/// The largest QR code, in pixels.
const LARGEST_QR: i64 = 1000;
/// The longest period, in seconds.
const LONGEST_PERIOD: u64 = 3600;
/// The number of wrong codes that are allowed by default.
const DEFAULT_ATTEMPTS: i64 = 5;
/// The most wrong codes that may be allowed.
const MOST_ATTEMPTS: i64 = 1000;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    // TOTP is the only type.
    r.path("mfa/method/totp/", LIST).list(method::list);
    r.paths(["mfa/method/totp", "mfa/method/totp/{method_id}"], METHOD)
        .ids_only()
        .read(method::read)
        .update(write)
        .delete(delete);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id of an existing MFA method. Default: a new method.
    method_id: Text,
    /// Unique name of the method. Default: none.
    method_name: Option<Text>,
    /// Number of wrong codes after which codes are refused until the next period. Default: 5.
    max_validation_attempts: Option<Int>,
    /// Issuer that authenticators show.
    issuer: Option<Text>,
    /// Seconds for which a code is current. Default: 30.
    period: Option<Seconds>,
    /// Bytes of a secret. Default: 20.
    key_size: Option<Int>,
    /// Width and height of the QR code in pixels; 0 for none. Default: 200.
    qr_size: Option<Int>,
    /// Hash function: `SHA1`, `SHA256` or `SHA512`. Default: `SHA1`.
    algorithm: Option<Text>,
    /// Digits of a code: 6 or 8. Default: 6.
    digits: Option<Int>,
    /// Periods before and after the current one whose codes are accepted: 0 or 1. Default: 1.
    skew: Option<Int>,
}

impl Write {
    /// The settings of the request.
    fn settings(&self) -> Result<TotpSettings> {
        let number = |given: Option<Int>, default: i64| given.map_or(default, |Int(number)| number);
        let invalid = |text: &'static str| Error::invalid(text);
        let algorithm = self.algorithm.as_deref().unwrap_or("SHA1");
        let algorithm = Algorithm::named(algorithm).ok_or_else(|| invalid("unrecognized algorithm"))?;
        let digits = match number(self.digits, 6) {
            6 => 6,
            8 => 8,
            _ => return Err(invalid("digits can only be 6 or 8")),
        };
        let period = self.period.map_or(30, |Seconds(seconds)| seconds);
        if period == 0 {
            return Err(invalid("period must be greater than zero"));
        }
        let skew = match number(self.skew, 1) {
            skew @ 0..=1 => skew.unsigned_abs(),
            _ => return Err(invalid("skew must be 0 or 1")),
        };
        let key_size = number(self.key_size, 20);
        if key_size <= 0 {
            return Err(invalid("key_size must be greater than zero"));
        }
        let issuer = self.issuer.as_deref().unwrap_or_default();
        if issuer.is_empty() {
            return Err(invalid("issuer must be set"));
        }
        let attempts = match number(self.max_validation_attempts, DEFAULT_ATTEMPTS) {
            0 => DEFAULT_ATTEMPTS,
            attempts => attempts,
        };
        if attempts < 0 {
            return Err(invalid("max_validation_attempts must be greater than zero"));
        }
        let qr_size = number(self.qr_size, 200);
        let bounds = [
            ("issuer", issuer.len() <= LONGEST_ISSUER),
            ("period", period <= LONGEST_PERIOD),
            ("key_size", key_size <= LARGEST_KEY),
            ("qr_size", (0..=LARGEST_QR).contains(&qr_size)),
            ("max_validation_attempts", attempts <= MOST_ATTEMPTS),
        ];
        if let Some((name, _)) = bounds.into_iter().find(|(_, is_within)| !is_within) {
            return Err(Error::invalid(format!("{name} is out of range")));
        }
        Ok(TotpSettings {
            issuer: issuer.to_owned(),
            period,
            key_size: usize::try_from(key_size).unwrap_or_default(),
            qr_size: usize::try_from(qr_size).unwrap_or_default(),
            algorithm,
            digits,
            skew,
            max_validation_attempts: u32::try_from(attempts).unwrap_or_default(),
        })
    }
}

#[derive(Serialize)]
struct Created {
    method_id: String,
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<Outcome> {
    let identity = identity(cx)?;
    let (tx, view) = cx.store();
    let known = match req.method_id.is_empty() {
        true => None,
        false => Some(identity.read(&METHODS, tx, &req.method_id).await?.ok_or_else(Error::not_found)?),
    };
    let settings = req.settings()?;
    qr::check(&settings)?;
    let settings = MethodSettings::Totp(settings);
    let is_new = known.is_none();
    let mut method = match known {
        Some(known) => Method { settings, ..known },
        None => Method { namespace: identity.namespace.clone(), id: random::uuid(), name: String::new(), settings },
    };
    if let Some(name) = named(req.method_name).filter(|name| *name != method.name) {
        rename(&identity, tx, view, &mut method, name).await?;
    }
    METHODS.put_in(tx, view, &method.id, &method)?;
    match is_new {
        true => Ok(Outcome::of(to_raw_value(&Created { method_id: method.id })?)),
        false => Ok(Outcome::Empty(None)),
    }
}

/// Gives a method another name, which no other may have.
async fn rename(identity: &Identity, tx: &mut Tx, view: &View, method: &mut Method, name: String) -> Result<()> {
    if name.len() > LONGEST_NAME {
        return Err(Error::invalid("method_name is too long"));
    }
    if identity.read(&METHOD_NAMES, tx, &name_key(&name)).await?.is_some() {
        let text = format!("a login MFA method configuration with the method name {name} already exists");
        return Err(Error::invalid(text));
    }
    if !method.name.is_empty() {
        METHOD_NAMES.delete_in(tx, view, &name_key(&method.name));
    }
    let (id, namespace) = (method.id.clone(), method.namespace.clone());
    METHOD_NAMES.put_in(tx, view, &name_key(&name), &Reference { id, name: name.clone(), namespace })?;
    method.name = name;
    Ok(())
}

/// Deletes a method. The background tasks delete its secrets.
async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ById) -> Result<()> {
    let identity = identity(cx)?;
    let (tx, view) = cx.store();
    let Some(method) = identity.read(&METHODS, tx, req.given()?).await? else { return Ok(()) };
    let folder = format!("{}/", method.id);
    let users = ENFORCEMENTS_OF_METHOD.list_verified_in(tx, view, &folder, &Page::first(1)).await?;
    if let Some(name) = users.first() {
        let user = identity.read(&ENFORCEMENTS, tx, name).await?.map(|user| user.id).unwrap_or_default();
        return Err(Error::invalid(format!("methodID is still used by an enforcement configuration with ID: {user}")));
    }
    if !method.name.is_empty() {
        METHOD_NAMES.delete_in(tx, view, &name_key(&method.name));
    }
    METHODS.delete_in(tx, view, &method.id);
    Ok(())
}

/// The key of the name of a method. Names are compared exactly, because codes are sent by them.
fn name_key(name: &str) -> String {
    hex::encode(hash::sha256(name.as_bytes()))
}
