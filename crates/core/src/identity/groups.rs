//! Writes of groups, each with the unique keys of its name and its alias.

use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::Tx;

use super::membership::{self, Member};
use super::metadata::checked_name;
use super::names::{alias_key, fold, generated, name_key};
use super::record::{GROUP_ALIAS_IDS, GROUP_ALIASES, GROUP_NAMES, GROUPS, Group, GroupAlias, GroupKind, Reference};
use super::store::Identity;

/// The number of generated names that are tried.
const TRIES: usize = 16;
/// The maximum number of members that are removed in one transaction.
const REMOVED_AT_ONCE: usize = 5000;

impl Identity {
    /// A new group with this name, or with a generated one if it is empty; written by [`Identity::put_group`].
    pub(super) async fn new_group(&self, tx: &mut Tx, name: &str, kind: GroupKind, now: Timestamp) -> Result<Group> {
        checked_name(name)?;
        let name = match name {
            "" => self.free_group_name(tx).await?,
            name => name.to_owned(),
        };
        let group = Group {
            id: self.new_id(),
            name,
            kind,
            policies: Vec::new(),
            metadata: Default::default(),
            alias: None,
            namespace: self.namespace.clone(),
            created: now,
            modified: now,
            modify_index: 0,
        };
        self.put_group_name(tx, &group)?;
        Ok(group)
    }

    async fn free_group_name(&self, tx: &mut Tx) -> Result<String> {
        for _ in 0..TRIES {
            let name = generated("group", self.namespace.as_str());
            if self.group_named(tx, &name).await?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::internal("no free name for a group"))
    }

    /// Gives a group another name, which no other may have.
    pub(super) async fn rename_group(&self, tx: &mut Tx, group: &mut Group, name: &str) -> Result<()> {
        if name.is_empty() || name == group.name {
            return Ok(());
        }
        checked_name(name)?;
        if fold(name) != fold(&group.name) {
            if self.group_named(tx, name).await?.is_some() {
                return Err(Error::invalid("group name is already in use"));
            }
            GROUP_NAMES.delete_in(tx, &self.view, &name_key(&group.name));
        }
        name.clone_into(&mut group.name);
        self.put_group_name(tx, group)
    }

    fn reference_to(&self, group: &Group, name: &str) -> Reference {
        Reference { id: group.id.clone(), name: name.to_owned(), namespace: self.namespace.clone() }
    }

    fn put_group_name(&self, tx: &mut Tx, group: &Group) -> Result<()> {
        GROUP_NAMES.put_in(tx, &self.view, &name_key(&group.name), &self.reference_to(group, &group.name))
    }

    /// Writes a group after a change. Its name and its alias have their keys.
    pub(super) fn put_group(&self, tx: &mut Tx, group: &mut Group, now: Timestamp) -> Result<()> {
        (group.modified, group.modify_index) = (now, group.modify_index.saturating_add(1));
        GROUPS.put_in(tx, &self.view, &group.id, group)
    }

    /// Gives an external group an alias in place of its former one. The alias is free, or its own.
    pub(super) fn set_group_alias(&self, tx: &mut Tx, group: &mut Group, alias: GroupAlias) -> Result<()> {
        self.drop_group_alias(tx, group);
        let place = alias_key(&alias.mount_accessor, &alias.name);
        GROUP_ALIASES.put_in(tx, &self.view, &place, &self.reference_to(group, &alias.name))?;
        GROUP_ALIAS_IDS.put_in(tx, &self.view, &alias.id, &self.reference_to(group, ""))?;
        group.alias = Some(alias);
        Ok(())
    }

    /// Removes the alias of a group.
    pub(super) fn drop_group_alias(&self, tx: &mut Tx, group: &mut Group) {
        if let Some(alias) = group.alias.take() {
            GROUP_ALIASES.delete_in(tx, &self.view, &alias_key(&alias.mount_accessor, &alias.name));
            GROUP_ALIAS_IDS.delete_in(tx, &self.view, &alias.id);
        }
    }

    /// Deletes a group with its memberships, which are few: see [`Identity::shrink_group`].
    pub(super) async fn delete_group(&self, tx: &mut Tx, mut group: Group) -> Result<()> {
        self.remove_members(tx, &group.id).await?;
        for parent in membership::verified_groups_of(tx, &self.view, Member::Group, &group.id).await? {
            membership::remove(tx, &self.view, Member::Group, &parent, &group.id);
        }
        self.drop_group_alias(tx, &mut group);
        GROUP_NAMES.delete_in(tx, &self.view, &name_key(&group.name));
        GROUPS.delete_in(tx, &self.view, &group.id);
        Ok(())
    }

    /// Removes all members of a group.
    ///
    /// # Errors
    /// A conflict when there are too many for one transaction.
    pub(super) async fn remove_members(&self, tx: &mut Tx, group: &str) -> Result<()> {
        for kind in [Member::Entity, Member::Group] {
            let members = membership::first_members(tx, &self.view, kind, group, REMOVED_AT_ONCE + 1).await?;
            if members.len() > REMOVED_AT_ONCE {
                return Err(keepfast_storage::StorageError::Conflict.into());
            }
            for member in members {
                membership::remove(tx, &self.view, kind, group, &member);
            }
        }
        Ok(())
    }

    /// Removes members of a group whose members are about to be removed, in transactions of their own, until there are few
    /// enough for one. A group that keeps members after an error loses them when the request is sent again.
    pub(super) async fn shrink_group(&self, group: &str) -> Result<()> {
        loop {
            let removed = self
                .barrier
                .transact(|mut tx| async move {
                    let limit = REMOVED_AT_ONCE + 1;
                    let members = membership::first_members(&mut tx, &self.view, Member::Entity, group, limit).await?;
                    let is_large = members.len() == limit;
                    if is_large {
                        for member in members {
                            membership::remove(&mut tx, &self.view, Member::Entity, group, &member);
                        }
                    }
                    Ok::<_, Error>((tx, is_large))
                })
                .await?;
            if !removed {
                return Ok(());
            }
        }
    }
}
