//! Entities, aliases and groups as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::Result;
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::Serialize;

use crate::identity::effective::Effective;
use crate::identity::membership::{self, Member};
use crate::identity::record::{Entity, EntityAlias, Group, GroupAlias};
use crate::identity::store::Identity;
use crate::mount::router::Router;

type Pairs = BTreeMap<String, String>;

/// An empty value is null, as one that was never written.
fn given(pairs: &Pairs) -> Option<Pairs> {
    (!pairs.is_empty()).then(|| pairs.clone())
}

fn some(texts: Vec<String>) -> Option<Vec<String>> {
    (!texts.is_empty()).then_some(texts)
}

/// The mount of an alias; none when it is unmounted.
#[derive(Serialize, JsonSchema)]
pub(super) struct MountOfAlias {
    mount_accessor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_type: Option<String>,
}

impl MountOfAlias {
    fn new(router: &Router, accessor: &str) -> Self {
        let mounted = router.by_accessor(accessor);
        MountOfAlias {
            mount_accessor: accessor.to_owned(),
            mount_path: mounted.map(|mounted| mounted.entry.path.clone()),
            mount_type: mounted.map(|mounted| mounted.entry.engine.clone()),
        }
    }
}

/// An alias of an entity.
#[derive(Serialize, JsonSchema)]
pub(super) struct AliasResponse {
    canonical_id: String,
    creation_time: String,
    custom_metadata: Option<Pairs>,
    id: String,
    last_update_time: String,
    local: bool,
    merged_from_canonical_ids: Option<Vec<String>>,
    metadata: Option<Pairs>,
    #[serde(flatten)]
    mount: MountOfAlias,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_id: Option<String>,
}

impl AliasResponse {
    /// An alias in the response of its entity.
    fn new(router: &Router, entity: &Entity, alias: &EntityAlias) -> Self {
        let created = alias.created.unwrap_or(entity.created);
        AliasResponse {
            canonical_id: entity.id.clone(),
            creation_time: created.rfc3339(),
            custom_metadata: given(&alias.custom_metadata),
            id: alias.id.clone(),
            last_update_time: alias.modified.unwrap_or(created).rfc3339(),
            local: false,
            merged_from_canonical_ids: some(alias.merged_from.clone()),
            metadata: given(&alias.metadata),
            mount: MountOfAlias::new(router, &alias.mount_accessor),
            name: alias.name.clone(),
            namespace_id: None,
        }
    }

    /// An alias by itself.
    pub(super) fn alone(router: &Router, entity: &Entity, alias: &EntityAlias) -> Self {
        let namespace_id = Some(entity.namespace.as_str().to_owned());
        AliasResponse { namespace_id, ..Self::new(router, entity, alias) }
    }

    /// The alias of a group by itself.
    pub(super) fn of_group(router: &Router, group: &Group, alias: &GroupAlias) -> Self {
        AliasResponse {
            canonical_id: group.id.clone(),
            creation_time: alias.created.rfc3339(),
            custom_metadata: None,
            id: alias.id.clone(),
            last_update_time: alias.modified.rfc3339(),
            local: false,
            merged_from_canonical_ids: None,
            metadata: None,
            mount: MountOfAlias::new(router, &alias.mount_accessor),
            name: alias.name.clone(),
            namespace_id: Some(group.namespace.as_str().to_owned()),
        }
    }
}

/// An alias in a list of aliases.
#[derive(Serialize)]
pub(super) struct ListedAlias {
    canonical_id: String,
    custom_metadata: Option<Pairs>,
    local: bool,
    metadata: Option<Pairs>,
    #[serde(flatten)]
    mount: MountOfAlias,
    name: String,
}

impl From<AliasResponse> for ListedAlias {
    fn from(alias: AliasResponse) -> Self {
        let AliasResponse { canonical_id, custom_metadata, local, metadata, mount, name, .. } = alias;
        ListedAlias { canonical_id, custom_metadata, local, metadata, mount, name }
    }
}

/// An entity.
#[derive(Serialize, JsonSchema)]
pub(super) struct EntityResponse {
    aliases: Vec<AliasResponse>,
    creation_time: String,
    direct_group_ids: Vec<String>,
    disabled: bool,
    group_ids: Vec<String>,
    id: String,
    inherited_group_ids: Vec<String>,
    last_update_time: String,
    merged_entity_ids: Option<Vec<String>>,
    metadata: Option<Pairs>,
    name: String,
    namespace_id: String,
    policies: Vec<String>,
}

