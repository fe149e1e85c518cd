//! The stored records of identity.

use std::collections::BTreeMap;

use keepfast_framework::{Records, Timestamp};
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::namespace::NamespaceId;

/// An entity: a user or machine that logs in, by any auth method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entity {
    /// The random unique id.
    pub(crate) id: String,
    /// The name, used by templates; unique without regard to case.
    pub(crate) name: String,
    /// The metadata, used by templates.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// The policies that the entity adds to its tokens; canonical.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    /// The aliases, at most one for each mount.
    #[serde(default)]
    pub(crate) aliases: Vec<EntityAlias>,
    /// Whether its tokens and logins are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disabled: bool,
    /// The ids of the entities that were merged into this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged: Vec<String>,
    /// The namespace of the entity.
    pub(crate) namespace: NamespaceId,
    /// The time of creation.
    pub(crate) created: Timestamp,
    /// The time of the last write through the API; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<Timestamp>,
}

/// An alias: the name of an entity at one mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntityAlias {
    /// The random unique id.
    pub(crate) id: String,
    /// The name, normalized by the mount, or as an operator wrote it; unique at its mount without regard to case.
    pub(crate) name: String,
    /// The accessor of the mount.
    pub(crate) mount_accessor: String,
    /// The metadata, used by templates.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// The metadata that an operator set, used by templates.
    #[serde(default)]
    pub(crate) custom_metadata: BTreeMap<String, String>,
    /// The ids of the merged entities that had it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged_from: Vec<String>,
    /// The time of creation; `None` if it is that of the entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<Timestamp>,
    /// The time of the last write through the API; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<Timestamp>,
    /// The time when it got another name, mount or entity; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<Timestamp>,
}

/// The unique key of an alias: a mount and a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AliasKey {
    /// The namespace of the alias.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
    /// The id of its entity.
    pub(super) entity: String,
    /// The id of the alias.
    #[serde(default)]
    pub(super) id: String,
    /// The metadata of the last login, so that a login that does not change it does not read the entity.
    pub(super) metadata: BTreeMap<String, String>,
}

/// A unique name, or the id of an alias, that leads to a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    /// The id of the record.
    pub(super) id: String,
    /// The name as written; empty for the id of an alias.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// The namespace.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(super) namespace: NamespaceId,
}

/// The origin of the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupKind {
    /// An operator writes the members.
    Internal,
    /// The auth method of the group's alias reports its members at their logins.
    External,
}

impl GroupKind {
    /// The value of `type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupKind::Internal => "internal",
            GroupKind::External => "external",
        }
    }

    /// The kind with this value of `type`.
    pub(super) fn named(name: &str) -> Option<Self> {
        [GroupKind::Internal, GroupKind::External].into_iter().find(|kind| kind.name() == name)
    }
}

/// A group of entities and groups, whose policies its members have. Members are keys of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The random unique id.
    pub(crate) id: String,
    /// The name, used by templates; unique without regard to case.
    pub(crate) name: String,
    /// The origin of its members.
    pub(crate) kind: GroupKind,
    /// The policies of its members; canonical.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    /// The metadata, used by templates.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// The alias of an external group: its name in an auth method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<GroupAlias>,
    /// The namespace of the group.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The time of creation.
    pub(crate) created: Timestamp,
    /// The time of the last write through the API.
    pub(crate) modified: Timestamp,
    /// The number of writes through the API.
    pub(crate) modify_index: u64,
}

/// The name of an external group in an auth method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupAlias {
    /// The random unique id.
    pub(crate) id: String,
    /// The name; unique at its mount without regard to case.
    pub(crate) name: String,
    /// The accessor of the mount.
    pub(crate) mount_accessor: String,
    /// The time of creation.
    pub(crate) created: Timestamp,
    /// The time of the last write.
    pub(crate) modified: Timestamp,
}

/// A record that belongs to a namespace.
pub(super) trait Namespaced {
    /// Its namespace.
    fn namespace(&self) -> &NamespaceId;
}

/// Implements [`Namespaced`] for records with a field `namespace`.
macro_rules! namespaced {
    ($($record:ty),*) => {$(
        impl $crate::identity::record::Namespaced for $record {
            fn namespace(&self) -> &NamespaceId {
                &self.namespace
            }
        }
    )*};
}

pub(super) use namespaced;

namespaced!(Entity, AliasKey, Reference, Group);

/// A key that is only its name.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {}

/// Entities by id.
pub(super) const ENTITIES: Records<Entity> = Records::at(layout::ENTITIES);
/// Entities by the key of their name.
pub(super) const ENTITY_NAMES: Records<Reference> = Records::at("entity-name/");
/// Aliases of entities by `<mount accessor>/<key of the name>`.
pub(super) const ALIASES: Records<AliasKey> = Records::at("alias/");
/// The entities of aliases by the id of the alias.
pub(super) const ALIAS_IDS: Records<Reference> = Records::at("alias-id/");
/// The entity that an entity was merged into, by the id of the merged entity.
pub(super) const MERGED: Records<Reference> = Records::at(MERGED_FOLDER);
/// The folder of [`MERGED`].
pub(super) const MERGED_FOLDER: &str = "merged/";
/// Groups by id.
pub(super) const GROUPS: Records<Group> = Records::at(GROUP_FOLDER);
/// The folder of [`GROUPS`].
pub(super) const GROUP_FOLDER: &str = "group/";
/// Groups by the key of their name.
pub(super) const GROUP_NAMES: Records<Reference> = Records::at("group-name/");
/// Groups by `<mount accessor>/<key of the name>` of their alias.
pub(super) const GROUP_ALIASES: Records<Reference> = Records::at("group-alias/");
/// Groups by the id of their alias.
pub(super) const GROUP_ALIAS_IDS: Records<Reference> = Records::at("group-alias-id/");
