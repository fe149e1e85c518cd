//! The merge of entities into one, which gets their aliases and memberships. Their ids lead to it from then on.

use std::collections::{BTreeSet, HashMap, HashSet};

use keepfast_framework::{Error, Result};
use keepfast_storage::Tx;

use super::membership::{self, Member};
use super::names::name_key;
use super::record::{ENTITIES, ENTITY_NAMES, Entity, EntityAlias, MERGED, Reference};
use super::store::Identity;

/// The maximum number of entities that are merged into one, in all.
const MOST_MERGED: usize = 1000;
/// The maximum number of clashes in the text of an error.
const SHOWN: usize = 20;

/// Two aliases at one mount, of which an entity can have only one.
struct Clash<'e> {
    to: &'e str,
    of_to: &'e EntityAlias,
    from: &'e Entity,
    of_from: &'e EntityAlias,
}

impl Identity {
    /// The entities of a merge: that which stays and those which are merged into it, each once.
    ///
    /// # Errors
    /// 400 when one does not exist, and when the entity that stays is among the others.
    pub(super) async fn entities_to_merge(
        &self,
        tx: &mut Tx,
        to: &str,
        from: &[String],
    ) -> Result<(Entity, Vec<Entity>)> {
        let invalid = |text: &'static str| move || Error::invalid(text);
        let target = self.entity(tx, to).await?.ok_or_else(invalid("entity id to merge to is invalid"))?;
        if from.contains(&target.id) {
            return Err(Error::invalid("to_entity_id should not be present in from_entity_ids"));
        }
        let ids: BTreeSet<&String> = from.iter().collect();
        if ids.len() > MOST_MERGED {
            return Err(Error::invalid(format!("at most {MOST_MERGED} entities are merged into one")));
        }
        let mut sources = Vec::with_capacity(ids.len());
        for id in ids {
            sources.push(self.entity(tx, id).await?.ok_or_else(invalid("entity id to merge from is invalid"))?);
        }
        Ok((target, sources))
    }

    /// Merges `sources` into `target`. `keep` has the ids of aliases that stay where both have one at a mount.
    ///
    /// # Errors
    /// 400 when aliases clash and `keep` does not decide it, or there are several sources.
    pub(super) async fn merge(
        &self,
        tx: &mut Tx,
        mut target: Entity,
        sources: Vec<Entity>,
        keep: &[String],
    ) -> Result<()> {
        let dropped = dropped_aliases(&target, &sources, keep)?;
        let count: usize = sources.iter().map(|source| 1 + source.merged.len()).sum();
        if target.merged.len() + count > MOST_MERGED {
            return Err(Error::invalid(format!("at most {MOST_MERGED} entities are merged into one")));
        }
        let (removed, kept) = std::mem::take(&mut target.aliases).into_iter().partition(|a| dropped.contains(&a.id));
        target.aliases = kept;
        let removed: Vec<EntityAlias> = removed;
        for alias in &removed {
            self.delete_alias_keys(tx, &alias.mount_accessor, &alias.name, &alias.id).await?;
            self.leave_external_groups(tx, &target.id, &alias.mount_accessor).await?;
        }
        for source in sources {
            self.absorb(tx, &mut target, source, &dropped).await?;
        }
        self.put_entity(tx, &target)?;
        for alias in &target.aliases {
            self.put_alias_keys(tx, &target.id, alias).await?;
        }
        Ok(())
    }

    async fn absorb(&self, tx: &mut Tx, target: &mut Entity, source: Entity, dropped: &BTreeSet<String>) -> Result<()> {
        for mut alias in source.aliases {
            self.delete_alias_keys(tx, &alias.mount_accessor, &alias.name, &alias.id).await?;
            if dropped.contains(&alias.id) {
                self.leave_external_groups(tx, &source.id, &alias.mount_accessor).await?;
            } else {
                alias.merged_from.push(source.id.clone());
                target.aliases.push(alias);
            }
        }
        for group in membership::verified_groups_of(tx, &self.view, Member::Entity, &source.id).await? {
            membership::remove(tx, &self.view, Member::Entity, &group, &source.id);
            membership::add(tx, &self.view, Member::Entity, &group, &target.id);
        }
        ENTITY_NAMES.delete_in(tx, &self.view, &name_key(&source.name));
        ENTITIES.delete_in(tx, &self.view, &source.id);
        // Flattened: an id leads to the entity that exists in one step.
        let to = Reference { id: target.id.clone(), name: String::new(), namespace: self.namespace.clone() };
        for id in source.merged.into_iter().chain([source.id]) {
            MERGED.put_in(tx, &self.view, &id, &to)?;
            target.merged.push(id);
        }
        Ok(())
    }
}

/// The ids of the aliases that a merge deletes.
fn dropped_aliases(target: &Entity, sources: &[Entity], keep: &[String]) -> Result<BTreeSet<String>> {
    let clashes = clashes(target, sources);
    if clashes.is_empty() {
        return Ok(BTreeSet::new());
    }
    if keep.is_empty() || sources.len() > 1 {
        return Err(Error::invalid(describe(&clashes)));
    }
    let keep: HashSet<&String> = keep.iter().collect();
    let mut dropped = BTreeSet::new();
    for Clash { of_to, of_from, .. } in clashes {
        match (keep.contains(&of_to.id), keep.contains(&of_from.id)) {
            (true, false) => dropped.insert(of_from.id.clone()),
            (false, true) => dropped.insert(of_to.id.clone()),
            (true, true) => {
                return Err(Error::invalid("conflicting_alias_ids_to_keep has two aliases of the same mount"));
            }
            (false, false) => {
                return Err(Error::invalid(format!(
                    "conflicting mount accessors in following alias IDs and neither were present in \
                     conflicting_alias_ids_to_keep: {}, {}",
                    of_from.id, of_to.id
                )));
            }
        };
    }
    Ok(dropped)
}

