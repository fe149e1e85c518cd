//! `identity/oidc/scope`: further claims, which a relying party requests by name.

use std::collections::{BTreeMap, BTreeSet};

use keepfast_framework::fields::Text;
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claims;
use super::claims::Source;
use super::jws::Claims;
use super::lists::{ByName, names};
use super::records::{LONGEST_TEXT, PROVIDERS_OF_SCOPE, Provider, SCOPES, Scope, check_unreferenced};
use crate::identity::engine::IdentityEngine;

const SCOPE: Help = Help { synopsis: "Reads, creates, changes and deletes a scope.", description: "" };
const LIST: Help = Help { synopsis: "Lists the scopes.", description: "" };

/// The scope that every request has.
pub(super) const OPENID: &str = "openid";

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/scope/", LIST).list(list);
    r.path("oidc/scope/{name}", SCOPE).names_only().read(read).update(write).delete(delete).exists(exists);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the scope.
    name: Text,
    /// Template of its claims: JSON, or JSON in base64. Default: none.
    template: Option<Text>,
    /// Description of the scope.
    description: Option<Text>,
}

#[derive(Serialize, JsonSchema)]
struct ScopeResponse {
    description: String,
    template: String,
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(SCOPES.get(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    if *req.name == *OPENID {
        return Err(Error::invalid("the \"openid\" scope name is reserved"));
    }
    let mut record = SCOPES.get(cx, &req.name).await?.unwrap_or_default();
    if let Some(Text(template)) = req.template {
        record.template = claims::decoded(template);
        claims::check(&record.template)?;
    }
    if let Some(Text(description)) = req.description {
        if description.len() > LONGEST_TEXT {
            return Err(Error::invalid(format!("description has at most {LONGEST_TEXT} bytes")));
        }
        record.description = description;
    }
    SCOPES.put(cx, &req.name, &record)
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<ScopeResponse>>> {
    let found = SCOPES.get(cx, &req.name).await?;
    Ok(found.map(|Scope { description, template }| Described(ScopeResponse { description, template })))
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(names(cx, &SCOPES, None, req).await?))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let name = &req.name;
    check_unreferenced(cx, (&PROVIDERS_OF_SCOPE, "providers"), "scope", name).await?;
    SCOPES.delete(cx, name);
    Ok(())
}

/// The claims of the requested scopes that the provider supports.
///
/// # Errors
/// The inner text when two scopes have the same claim, or the claims are too long or forbidden.
pub(super) async fn claims_of(
    cx: &mut Cx,
    provider: &Provider,
    requested: &[String],
    source: &Source<'_>,
    now: Timestamp,
) -> Result<Result<Claims, String>> {
    let (mut all, mut left) = (Claims::new(), claims::RENDERED_BYTES);
    let mut by = BTreeMap::<String, &String>::new();
    for name in requested.iter().filter(|name| provider.scopes_supported.contains(name)) {
        let Some(scope) = SCOPES.get(cx, name).await? else { continue };
        let rendered = match claims::render(&scope.template, source, now, &mut left) {
            Ok(rendered) => rendered,
            Err(why) => return Ok(Err(why)),
        };
        for (claim, value) in rendered {
            if let Some(other) = by.insert(claim.clone(), name) {
                return Ok(Err(format!(
                    "found scopes with conflicting top-level claim: claim \"{claim}\" in scopes \"{other}\", \"{name}\""
                )));
            }
            all.insert(claim, value);
        }
    }
    Ok(Ok(all))
}

/// The requested scopes of a text that the provider supports, without `openid`; `None` when the text lacks `openid`.
pub(super) fn requested(provider: &Provider, text: &str) -> Option<Vec<String>> {
    let mut has_openid = false;
    let mut scopes = Vec::new();
    // Those that are not in `scopes` yet. A set, because the text of client credentials may be long.
    let mut left: BTreeSet<&str> = provider.scopes_supported.iter().map(String::as_str).collect();
    for name in text.split_ascii_whitespace() {
        has_openid |= name == OPENID;
        if left.remove(name) {
            scopes.push(name.to_owned());
        }
    }
    has_openid.then_some(scopes)
}
