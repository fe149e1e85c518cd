//! `sys/policies/explain`: why the policies of a token, an entity or a list allow or deny a request.
//!
//! The caller learns no more than other paths show: another token or entity needs the capability on its lookup path, a
//! rule the capability `read` on its policy, a mount `read` on `sys/mounts` or `sys/auth`. A subject that is unknown and
//! one that the caller may not look up are the same error.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::fields::{CommaList, Object, Seconds, Text};
use keepfast_framework::routes::Help;
use keepfast_framework::{CanonicalPath, Cx, Data, Error, Operation, Result, Routes, Status};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{System, call, unsealed};
use crate::policy::acl::operation_named;
use crate::policy::explain::{Explanation, KnownRoute, Question, explain};
use crate::policy::store::PolicySubject;
use crate::policy::{Acl, AclRequest};
use crate::request::route::{FoundRoute, found_route};
use crate::token::Token;
use crate::unsealed::Unsealed;

const HELP: Help = Help {
    synopsis: "Explains why policies allow or deny a request.",
    description: "Without a subject it explains the decision for the token of the request.",
};

/// The most policies in a request.
const MOST_POLICIES: usize = 100;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("policies/explain", HELP).update(of_request).here();
}

#[derive(Deserialize, JsonSchema)]
struct ExplainRequest {
    /// Path of the request to explain.
    path: Option<Text>,
    /// Operation: read, create, update, patch, delete, list or scan; write is update.
    operation: Option<Text>,
    /// The token whose policies decide. Default: the token of the request.
    token: Option<Text>,
    /// Accessor of that token, instead of the token.
    accessor: Option<Text>,
    /// Id of an entity, whose own policies decide.
    entity_id: Option<Text>,
    /// Names of the policies that decide, instead of those of a token.
    policies: Option<CommaList>,
    /// Parameters of the request to explain.
    parameters: Option<Object>,
    /// Wrap TTL of the request to explain.
    wrap_ttl: Option<Seconds>,
}

/// The subject of a request.
enum SubjectId {
    Caller,
    Token(String),
    Accessor(String),
    Entity(String),
    Policies(Vec<String>),
}

impl SubjectId {
    fn of(req: &ExplainRequest) -> Result<Self> {
        let text = |field: &Option<Text>| field.as_ref().map(|text| text.0.clone());
        let names = req.policies.as_ref().map(|list| list.0.clone());
        // An empty subject is a mistake, such as a variable without a value, and not the caller.
        let is_empty = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.is_empty());
        if [&req.token, &req.accessor, &req.entity_id].into_iter().any(is_empty)
            || names.as_ref().is_some_and(Vec::is_empty)
        {
            return Err(Error::invalid("token, accessor, entity_id and policies must not be empty"));
        }
        let mut subjects = [
            text(&req.token).map(SubjectId::Token),
            text(&req.accessor).map(SubjectId::Accessor),
            text(&req.entity_id).map(SubjectId::Entity),
            names.map(SubjectId::Policies),
        ]
        .into_iter()
        .flatten();
        let subject = subjects.next().unwrap_or(SubjectId::Caller);
        if subjects.next().is_some() {
            return Err(Error::invalid("only one of token, accessor, entity_id and policies can be set"));
        }
        Ok(subject)
    }
}

/// The capabilities of the caller.
struct Reader<'c> {
    acl: &'c Acl,
    /// The path of the namespace of the call in that of the caller's token.
    within: &'c str,
    cx: &'c Cx,
}

impl Reader<'_> {
    fn may(&self, operation: Operation, path: &str) -> bool {
        let path = format!("{}{path}", self.within);
        let request = AclRequest {
            path: &path,
            operation,
            creates: false,
            // A rule with conditions on parameters is no right to read everything.
            parameters: &|| None,
            declared: None,
            wrap_ttl: None,
            now: self.cx.now(),
        };
        self.acl.allow(&request).allowed
    }

    fn may_read_policy(&self, name: &str) -> bool {
        ["sys/policies/acl/", "sys/policy/"].iter().any(|at| self.may(Operation::Read, &format!("{at}{name}")))
    }
}