/// The clashes of the aliases of sources with those of the target, and with those of sources before them.
///
/// Of several sources only as many as an error shows: their merge is refused.
fn clashes<'e>(target: &'e Entity, sources: &'e [Entity]) -> Vec<Clash<'e>> {
    let mut by_mount: HashMap<&str, Vec<(&Entity, &EntityAlias)>> = HashMap::new();
    for alias in &target.aliases {
        by_mount.entry(&alias.mount_accessor).or_default().push((target, alias));
    }
    let mut out = Vec::new();
    for from in sources {
        for of_from in &from.aliases {
            let others = by_mount.get(of_from.mount_accessor.as_str()).into_iter().flatten();
            let most = if sources.len() > 1 { SHOWN.saturating_sub(out.len()) } else { usize::MAX };
            out.extend(others.take(most).map(|&(to, of_to)| Clash { to: &to.id, of_to, from, of_from }));
            if sources.len() > 1 && out.len() >= SHOWN {
                return out;
            }
        }
        for alias in &from.aliases {
            by_mount.entry(&alias.mount_accessor).or_default().push((from, alias));
        }
    }
    out
}

/// The text of OpenBao for clashes that a caller has to decide.
fn describe(clashes: &[Clash<'_>]) -> String {
    let shown = clashes.iter().take(SHOWN);
    let mut text = format!(
        "{} errors occurred:\n\t* toEntity and at least one fromEntity have aliases with the same mount accessor, repeat \
         the merge request specifying exactly one fromEntity, clashes: \n",
        shown.len() + 1
    );
    for Clash { to, of_to, from, of_from } in shown {
        text.push_str(&format!(
            "\t* mountAccessor: {}, toEntity ID: {to}, fromEntity ID: {}, conflicting toEntity alias ID: {}, conflicting \
             fromEntity alias ID: {}\n",
            of_from.mount_accessor, from.id, of_to.id, of_from.id
        ));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::NamespaceId;
    use keepfast_framework::Timestamp;

    /// An entity with aliases `<entity>-<mount>`.
    fn entity(id: &str, mounts: &[&str]) -> Entity {
        let alias = |mount: &&str| EntityAlias {
            id: format!("{id}-{mount}"),
            mount_accessor: (*mount).to_owned(),
            ..EntityAlias::new(Timestamp::EPOCH)
        };
        Entity {
            id: id.to_owned(),
            name: id.to_owned(),
            metadata: Default::default(),
            policies: Vec::new(),
            aliases: mounts.iter().map(alias).collect(),
            disabled: false,
            merged: Vec::new(),
            namespace: NamespaceId::root(),
            created: Timestamp::EPOCH,
            modified: None,
        }
    }

    fn dropped(target: &[&str], sources: &[(&str, &[&str])], keep: &[&str]) -> Result<Vec<String>, String> {
        let sources: Vec<Entity> = sources.iter().map(|(id, mounts)| entity(id, mounts)).collect();
        let keep: Vec<String> = keep.iter().map(|id| (*id).to_owned()).collect();
        let dropped = dropped_aliases(&entity("to", target), &sources, &keep);
        dropped.map(|ids| ids.into_iter().collect()).map_err(|error| error.public().to_owned())
    }

    #[test]
    fn a_merge_drops_only_aliases_that_the_caller_did_not_keep() {
        assert_eq!(dropped(&["a"], &[("x", &["b"]), ("y", &["c"])], &[]).unwrap(), [""; 0]);
        assert_eq!(dropped(&["a", "b"], &[("x", &["b"])], &["x-b"]).unwrap(), ["to-b"]);
        assert_eq!(dropped(&["a", "b"], &[("x", &["b"])], &["to-b"]).unwrap(), ["x-b"]);
        let two = dropped(&["a", "b"], &[("x", &["a", "b"])], &["to-a", "x-b"]).unwrap();
        assert_eq!(two, ["to-b", "x-a"]);
    }

    #[test]
    fn clashes_of_several_sources_are_found_up_to_those_shown() {
        let sources: Vec<Entity> = (0..MOST_MERGED).map(|n| entity(&n.to_string(), &["a", "b"])).collect();
        let found = clashes(&sources[0], &sources[1..]).len();
        assert_eq!(found, SHOWN);
        let error = dropped_aliases(&sources[0], &sources[1..], &[]).unwrap_err();
        assert!(error.public().starts_with("21 errors occurred:"), "{}", error.public());
    }

    #[test]
    fn a_merge_with_undecided_clashes_is_refused() {
        let clash = dropped(&["a"], &[("x", &["a"])], &[]).unwrap_err();
        assert!(
            clash.starts_with("2 errors occurred:") && clash.contains("toEntity ID: to, fromEntity ID: x,"),
            "{clash}"
        );
        let undecided = dropped(&["a"], &[("x", &["a"])], &["other"]).unwrap_err();
        assert!(undecided.ends_with("conflicting_alias_ids_to_keep: x-a, to-a"), "{undecided}");
        assert!(dropped(&["a"], &[("x", &["a"])], &["x-a", "to-a"]).is_err(), "both");
        // Several sources are never decided by the list, also if they clash only with each other.
        assert!(dropped(&["a"], &[("x", &["a"]), ("y", &["b"])], &["x-a"]).is_err());
        let among = dropped(&["c"], &[("x", &["a"]), ("y", &["a"])], &["x-a"]).unwrap_err();
        assert!(among.contains("toEntity ID: x, fromEntity ID: y,"), "{among}");
    }
}