impl EntityResponse {
    /// An entity with its groups.
    pub(super) fn new(router: &Router, effective: &Effective) -> Self {
        let entity = &effective.entity;
        let ids = |groups: &[Arc<Group>]| groups.iter().map(|group| group.id.clone()).collect::<Vec<_>>();
        EntityResponse {
            aliases: entity.aliases.iter().map(|alias| AliasResponse::new(router, entity, alias)).collect(),
            creation_time: entity.created.rfc3339(),
            direct_group_ids: ids(&effective.direct),
            disabled: entity.disabled,
            group_ids: effective.groups().map(|group| group.id.clone()).collect(),
            id: entity.id.clone(),
            inherited_group_ids: ids(&effective.inherited),
            last_update_time: entity.modified.unwrap_or(entity.created).rfc3339(),
            merged_entity_ids: some(entity.merged.clone()),
            metadata: given(&entity.metadata),
            name: entity.name.clone(),
            namespace_id: entity.namespace.as_str().to_owned(),
            policies: entity.policies.clone(),
        }
    }
}

/// An entity in a list.
#[derive(Serialize)]
pub(super) struct ListedEntity {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<AliasOfListed>,
    name: String,
}

#[derive(Serialize)]
struct AliasOfListed {
    id: String,
    #[serde(flatten)]
    mount: MountOfAlias,
    name: String,
}

impl ListedEntity {
    /// An entity in a list.
    pub(super) fn new(router: &Router, entity: &Entity) -> Self {
        let aliases = entity.aliases.iter().map(|alias| AliasOfListed {
            id: alias.id.clone(),
            mount: MountOfAlias::new(router, &alias.mount_accessor),
            name: alias.name.clone(),
        });
        ListedEntity { aliases: aliases.collect(), name: entity.name.clone() }
    }
}

/// The alias in the response of a group: an empty object without one.
#[derive(Default, Serialize, JsonSchema)]
struct AliasOfGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(flatten)]
    alias: Option<AliasParts>,
}

#[derive(Serialize, JsonSchema)]
struct AliasParts {
    canonical_id: String,
    creation_time: String,
    id: String,
    last_update_time: String,
    merged_from_canonical_ids: Option<Vec<String>>,
    metadata: Option<Pairs>,
    #[serde(flatten)]
    mount: MountOfAlias,
    name: String,
}

/// A group.
#[derive(Serialize, JsonSchema)]
pub(super) struct GroupResponse {
    alias: AliasOfGroup,
    creation_time: String,
    id: String,
    last_update_time: String,
    member_entity_ids: Option<Vec<String>>,
    member_group_ids: Option<Vec<String>>,
    metadata: Option<Pairs>,
    modify_index: u64,
    name: String,
    namespace_id: String,
    parent_group_ids: Option<Vec<String>>,
    policies: Option<Vec<String>>,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl GroupResponse {
    /// A group with its members.
    pub(super) async fn read(identity: &Identity, tx: &mut Tx, router: &Router, group: &Group) -> Result<Self> {
        let (view, id) = (&identity.view, &group.id);
        let alias = group.alias.as_ref().map(|alias| {
            let shown = AliasResponse::of_group(router, group, alias);
            AliasParts {
                canonical_id: shown.canonical_id,
                creation_time: shown.creation_time,
                id: shown.id,
                last_update_time: shown.last_update_time,
                merged_from_canonical_ids: None,
                metadata: None,
                mount: shown.mount,
                name: shown.name,
            }
        });
        Ok(GroupResponse {
            alias: AliasOfGroup { alias },
            creation_time: group.created.rfc3339(),
            id: id.clone(),
            last_update_time: group.modified.rfc3339(),
            member_entity_ids: some(membership::members(tx, view, Member::Entity, id).await?),
            member_group_ids: some(membership::members(tx, view, Member::Group, id).await?),
            metadata: given(&group.metadata),
            modify_index: group.modify_index,
            name: group.name.clone(),
            namespace_id: group.namespace.as_str().to_owned(),
            parent_group_ids: some(membership::groups_of(tx, view, Member::Group, id).await?),
            policies: some(group.policies.clone()),
            kind: group.kind.name(),
        })
    }
}

/// A group in a list. Numbers of memberships beyond those that a request counts are absent.
#[derive(Serialize)]
pub(super) struct ListedGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<AliasOfListed>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_member_entities: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_parent_groups: Option<usize>,
}

impl ListedGroup {
    /// A group in a list, with the numbers of its memberships. `left` is the number that the request may still count.
    pub(super) async fn read(
        identity: &Identity,
        tx: &mut Tx,
        router: &Router,
        group: &Group,
        left: &mut usize,
    ) -> Result<Self> {
        let (view, id) = (&identity.view, &group.id);
        Ok(ListedGroup {
            alias: group.alias.as_ref().map(|alias| AliasOfListed {
                id: alias.id.clone(),
                mount: MountOfAlias::new(router, &alias.mount_accessor),
                name: alias.name.clone(),
            }),
            name: group.name.clone(),
            num_member_entities: membership::count_members(tx, view, id, left).await?,
            num_parent_groups: membership::count_parents(tx, view, id, left).await?,
        })
    }
}
