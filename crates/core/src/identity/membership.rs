//! Memberships. Each is a pair of keys, so that neither a group nor an entity has a list that grows with it:
//!
//! | key | means |
//! |---|---|
//! | `member/<group>/<entity>`, `member-of/<entity>/<group>` | the entity is a member of the group |
//! | `child/<group>/<group>`, `child-of/<group>/<group>` | the second group is a member of the first; the first contains the second |

use std::collections::BTreeSet;

use bytes::Bytes;
use keepfast_framework::{Error, Result};
use keepfast_storage::{Page, ReadTx, Tx, View};

/// The maximum number of membership changes of one request.
pub(super) const MOST_CHANGES: usize = 10_000;
/// The maximum number of groups on a path from a group to one that contains it.
pub(super) const DEEPEST: usize = 32;
/// The maximum number of groups that an entity is in, directly or not.
const MOST_GROUPS: usize = 10_000;

/// The folder of the groups of an entity, by the entity.
pub(super) const MEMBER_OF: &str = "member-of/";
/// The folder of the groups that contain a group, by that group.
pub(super) const CHILD_OF: &str = "child-of/";

/// What is a member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// Entities.
    Entity,
    /// Groups.
    Group,
}

impl Member {
    /// The folder of the members of a group.
    fn members(self, group: &str) -> String {
        let folder = match self {
            Member::Entity => "member/",
            Member::Group => "child/",
        };
        format!("{folder}{group}/")
    }

    /// The folder of the groups of a member.
    fn groups(self, member: &str) -> String {
        let folder = match self {
            Member::Entity => MEMBER_OF,
            Member::Group => CHILD_OF,
        };
        format!("{folder}{member}/")
    }
}

/// Adds a member to a group.
pub(super) fn add(tx: &mut Tx, view: &View, kind: Member, group: &str, member: &str) {
    tx.put(view, &format!("{}{member}", kind.members(group)), Bytes::new());
    tx.put(view, &format!("{}{group}", kind.groups(member)), Bytes::new());
}

/// Removes a member from a group.
pub(super) fn remove(tx: &mut Tx, view: &View, kind: Member, group: &str, member: &str) {
    tx.delete(view, &format!("{}{member}", kind.members(group)));
    tx.delete(view, &format!("{}{group}", kind.groups(member)));
}

/// The members of a group, sorted.
pub(super) async fn members(tx: &mut ReadTx, view: &View, kind: Member, group: &str) -> Result<Vec<String>> {
    Ok(tx.list(view, &kind.members(group), &Page::all()).await?)
}

/// The first members of a group; the commit fails when others were added or removed by then.
pub(super) async fn first_members(
    tx: &mut ReadTx,
    view: &View,
    kind: Member,
    group: &str,
    limit: usize,
) -> Result<Vec<String>> {
    Ok(tx.list_verified(view, &kind.members(group), &Page::first(limit)).await?)
}

/// The groups that a member is in directly, sorted.
pub(super) async fn groups_of(tx: &mut ReadTx, view: &View, kind: Member, member: &str) -> Result<Vec<String>> {
    Ok(tx.list(view, &kind.groups(member), &Page::all()).await?)
}

/// The same; the commit fails when the member was added to others or removed by then.
pub(super) async fn verified_groups_of(
    tx: &mut ReadTx,
    view: &View,
    kind: Member,
    member: &str,
) -> Result<Vec<String>> {
    Ok(tx.list_verified(view, &kind.groups(member), &Page::all()).await?)
}

/// Replaces the members of a group.
///
/// # Errors
/// 400 for more than [`MOST_CHANGES`] added and removed members.
pub(super) async fn replace(
    tx: &mut Tx,
    view: &View,
    kind: Member,
    group: &str,
    wanted: &BTreeSet<String>,
) -> Result<()> {
    let current: BTreeSet<String> =
        tx.list_verified(view, &kind.members(group), &Page::all()).await?.into_iter().collect();
    let added: Vec<&String> = wanted.difference(&current).collect();
    let removed: Vec<&String> = current.difference(wanted).collect();
    if added.len() + removed.len() > MOST_CHANGES {
        return Err(Error::invalid(format!("a request changes at most {MOST_CHANGES} members of a group")));
    }
    for member in added {
        add(tx, view, kind, group, member);
    }
    for member in removed {
        remove(tx, view, kind, group, member);
    }
    Ok(())
}

/// The groups that contain one of `direct` at any depth, without those, sorted.
///
/// # Errors
/// 500 when there are too many, or when they nest too deep: then nothing may be derived from a part of them.
pub(super) async fn containing(tx: &mut ReadTx, view: &View, direct: &[String]) -> Result<Vec<String>> {
    let mut seen: BTreeSet<String> = direct.iter().cloned().collect();
    let mut level = direct.to_vec();
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for group in &level {
            for parent in groups_of(tx, view, Member::Group, group).await? {
                if seen.insert(parent.clone()) {
                    next.push(parent);
                }
            }
            if seen.len() > MOST_GROUPS {
                return Err(Error::internal("an entity is in too many groups"));
            }
        }
        if next.is_empty() {
            return Ok(seen.into_iter().filter(|group| !direct.contains(group)).collect());
        }
        level = next;
    }
    Err(Error::internal("groups nest too deep"))
}

/// The groups above or below a group, itself included, and the number of their levels.
async fn heights(tx: &mut ReadTx, view: &View, start: &str, up: bool) -> Result<(BTreeSet<String>, usize)> {
    let mut seen = BTreeSet::from([start.to_owned()]);
    let (mut level, mut height) = (vec![start.to_owned()], 0);
    while height <= DEEPEST {
        let mut next = BTreeSet::new();
        for group in &level {
            let folder = if up { Member::Group.groups(group) } else { Member::Group.members(group) };
            // Verified: of two requests that would close a cycle together, one conflicts.
            for other in tx.list_verified(view, &folder, &Page::all()).await? {
                // A group below several others is at its greatest depth in the last level.
                next.insert(other.clone());
                seen.insert(other);
            }
            if seen.len() > MOST_GROUPS {
                return Err(Error::invalid(format!("a group is nested with at most {MOST_GROUPS} others")));
            }
        }
        if next.is_empty() {
            break;
        }
        level = next.into_iter().collect();
        height += 1;
    }
    Ok((seen, height))
}

/// Checks that `child` may become a member of `group`.
///
/// # Errors
/// 400 when `child` contains `group`, or when groups would nest deeper than [`DEEPEST`].
pub(super) async fn check_nesting(tx: &mut ReadTx, view: &View, group: &str, child: &str) -> Result<()> {
    let (above, up) = heights(tx, view, group, true).await?;
    if above.contains(child) {
        let child = keepfast_framework::fields::Quoted(child);
        return Err(Error::invalid(format!("cyclic relationship detected for member group ID {child}")));
    }
    let (_, down) = heights(tx, view, child, false).await?;
    if up + 1 + down >= DEEPEST {
        return Err(Error::invalid(format!("groups nest at most {DEEPEST} deep")));
    }
    Ok(())
}