async fn of_request(_: &System, cx: &mut Cx, req: ExplainRequest) -> Result<Data<Explanation>> {
    let path = req.path.as_ref().map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| Error::invalid("missing path"))?;
    let path = CanonicalPath::new(path.to_owned()).map_err(|error| Error::invalid(error.to_string()))?;
    let name = req.operation.as_ref().map(|name| name.to_lowercase()).unwrap_or_default();
    let (operation, creates) = operation_named(if name == "write" { "update" } else { name.as_str() })
        .ok_or_else(|| Error::invalid("operation must be one of read, create, update, patch, delete, list and scan"))?;
    let id = SubjectId::of(&req)?;
    let call = call(cx)?;
    let acl = call.compiled.as_ref().ok_or_else(Error::denied)?.acl.clone();
    let reader = Reader { acl: &acl, within: call.within(), cx };
    let unsealed = unsealed(cx)?;
    let found = Box::pin(subject(&reader, &unsealed, id)).await?;
    let (subject, within) = found
        .ok_or_else(|| Error::new(Status::NOT_FOUND, "the subject does not exist, or the caller may not look it up"))?;
    let route = found_route(&unsealed.engines.mounts, operation, path.as_str());
    let is_visible = is_visible(&reader, path.as_str(), route.as_ref());
    let route = route.filter(|_| is_visible);
    let known = match &route {
        _ if !is_visible => KnownRoute::Hidden,
        Some(route) => KnownRoute::Access(route.access),
        None => KnownRoute::Absent,
    };
    let parameters = req.parameters.map(|object| object.0).unwrap_or_default();
    let readable: Vec<_> =
        subject.policies.iter().filter(|policy| reader.may_read_policy(&policy.name)).cloned().collect();
    // A name without a policy counts as hidden where the caller may not read it either.
    let has_hidden = subject.names.iter().any(|name| !reader.may_read_policy(name));
    let question = Question {
        readable: &readable,
        has_hidden,
        acl: &subject.acl,
        subject: &subject.values,
        request: AclRequest {
            path: &format!("{within}{}", route.as_ref().map_or(path.as_str(), |route| route.policy_path.as_str())),
            operation,
            creates,
            parameters: &|| Some(parameters.clone()),
            declared: route.as_ref().and_then(FoundRoute::operation),
            wrap_ttl: req.wrap_ttl.map(|ttl| Duration::from_secs(ttl.0)),
            now: cx.now(),
        },
        route: known,
    };
    Ok(Data(explain(&question)))
}

/// The subject with its policies, and the path of the namespace of the call in that of the subject; none if it does not
/// exist or the caller may not look it up. Only the caller itself can be of a namespace above.
async fn subject(reader: &Reader<'_>, unsealed: &Unsealed, id: SubjectId) -> Result<Option<(PolicySubject, String)>> {
    let (policies, tokens, identity) = (&unsealed.access.policies, &unsealed.access.tokens, &unsealed.access.identity);
    let now = reader.cx.now();
    let is_own = |token: &Arc<Token>| token.record.namespace == unsealed.access.namespace.id;
    let token = match id {
        SubjectId::Caller => call(reader.cx)?.token.clone(),
        SubjectId::Token(text) if reader.may(Operation::Update, "auth/token/lookup") => {
            tokens.find_anywhere(&text, now).await?.filter(is_own)
        }
        SubjectId::Accessor(accessor) if reader.may(Operation::Update, "auth/token/lookup-accessor") => {
            let found = tokens.at(&tokens.place_of(&accessor), now).await?;
            found.filter(|token| token.record.accessor == accessor).filter(is_own)
        }
        SubjectId::Entity(id) if reader.may(Operation::Read, &format!("identity/entity/id/{id}")) => {
            return Ok(policies.of_entity(&id, identity).await?.map(in_own_namespace));
        }
        SubjectId::Policies(names) => {
            if names.len() > MOST_POLICIES {
                return Err(Error::invalid(format!("at most {MOST_POLICIES} policies can be set")));
            }
            let names: Vec<String> = names.iter().map(|name| name.trim().to_lowercase()).collect();
            if !names.iter().all(|name| reader.may_read_policy(name)) {
                return Ok(None);
            }
            return Ok(policies.of_names(names).await?.map(in_own_namespace));
        }
        SubjectId::Token(_) | SubjectId::Accessor(_) | SubjectId::Entity(_) => None,
    };
    let Some(token) = token else { return Ok(None) };
    let own = unsealed.access.of_namespace(&token.record.namespace);
    let Some((access, within)) = own else { return Ok(None) };
    let subject = access.policies.of_token(&token, &access.identity).await?;
    Ok(Some((subject, within.to_owned())))
}

fn in_own_namespace(subject: PolicySubject) -> (PolicySubject, String) {
    (subject, String::new())
}

/// Whether the caller may know the mount of a path: those of every server are known, others need a capability.
fn is_visible(reader: &Reader<'_>, path: &str, route: Option<&FoundRoute>) -> bool {
    let list = if path.starts_with("auth/") { "sys/auth" } else { "sys/mounts" };
    route.is_some_and(|route| route.mounted.traits.built_in.is_some()) || reader.may(Operation::Read, list)
}

impl FoundRoute {
    fn operation(&self) -> Option<&keepfast_framework::rows::OperationInfo> {
        let (row, operation) = (self.row?, self.operation);
        self.mounted.table.rows().get(row)?.operation(operation)
    }
}
