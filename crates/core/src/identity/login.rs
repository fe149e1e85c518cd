//! The identity of a login: its entity, which the first login creates, and its external groups.

use std::collections::BTreeSet;

use keepfast_framework::mount::MountInfo;
use keepfast_framework::reply::Alias;
use keepfast_framework::{Error, Result, Timestamp};
use keepfast_storage::Tx;

use super::login_identity::LoginIdentity;
use super::membership::{self, Member};
use super::record::{ALIASES, AliasKey, Entity, EntityAlias, GroupKind};
use super::store::Identity;

/// The maximum number of groups that a login reports; the further ones are ignored.
const MOST_GROUPS: usize = 10_000;

impl Identity {
    /// The entity of an alias. Creates it in this transaction if it does not exist.
    ///
    /// # Errors
    /// 403 when the entity is disabled.
    pub(crate) async fn entity_of(
        &self,
        tx: &mut Tx,
        mount: &MountInfo,
        alias: &Alias,
        now: Timestamp,
    ) -> Result<LoginIdentity> {
        let accessor = mount.accessor.as_str();
        match self.alias_at(tx, accessor, &alias.name).await? {
            Some((place, key)) => {
                if !self.allows_tokens_of(&key.entity).await? {
                    return Err(Error::denied().because("the entity is disabled"));
                }
                if key.metadata != alias.metadata {
                    self.change_metadata(tx, &key.entity, accessor, alias).await?;
                    let changed = AliasKey { metadata: alias.metadata.clone(), ..key.clone() };
                    ALIASES.put_in(tx, &self.view, &place, &changed)?;
                }
                Ok(LoginIdentity { entity: key.entity, alias: key.id, ..LoginIdentity::default() })
            }
            None => {
                self.metrics.entity_creation.add(&[
                    ("auth_method", &mount.engine),
                    ("mount_point", &mount.path),
                    ("namespace", self.namespace.as_str()),
                ]);
                self.create_for(tx, accessor, alias, now).await
            }
        }
    }

    async fn create_for(&self, tx: &mut Tx, accessor: &str, alias: &Alias, now: Timestamp) -> Result<LoginIdentity> {
        let mut entity = self.new_entity(tx, "", now).await?;
        let id = self.new_id();
        entity.aliases.push(EntityAlias {
            id: id.clone(),
            name: alias.name.clone(),
            mount_accessor: accessor.to_owned(),
            metadata: alias.metadata.clone(),
            ..EntityAlias::new(now)
        });
        self.put_entity(tx, &entity)?;
        for alias in &entity.aliases {
            self.put_alias_keys(tx, &entity.id, alias).await?;
        }
        Ok(LoginIdentity { entity: entity.id, alias: id, created: true, regrouped: false })
    }

    async fn change_metadata(&self, tx: &mut Tx, id: &str, accessor: &str, alias: &Alias) -> Result<()> {
        let Some(mut entity) = self.entity(tx, id).await? else { return Ok(()) };
        for known in entity.aliases.iter_mut().filter(|known| known.mount_accessor == accessor) {
            known.metadata = alias.metadata.clone();
        }
        self.put_entity(tx, &entity)
    }

    /// Makes an entity a member of the external groups that an auth method reports, and of no other external group with an
    /// alias at its mount. Writes only differences. Returns whether there are any.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn set_external_groups(
        &self,
        tx: &mut Tx,
        entity: &str,
        accessor: &str,
        names: &[String],
    ) -> Result<bool> {
        let mut wanted = BTreeSet::new();
        for name in names.iter().take(MOST_GROUPS) {
            let group = self.group_of_alias(tx, accessor, name).await?;
            wanted.extend(group.filter(|group| group.kind == GroupKind::External).map(|group| group.id));
        }
        let mut current = BTreeSet::new();
        for id in membership::verified_groups_of(tx, &self.view, Member::Entity, entity).await? {
            let group = self.group(tx, &id).await?;
            let is_of_mount = group.is_some_and(|group| {
                group.kind == GroupKind::External && group.alias.is_some_and(|alias| alias.mount_accessor == accessor)
            });
            if is_of_mount {
                current.insert(id);
            }
        }
        for group in wanted.difference(&current) {
            membership::add(tx, &self.view, Member::Entity, group, entity);
        }
        for group in current.difference(&wanted) {
            membership::remove(tx, &self.view, Member::Entity, group, entity);
        }
        Ok(wanted != current)
    }

    /// Removes the memberships that the auth method of an alias reported, before the alias is replaced or deleted.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn leave_external_groups(&self, tx: &mut Tx, entity: &str, accessor: &str) -> Result<()> {
        self.set_external_groups(tx, entity, accessor, &[]).await.map(drop)
    }

    /// Applies the groups that an auth method reports at the renewal of a token, which was issued for this alias at this
    /// time. Returns whether the groups of the entity have changed.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn regroup(
        &self,
        tx: &mut Tx,
        entity: &Entity,
        (alias, issued): (&str, Timestamp),
        (accessor, groups): (&str, &[String]),
    ) -> Result<bool> {
        let groups = match entity.alias_at(accessor) {
            // The entity has lost the alias of the token, so no login reports its groups any more.
            None => &[],
            Some(known) if known.id == alias && known.replaced.is_none_or(|replaced| replaced < issued) => groups,
            // The groups are those of another name, and the logins of this one report its own.
            Some(_) => return Ok(false),
        };
        self.set_external_groups(tx, &entity.id, accessor, groups).await
    }

    /// The policies that the response of a login shows, sorted: as its transaction sees them if it has changed them.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn policies_of_login(&self, tx: &mut Tx, login: &LoginIdentity) -> Result<Vec<String>> {
        if login.regrouped {
            let effective = Box::pin(self.read_effective(tx, &login.entity)).await?;
            return Ok(effective.map(|effective| effective.sorted_policies()).unwrap_or_default());
        }
        if login.entity.is_empty() || login.created {
            return Ok(Vec::new());
        }
        let effective = self.effective(&login.entity).await?;
        Ok(effective.map(|effective| effective.sorted_policies()).unwrap_or_default())
    }
}

impl EntityAlias {
    /// An alias without a name.
    pub(super) fn new(now: Timestamp) -> Self {
        EntityAlias {
            id: String::new(),
            name: String::new(),
            mount_accessor: String::new(),
            metadata: Default::default(),
            custom_metadata: Default::default(),
            merged_from: Vec::new(),
            created: Some(now),
            modified: None,
            replaced: None,
        }
    }
}

impl Entity {
    /// The alias of this id.
    pub(crate) fn alias(&self, id: &str) -> Option<&EntityAlias> {
        self.aliases.iter().find(|alias| !alias.id.is_empty() && alias.id == id)
    }

    /// The alias at this mount.
    pub(crate) fn alias_at(&self, accessor: &str) -> Option<&EntityAlias> {
        self.aliases.iter().find(|alias| alias.mount_accessor == accessor)
    }
}
