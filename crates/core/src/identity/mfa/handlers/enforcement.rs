//! `identity/mfa/login-enforcement`: the logins that need MFA, and the methods for it.

use std::collections::{BTreeMap, HashSet};

use keepfast_crypto::random;
use keepfast_framework::fields::{Strings, Text};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Nothing, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::engine::{IdentityEngine, checked_length, identity, page_of, unsealed};
use crate::identity::mfa::records::{ENFORCEMENTS, ENFORCEMENTS_OF_METHOD, Enforcement, METHODS};
use crate::identity::record::Mark;
use crate::namespace::NamespaceId;
use crate::unsealed::Unsealed;

const ENFORCEMENT: Help = Help {
    synopsis: "Reads, creates, changes and deletes a login enforcement.",
    description: "A login that an enforcement binds gets its token only with a code of one of its MFA methods.",
};
const LIST: Help = Help { synopsis: "Lists the login enforcements.", description: "" };

/// The maximum number of ids in a list of an enforcement.
const MOST_IDS: usize = 10_000;
/// The maximum number of methods of an enforcement.
const MOST_METHODS: usize = 100;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("mfa/login-enforcement/", LIST).list(list);
    r.path("mfa/login-enforcement/{name}", ENFORCEMENT).names_only().read(read).update(write).delete(delete);
}

/// The name in a path.
#[derive(Deserialize, JsonSchema)]
struct ByName {
    /// Name of the enforcement.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the enforcement.
    name: Text,
    /// Ids of MFA methods. A login needs one of them.
    mfa_method_ids: Option<Strings>,
    /// Accessors of auth methods whose logins need MFA.
    auth_method_accessors: Option<Strings>,
    /// Types of auth methods whose logins need MFA.
    auth_method_types: Option<Strings>,
    /// Ids of groups whose members need MFA.
    identity_group_ids: Option<Strings>,
    /// Ids of entities that need MFA.
    identity_entity_ids: Option<Strings>,
}

#[derive(Serialize, JsonSchema)]
struct EnforcementResponse {
    auth_method_accessors: Vec<String>,
    auth_method_types: Vec<String>,
    id: String,
    identity_entity_ids: Vec<String>,
    identity_group_ids: Vec<String>,
    mfa_method_ids: Vec<String>,
    name: String,
    namespace_id: String,
    namespace_path: String,
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    let unsealed = unsealed(cx)?;
    let (identity, name) = (&unsealed.access.identity, req.name.0);
    let (tx, _) = cx.store();
    let Some(methods) = req.mfa_method_ids.map(|Strings(ids)| ids).filter(|ids| !ids.is_empty()) else {
        return Err(Error::invalid("missing method ids"));
    };
    let known = identity.read(&ENFORCEMENTS, tx, &name).await?;
    let before = known.as_ref().map(|known| known.methods.clone()).unwrap_or_default();
    let mut record = known.unwrap_or_else(|| Enforcement::new(name.clone(), identity.namespace.clone()));
    record.methods = bounded("mfa_method_ids", methods, MOST_METHODS)?;
    for id in &record.methods {
        if identity.read(&METHODS, tx, id).await?.is_none() {
            return Err(Error::invalid("one of the provided method ids doesn't exist"));
        }
    }
    let change = Conditions {
        accessors: given("auth_method_accessors", req.auth_method_accessors)?,
        types: given("auth_method_types", req.auth_method_types)?,
        groups: given("identity_group_ids", req.identity_group_ids)?,
        entities: given("identity_entity_ids", req.identity_entity_ids)?,
    };
    change.check(&unsealed, tx).await?;
    record.change(change);
    if !record.has_conditions() {
        return Err(Error::invalid(
            "One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified",
        ));
    }
    for id in before.iter().filter(|id| !record.methods.contains(id)) {
        ENFORCEMENTS_OF_METHOD.delete_in(tx, &identity.view, &format!("{id}/{name}"));
    }
    for id in record.methods.iter().filter(|id| !before.contains(id)) {
        ENFORCEMENTS_OF_METHOD.put_in(tx, &identity.view, &format!("{id}/{name}"), &Mark {})?;
    }
    ENFORCEMENTS.put_in(tx, &identity.view, &name, &record)
}

/// The conditions of an enforcement that a request changes.
struct Conditions {
    accessors: Option<Vec<String>>,
    types: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    entities: Option<Vec<String>>,
}

