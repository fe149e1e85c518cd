//! `sys/capabilities`, `sys/capabilities-self` and `sys/capabilities-accessor`: the capabilities of a token on given
//! paths.

use std::sync::Arc;

use keepfast_framework::fields::Text;
use keepfast_framework::path_field::PathTexts;
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes, Status};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{System, call, unsealed};
use crate::token::Token;
use crate::unsealed::{Access, Unsealed};

const HELP: Help = Help { synopsis: "Returns the capabilities of a token on paths.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("capabilities", HELP).update(of_token).here();
    r.path("capabilities-self", HELP).update(of_self).here();
    r.path("capabilities-accessor", HELP).update(of_accessor).here();
}

#[derive(Deserialize, JsonSchema)]
struct CapabilitiesRequest {
    /// The token.
    token: Option<Text>,
    /// Deprecated: use `paths`.
    path: Option<PathTexts>,
    /// The paths for which capabilities are returned.
    paths: Option<PathTexts>,
}

#[derive(Deserialize, JsonSchema)]
struct AccessorCapabilitiesRequest {
    /// The accessor of the token.
    accessor: Option<Text>,
    /// Deprecated: use `paths`.
    path: Option<PathTexts>,
    /// The paths for which capabilities are returned.
    paths: Option<PathTexts>,
}

fn listed(status: Status, text: &str) -> Error {
    Error::new(status, format!("1 error occurred:\n\t* {text}\n\n"))
}

async fn of_token(_: &System, cx: &mut Cx, req: CapabilitiesRequest) -> Result<Flat<Map<String, Value>>> {
    let paths = paths(req.paths, req.path)?;
    let Some(text) = req.token.filter(|t| !t.is_empty()) else {
        return Err(listed(Status::BAD_REQUEST, "no token found"));
    };
    let unsealed = unsealed(cx)?;
    let mut found = named(&unsealed, unsealed.access.tokens.find_anywhere(&text, cx.now()).await?).await?;
    if let Some(token) = &found
        && !Scope::of(&unsealed, token).await?.access.identity.allows_tokens_of(&token.record.entity_id).await?
    {
        found = None;
    }
    answer(cx, found.ok_or_else(|| listed(Status::BAD_REQUEST, "invalid token"))?, &paths).await
}

async fn of_self(_: &System, cx: &mut Cx, req: CapabilitiesRequest) -> Result<Flat<Map<String, Value>>> {
    let paths = paths(req.paths, req.path)?;
    let token = call(cx)?.token.clone().ok_or_else(Error::denied)?;
    answer(cx, token, &paths).await
}

async fn of_accessor(_: &System, cx: &mut Cx, req: AccessorCapabilitiesRequest) -> Result<Flat<Map<String, Value>>> {
    let Some(accessor) = req.accessor.filter(|a| !a.is_empty()) else { return Err(Error::invalid("missing accessor")) };
    let unsealed = unsealed(cx)?;
    let tokens = &unsealed.access.tokens;
    let found = tokens.at(&tokens.place_of(&accessor), cx.now()).await?.filter(|t| t.record.accessor == accessor.0);
    let own = found.filter(|token| token.record.namespace == unsealed.access.namespace.id);
    let found = own.ok_or_else(|| listed(Status::BAD_REQUEST, "invalid accessor"))?;
    answer(cx, found, &paths(req.paths, req.path)?).await
}

/// A token that may be named in the namespace of the call: one of it or below it.
async fn named(unsealed: &Unsealed, token: Option<Arc<Token>>) -> Result<Option<Arc<Token>>> {
    match token {
        Some(token) if unsealed.access.reaches(&token.record.namespace).await? => Ok(Some(token)),
        _ => Ok(None),
    }
}

fn paths(paths: Option<PathTexts>, path: Option<PathTexts>) -> Result<Vec<String>> {
    match paths.filter(|p| !p.0.is_empty()).or(path) {
        Some(PathTexts(paths)) if paths.iter().any(String::is_empty) => {
            Err(listed(Status::BAD_REQUEST, "missing path"))
        }
        Some(PathTexts(paths)) if !paths.is_empty() => Ok(paths),
        _ => Err(Error::invalid("paths must be supplied")),
    }
}

/// The namespace of a token, above or below that of the call.
struct Scope {
    access: Arc<Access>,
    /// The path of the namespace of the call in that of the token.
    within: String,
    /// The path of the namespace of the token in that of the call.
    below: String,
}

impl Scope {
    async fn of(unsealed: &Unsealed, token: &Token) -> Result<Self> {
        let (own, namespace) = (&unsealed.access, &token.record.namespace);
        if let Some((access, within)) = own.of_namespace(namespace) {
            return Ok(Scope { access, within: within.to_owned(), below: String::new() });
        }
        let found = own.namespaces()?.usable(namespace).await?.ok_or_else(Error::denied)?;
        let below = found.access.namespace.relative_to(&own.namespace.id).ok_or_else(Error::denied)?.to_owned();
        Ok(Scope { access: found.access.clone(), within: String::new(), below })
    }

    /// A path of the call as the policies of the token see it; `None` outside of the namespace of the token.
    fn path(&self, path: &str) -> Option<String> {
        Some(format!("{}{}", self.within, path.strip_prefix(&*self.below)?))
    }
}

async fn answer(cx: &Cx, token: Arc<Token>, paths: &[String]) -> Result<Flat<Map<String, Value>>> {
    let unsealed = unsealed(cx)?;
    let mut out = Map::new();
    let scope = Scope::of(&unsealed, &token).await?;
    for path in paths {
        let capabilities = match scope.path(path.strip_prefix('/').unwrap_or(path)) {
            Some(path) => {
                let compiled = scope.access.policies.acl_of(&token, &scope.access.identity).await?;
                compiled.acl.capabilities(&path, cx.now())
            }
            None => vec!["deny"],
        };
        out.insert(path.clone(), Value::from(capabilities));
    }
    if let [only] = paths {
        let capabilities = out[only].clone();
        out.insert("capabilities".to_owned(), capabilities);
    }
    Ok(Flat(out))
}
