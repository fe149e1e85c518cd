//! `identity/oidc/assignment`: the entities and groups that may log in to a client.

use keepfast_framework::fields::{CommaList, Text};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Exists, Help, Paged};
use keepfast_framework::{Cx, Error, Keys, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lists::{ByName, has_id, names};
use super::records::{
    ALLOW_ALL, ASSIGNMENTS, Assignment, CLIENTS_OF_ASSIGNMENT, assignment, bounded, check_unreferenced,
};
use crate::identity::effective::Effective;
use crate::identity::engine::IdentityEngine;

const ASSIGNMENT: Help = Help { synopsis: "Reads, creates, changes and deletes an assignment.", description: "" };
const LIST: Help = Help { synopsis: "Lists the assignments.", description: "" };

/// The maximum number of entities, and of groups, in an assignment.
const MOST_ASSIGNED: usize = 10_000;

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("oidc/assignment/", LIST).list(list);
    r.path("oidc/assignment/{name}", ASSIGNMENT).names_only().read(read).update(write).delete(delete).exists(exists);
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the assignment.
    name: Text,
    /// Comma-separated ids of entities, `*` for all. Default: none.
    entity_ids: Option<CommaList>,
    /// Comma-separated ids of groups, `*` for all. Default: none.
    group_ids: Option<CommaList>,
}

#[derive(Serialize, JsonSchema)]
struct AssignmentResponse {
    entity_ids: Vec<String>,
    group_ids: Vec<String>,
}

async fn exists(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Exists> {
    Ok(Exists(assignment(cx, &req.name).await?.is_some()))
}

async fn write(_: &IdentityEngine, cx: &mut Cx, req: Write) -> Result<()> {
    if *req.name == *ALLOW_ALL {
        return Err(Error::invalid("modification of assignment \"allow_all\" not allowed"));
    }
    let mut record = ASSIGNMENTS.get(cx, &req.name).await?.unwrap_or_default();
    if let Some(CommaList(ids)) = req.entity_ids {
        record.entity_ids = bounded("entity_ids", ids, MOST_ASSIGNED)?;
    }
    if let Some(CommaList(ids)) = req.group_ids {
        record.group_ids = bounded("group_ids", ids, MOST_ASSIGNED)?;
    }
    ASSIGNMENTS.put(cx, &req.name, &record)
}

async fn read(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<Option<Described<AssignmentResponse>>> {
    let found = assignment(cx, &req.name).await?;
    Ok(found.map(|Assignment { entity_ids, group_ids }| Described(AssignmentResponse { entity_ids, group_ids })))
}

async fn list(_: &IdentityEngine, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(names(cx, &ASSIGNMENTS, Some(ALLOW_ALL), req).await?))
}

async fn delete(_: &IdentityEngine, cx: &mut Cx, req: ByName) -> Result<()> {
    let name = &req.name;
    if **name == *ALLOW_ALL {
        return Err(Error::invalid("deletion of assignment \"allow_all\" not allowed"));
    }
    check_unreferenced(cx, (&CLIENTS_OF_ASSIGNMENT, "clients"), "assignment", name).await?;
    ASSIGNMENTS.delete(cx, name);
    Ok(())
}

/// Whether one of these assignments has the entity or one of its groups. A disabled entity has none.
pub(super) async fn includes(cx: &mut Cx, assignments: &[String], effective: &Effective) -> Result<bool> {
    if effective.entity.disabled {
        return Ok(false);
    }
    for name in assignments {
        let Some(found) = assignment(cx, name).await? else { continue };
        let of_group = effective.groups().any(|group| has_id(&found.group_ids, &group.id));
        if has_id(&found.entity_ids, &effective.entity.id) || of_group {
            return Ok(true);
        }
    }
    Ok(false)
}
