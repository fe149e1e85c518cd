//! `sys/control-group/`: members of groups see and approve the requests that control groups store.

use std::sync::Arc;

use keepfast_crypto::compare;
use keepfast_framework::fields::Text;
use keepfast_framework::reply::Outcome;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Data, Error, Result, Routes, Status, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{System, call, unsealed};
use crate::control_group::{
    Approval, Counted, GivenApproval, StoredRequest, read_approvals, read_request, write_approvals,
};
use crate::identity::Effective;
use crate::request::dispatch::CoreCall;
use crate::token::{Token, TokenKey};
use crate::unsealed::Unsealed;
use crate::wrapping::invalid;

const AUTHORIZE: Help = Help { synopsis: "Approves the stored request of a control group.", description: "" };
const REQUEST: Help = Help { synopsis: "Returns the stored request of a control group.", description: "" };

/// The path of the handler that shows a request.
const REQUEST_PATH: &str = "sys/control-group/request";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("control-group/authorize", AUTHORIZE).update(authorize);
    r.path("control-group/request", REQUEST).update(request).here();
}

#[derive(Deserialize, JsonSchema)]
struct AccessorRequest {
    /// The accessor of the wrapping token of the request.
    accessor: Option<Text>,
}

#[derive(Serialize)]
struct AuthorizeResponse {
    approved: bool,
}

#[derive(Serialize)]
struct RequestResponse {
    approved: bool,
    authorizations: Vec<Authorization>,
    request_data: Option<Map<String, Value>>,
    request_entity: Map<String, Value>,
    request_operation: String,
    request_path: String,
}

#[derive(Serialize)]
struct Authorization {
    entity_id: String,
    entity_name: String,
}

/// A stored request with its approvals.
struct Found {
    token: Arc<Token>,
    stored: StoredRequest,
    given: Vec<GivenApproval>,
    /// The namespace of the requester's token.
    namespace: Arc<Unsealed>,
}

fn listed(text: &str) -> Error {
    Error::invalid(format!("1 error occurred:\n\t* {text}\n\n"))
}

/// The stored request of the wrapping token with this accessor, in this namespace or below it.
async fn by_accessor(cx: &mut Cx, accessor: Option<Text>) -> Result<Found> {
    let accessor = accessor.filter(|text| !text.is_empty()).ok_or_else(|| listed("missing accessor"))?;
    let (unsealed, now) = (unsealed(cx)?, cx.now());
    let tokens = &unsealed.access.tokens;
    let key = tokens.place_of(&accessor);
    let found = tokens.at(&key, now).await?.filter(|token| token.record.accessor == accessor.0);
    let token = match found {
        Some(token) if unsealed.access.reaches(&token.record.namespace).await? => token,
        _ => return Err(listed("invalid accessor")),
    };
    let not_stored = || listed("invalid wrapping token");
    if !token.record.control_group {
        return Err(not_stored());
    }
    let (tx, _) = cx.store();
    // Read in this transaction: an approval of a request that runs at the same time is not written.
    tokens.record(tx, &key).await?.ok_or_else(not_stored)?;
    let stored = read_request(tokens, tx, &token).await?.ok_or_else(not_stored)?;
    let given = read_approvals(tokens, tx, &token).await?;
    let of_requester = unsealed.access.namespaces()?.usable(&stored.namespace).await?.ok_or_else(not_stored)?;
    Ok(Found { token, stored, given, namespace: of_requester })
}

impl Found {
    async fn counted(&self, given: &[GivenApproval], now: Timestamp) -> Result<Counted> {
        Counted::of(&self.namespace.access.identity, &self.stored.entity, given, now).await
    }

    /// The entity of the caller in the namespace of the requester; `None` for a token of another namespace, or without one.
    async fn caller(&self, call: &CoreCall) -> Result<Option<Arc<Effective>>> {
        let own = call.token.as_ref().filter(|token| token.record.namespace == self.stored.namespace);
        match own {
            Some(token) => self.namespace.access.identity.effective(&token.record.entity_id).await,
            None => Ok(None),
        }
    }
}

async fn authorize(_: &System, cx: &mut Cx, req: AccessorRequest) -> Result<Data<AuthorizeResponse>> {
    let mut found = by_accessor(cx, req.accessor).await?;
    let (call, now) = (call(cx)?, cx.now());
    if call.token.as_ref().is_none_or(|token| token.record.entity_id.is_empty()) {
        return Err(listed("empty entity ID"));
    }
    let not_approver = || Error::new(Status::FORBIDDEN, listed("permission denied").public().to_owned());
    let approver = found.caller(&call).await?.ok_or_else(not_approver)?;
    let counted = found.counted(&found.given, now).await?;
    let factors = &found.stored.factors;
    if !factors.iter().any(|factor| counted.allows(&approver, factor)) {
        let is_requester = counted.is_requester(&approver);
        return Err(if is_requester { listed("token owner cannot be approver") } else { not_approver() });
    }
    if counted.has(&approver, factors) {
        return Err(listed("approver has already authorized"));
    }
    found.given.retain(|given| given.entity != approver.entity.id);
    found.given.push(GivenApproval { entity: approver.entity.id.clone(), time: now });
    let approved = found.counted(&found.given, now).await?.satisfy(&found.stored.factors);
    write_approvals(&found.namespace.access.tokens, cx.store().0, &found.token, &found.given)?;
    Ok(Data(AuthorizeResponse { approved }))
}