impl Conditions {
    /// Checks that all exists that they name.
    async fn check(&self, unsealed: &Unsealed, tx: &mut Tx) -> Result<()> {
        let router = unsealed.engines.mounts.router();
        let is_auth = |accessor: &String| router.by_accessor(accessor).is_some_and(|mounted| mounted.entry.auth);
        if !self.accessors.iter().flatten().all(is_auth) {
            return Err(Error::invalid("one of the auth method accessors provided is invalid"));
        }
        let methods = router.all().filter(|mounted| mounted.entry.auth);
        let types: HashSet<&str> = methods.map(|mounted| mounted.entry.engine.as_str()).collect();
        if !self.types.iter().flatten().all(|kind| types.contains(kind.as_str())) {
            return Err(Error::invalid("one of the auth method types provided is invalid"));
        }
        let identity = &unsealed.access.identity;
        for id in self.groups.iter().flatten() {
            if identity.group(tx, id).await?.is_none() {
                return Err(Error::invalid("one of the provided group ids doesn't exist"));
            }
        }
        for id in self.entities.iter().flatten() {
            if identity.entity(tx, id).await?.is_none() && identity.merged_into(tx, id).await?.is_none() {
                return Err(Error::invalid("one of the provided entity ids doesn't exist"));
            }
        }
        Ok(())
    }
}

/// The list of a field, if the request has it.
fn given(field: &str, ids: Option<Strings>) -> Result<Option<Vec<String>>> {
    ids.map(|Strings(ids)| bounded(field, ids, MOST_IDS)).transpose()
}

/// A list of ids without repetition.
fn bounded(field: &str, ids: Vec<String>, most: usize) -> Result<Vec<String>> {
    if ids.len() > most {
        return Err(Error::invalid(format!("{field} has at most {most} entries")));
    }
    let mut seen = HashSet::new();
    Ok(ids.iter().filter(|id| seen.insert(id.as_str())).cloned().collect())
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<EnforcementResponse>>> {
    let identity = identity(cx)?;
    let found = identity.read(&ENFORCEMENTS, cx.store().0, &req.name).await?;
    Ok(found.map(|record| Described(EnforcementResponse::from(record))))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let identity = identity(cx)?;
    let (tx, _) = cx.store();
    let Some(record) = identity.read(&ENFORCEMENTS, tx, &req.name).await? else { return Ok(()) };
    for id in &record.methods {
        ENFORCEMENTS_OF_METHOD.delete_in(tx, &identity.view, &format!("{id}/{}", record.name));
    }
    ENFORCEMENTS.delete_in(tx, &identity.view, &record.name);
    Ok(())
}

async fn list(_: &IdentityEngine, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let identity = identity(cx)?;
    let names = checked_length(ENFORCEMENTS.list(cx, "", &page_of(Paged::new(None, None))).await?)?;
    let mut info = BTreeMap::new();
    for name in names {
        if let Some(record) = identity.read(&ENFORCEMENTS, cx.store().0, &name).await? {
            info.insert(name, EnforcementResponse::from(record));
        }
    }
    Keys::with_info(info.keys().cloned().collect(), &info)
}

impl Enforcement {
    /// An enforcement without methods and conditions.
    fn new(name: String, namespace: NamespaceId) -> Self {
        let (methods, accessors, types, groups, entities) = Default::default();
        Enforcement { namespace, id: random::uuid(), name, methods, accessors, types, groups, entities }
    }

    /// Replaces the conditions that a request has.
    fn change(&mut self, change: Conditions) {
        let Conditions { accessors, types, groups, entities } = change;
        for (kept, given) in [
            (&mut self.accessors, accessors),
            (&mut self.types, types),
            (&mut self.groups, groups),
            (&mut self.entities, entities),
        ] {
            *kept = given.unwrap_or_else(|| std::mem::take(kept));
        }
    }

    /// Whether it has a condition on logins: without one it binds none.
    fn has_conditions(&self) -> bool {
        [&self.accessors, &self.types, &self.groups, &self.entities].iter().any(|ids| !ids.is_empty())
    }
}

impl From<Enforcement> for EnforcementResponse {
    fn from(record: Enforcement) -> Self {
        EnforcementResponse {
            auth_method_accessors: record.accessors,
            auth_method_types: record.types,
            id: record.id,
            identity_entity_ids: record.entities,
            identity_group_ids: record.groups,
            mfa_method_ids: record.methods,
            name: record.name,
            namespace_id: record.namespace.as_str().to_owned(),
            namespace_path: String::new(),
        }
    }
}
