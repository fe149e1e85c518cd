//! `identity/lookup`: entities and groups by their name, id or alias.

use keepfast_framework::fields::Text;
use keepfast_framework::reply::{Described, Outcome, Reply as _};
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{entity, group};
use crate::identity::engine::{IdentityEngine, identity, named};

const ENTITY: Help = Help {
    synopsis: "Finds an entity by its id, its name, or the id or the name of an alias.",
    description: "The response is empty if there is none.",
};
const GROUP: Help = Help {
    synopsis: "Finds a group by its id, its name, or the id or the name of its alias.",
    description: "The response is empty if there is none.",
};

pub(super) fn routes(r: &mut Routes<IdentityEngine>) {
    r.path("lookup/entity", ENTITY).update(find_entity).here();
    r.path("lookup/group", GROUP).update(find_group).here();
}

#[derive(Deserialize, JsonSchema)]
struct Lookup {
    /// Id of the entity or group.
    id: Option<Text>,
    /// Name of the entity or group.
    name: Option<Text>,
    /// Id of an alias of it.
    alias_id: Option<Text>,
    /// Name of an alias of it; requires `alias_mount_accessor`.
    alias_name: Option<Text>,
    /// Accessor of the mount of that alias.
    alias_mount_accessor: Option<Text>,
}

/// The one key of a lookup.
enum Wanted {
    Id(String),
    Name(String),
    AliasId(String),
    Alias { accessor: String, name: String },
}

impl Lookup {
    fn wanted(self) -> Result<Wanted> {
        let alias = match (named(self.alias_name), named(self.alias_mount_accessor)) {
            (Some(name), Some(accessor)) => Some(Wanted::Alias { accessor, name }),
            (None, None) => None,
            _ => return Err(Error::invalid("both 'alias_name' and 'alias_mount_accessor' needs to be set")),
        };
        let (id, name) = (named(self.id).map(Wanted::Id), named(self.name).map(Wanted::Name));
        let mut all = [id, name, named(self.alias_id).map(Wanted::AliasId), alias].into_iter().flatten();
        match (all.next(), all.next()) {
            (None, _) => Err(Error::invalid("query parameter not supplied")),
            (Some(wanted), None) => Ok(wanted),
            _ => {
                let text = "query parameter conflict; please supply distinct set of query parameters";
                Err(Error::invalid(text))
            }
        }
    }
}

async fn find_entity(_: &IdentityEngine, cx: &mut Cx, req: Lookup) -> Result<Outcome> {
    let (identity, wanted) = (identity(cx)?, req.wanted()?);
    let (tx, _) = cx.store();
    let found = match &wanted {
        Wanted::Id(id) => identity.entity(tx, id).await?,
        Wanted::Name(name) => identity.entity_named(tx, name).await?,
        Wanted::AliasId(id) => identity.entity_of_alias_id(tx, id).await?,
        Wanted::Alias { accessor, name } => identity.entity_of_alias(tx, accessor, name).await?,
    };
    or_nothing(entity::respond(cx, found.map(|entity| entity.id)).await?)
}

async fn find_group(_: &IdentityEngine, cx: &mut Cx, req: Lookup) -> Result<Outcome> {
    let (identity, wanted) = (identity(cx)?, req.wanted()?);
    let (tx, _) = cx.store();
    let found = match &wanted {
        Wanted::Id(id) => identity.group(tx, id).await?,
        Wanted::Name(name) => identity.group_named(tx, name).await?,
        Wanted::AliasId(id) => identity.group_of_alias_id(tx, id).await?,
        Wanted::Alias { accessor, name } => identity.group_of_alias(tx, accessor, name).await?,
    };
    or_nothing(group::respond(cx, found).await?)
}

/// A lookup that finds nothing is no error.
fn or_nothing<T: Serialize + JsonSchema + Send>(found: Option<Described<T>>) -> Result<Outcome> {
    found.map_or(Ok(Outcome::Empty(None)), |found| found.into_outcome())
}
