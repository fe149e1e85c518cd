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

/// The maximum number of groups and memberships that a request reads to check how groups nest.
const MOST_VISITED: usize = 10_000;

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

/// The number of the entities in a group, if `left` allows to count them.
pub(super) async fn count_members(
    tx: &mut ReadTx,
    view: &View,
    group: &str,
    left: &mut usize,
) -> Result<Option<usize>> {
    count(tx, view, &Member::Entity.members(group), left).await
}

/// The number of the groups that contain a group, if `left` allows to count them.
pub(super) async fn count_parents(
    tx: &mut ReadTx,
    view: &View,
    group: &str,
    left: &mut usize,
) -> Result<Option<usize>> {
    count(tx, view, &Member::Group.groups(group), left).await
}

async fn count(tx: &mut ReadTx, view: &View, folder: &str, left: &mut usize) -> Result<Option<usize>> {
    let count = tx.list(view, folder, &Page::first(*left + 1)).await?.len();
    let rest = left.checked_sub(count);
    *left = rest.unwrap_or(0);
    Ok(rest.map(|_| count))
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

/// All members of a group; the commit fails when others were added or removed by then.
pub(super) async fn verified_members(
    tx: &mut ReadTx,
    view: &View,
    kind: Member,
    group: &str,
) -> Result<BTreeSet<String>> {
    Ok(tx.list_verified(view, &kind.members(group), &Page::all()).await?.into_iter().collect())
}

/// Replaces the members of a group, `current`, which are verified.
///
/// # Errors
/// 400 for more than [`MOST_CHANGES`] added and removed members.
pub(super) fn replace(
    tx: &mut Tx,
    view: &View,
    kind: Member,
    group: &str,
    current: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
) -> Result<()> {
    let added: Vec<&String> = wanted.difference(current).collect();
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

/// The groups that contain one of `direct` at any depth, without those, sorted. `direct` is sorted.
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
            return Ok(seen.into_iter().filter(|group| direct.binary_search(group).is_err()).collect());
        }
        level = next;
    }
    Err(Error::internal("groups nest too deep"))
}

/// The groups above or below some groups, those included, and the number of their levels. `left` is the number of groups
/// and memberships that the request may still read.
async fn heights<'g>(
    tx: &mut ReadTx,
    view: &View,
    start: impl Iterator<Item = &'g String>,
    up: bool,
    left: &mut usize,
) -> Result<(BTreeSet<String>, usize)> {
    let mut level: BTreeSet<String> = start.cloned().collect();
    let (mut seen, mut height) = (level.clone(), 0);
    while height <= DEEPEST {
        let mut next = BTreeSet::new();
        for group in &level {
            let folder = if up { Member::Group.groups(group) } else { Member::Group.members(group) };
            // Verified: of two requests that would close a cycle together, one conflicts.
            let others = tx.list_verified(view, &folder, &Page::first(*left + 1)).await?;
            let visited = 1 + others.iter().filter(|other| !next.contains(*other)).count();
            *left = left.checked_sub(visited).ok_or_else(|| {
                Error::invalid(format!(
                    "a request checks at most {MOST_VISITED} groups and memberships above and below a group"
                ))
            })?;
            // A group below several others is at its greatest depth in the last level.
            next.extend(others);
        }
        if next.is_empty() {
            break;
        }
        seen.extend(next.iter().cloned());
        level = next;
        height += 1;
    }
    Ok((seen, height))
}

/// Checks that `children` may become members of `group`.
///
/// # Errors
/// 400 when one contains `group`, when groups would nest deeper than [`DEEPEST`], and when there are too many to check.
pub(super) async fn check_nesting(tx: &mut ReadTx, view: &View, group: &str, children: &[&String]) -> Result<()> {
    if children.is_empty() {
        return Ok(());
    }
    let mut left = MOST_VISITED;
    let (above, up) = heights(tx, view, [&group.to_owned()].into_iter(), true, &mut left).await?;
    if let Some(child) = children.iter().find(|child| above.contains(**child)) {
        let child = keepfast_framework::fields::Quoted(child);
        return Err(Error::invalid(format!("cyclic relationship detected for member group ID {child}")));
    }
    let (_, down) = heights(tx, view, children.iter().copied(), false, &mut left).await?;
    if up + 1 + down >= DEEPEST {
        return Err(Error::invalid(format!("groups nest at most {DEEPEST} deep")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_groups_that_a_check_of_nesting_visits_are_bound_in_all() {
        let server = crate::tests::fixture::TestServer::new().await;
        let barrier = server.unsealed().barrier.clone();
        let view = barrier.view("identity/");
        let mut tx = barrier.begin();
        // Each child alone is within the limit.
        let children: Vec<String> = (0..4).map(|n| format!("child-{n}")).collect();
        for child in &children {
            (0..MOST_VISITED / 4).for_each(|n| add(&mut tx, &view, Member::Group, child, &format!("{child}-{n}")));
        }
        let all: Vec<&String> = children.iter().collect();
        check_nesting(&mut tx, &view, "top", &all[..1]).await.unwrap();
        assert_eq!(check_nesting(&mut tx, &view, "top", &all).await.unwrap_err().status().0, 400);
    }
}