async fn request(_: &System, cx: &mut Cx, req: AccessorRequest) -> Result<Data<RequestResponse>> {
    let found = by_accessor(cx, req.accessor).await?;
    let (call, now) = (call(cx)?, cx.now());
    let counted = found.counted(&found.given, now).await?;
    if !may_see(&found, &counted, &call, now).await? {
        return Err(Error::new(Status::FORBIDDEN, listed("permission denied").public().to_owned()));
    }
    let requester = found.namespace.access.identity.effective(&found.stored.entity).await?;
    let authorizations = counted.approvers().map(|approver| Authorization {
        entity_id: approver.effective.entity.id.clone(),
        entity_name: approver.effective.entity.name.clone(),
    });
    Ok(Data(RequestResponse {
        approved: counted.satisfy(&found.stored.factors),
        authorizations: authorizations.collect(),
        request_data: found.stored.data()?,
        request_entity: requester.map(|effective| shown_entity(&found.namespace, &effective)).unwrap_or_default(),
        request_operation: found.stored.operation.clone(),
        request_path: found.stored.path.clone(),
    }))
}

/// Whether a caller may see a request, which may have secrets: the requester, members of the groups, and callers with `sudo`.
async fn may_see(found: &Found, counted: &Counted, call: &CoreCall, now: Timestamp) -> Result<bool> {
    let own = |id: &keepfast_crypto::secret::SecretString| {
        compare::equal(id.expose().as_bytes(), found.stored.token.expose().as_bytes())
    };
    if call.id.as_ref().is_some_and(own) {
        return Ok(true);
    }
    if let Some(caller) = found.caller(call).await?
        && (counted.is_requester(&caller) || found.stored.factors.iter().any(|factor| counted.allows(&caller, factor)))
    {
        return Ok(true);
    }
    let path = format!("{}{REQUEST_PATH}", call.within());
    let capabilities = call.compiled.as_ref().map(|compiled| compiled.acl.capabilities(&path, now));
    Ok(capabilities.is_some_and(|all| all.contains(&"sudo") || all.contains(&"root")))
}

/// The entity of a requester in OpenBao's shape.
fn shown_entity(unsealed: &Unsealed, effective: &Effective) -> Map<String, Value> {
    let (namespace, router) = (unsealed.access.namespace.id.as_str(), unsealed.engines.mounts.router());
    let aliases = effective.entity.aliases.iter().map(|alias| {
        serde_json::json!({
            "mount_type": router.by_accessor(&alias.mount_accessor).map(|mounted| mounted.entry.engine.as_str()),
            "mount_accessor": alias.mount_accessor,
            "name": alias.name,
            "ID": alias.id,
            "namespace_id": namespace,
        })
    });
    Map::from_iter([
        ("ID".to_owned(), effective.entity.id.as_str().into()),
        ("name".to_owned(), effective.entity.name.as_str().into()),
        ("aliases".to_owned(), aliases.collect()),
        ("namespace_id".to_owned(), namespace.into()),
    ])
}

/// Runs the stored request of a wrapping token and returns its response.
pub(super) async fn run(cx: &mut Cx, key: TokenKey, token: Arc<Token>) -> Result<Outcome> {
    let (call, now) = (call(cx)?, cx.now());
    let unsealed = &call.unsealed;
    let namespaces = unsealed.access.namespaces()?;
    let (id, found) = (token.record.namespace.clone(), namespaces.usable(&token.record.namespace).await?);
    let found = found.ok_or_else(invalid)?;
    let access = &found.access;
    // The request deletes these records in its own transaction, with which that of the unwrap must not conflict.
    let mut tx = unsealed.barrier.begin_read();
    let stored = read_request(&access.tokens, &mut tx, &token).await?.ok_or_else(invalid)?;
    let given = read_approvals(&access.tokens, &mut tx, &token).await?;
    let (own, _) = access.of_namespace(&stored.namespace).ok_or_else(invalid)?;
    let approval = Approval::of((key, token), &stored, given, &own.identity, now).await?;
    let incoming = stored.incoming(&access.namespace.path)?;
    let response = namespaces.run_approved(&id, incoming, approval).await?;
    if let Some(index) = response.committed {
        // The first run of this handler is the only one that runs the request.
        let _ = call.ran.set(index);
    }
    Ok(response.outcome)
}
