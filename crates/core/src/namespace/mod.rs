//! Namespaces: each has its own mounts, policies, identity and locks of users below one prefix of the storage. Tokens and
//! leases of all namespaces are stored together, each record with the id of its namespace, so that one expiry queue
//! serves all of them (`docs/adr/0013-tokens-of-all-namespaces-in-one-store.md`).
//!
//! | file | contents |
//! |---|---|
//! | `id` | the id of a namespace, and the suffix of tokens, accessors and lease ids |
//! | `record` | the stored records, and the names that a namespace can have |
//! | `directory` | reads the records, and keeps them until one changes |
//! | `open` | opens the services of a namespace at its first use, and finds the namespace of a request |
//! | `background` | the work of the leader in namespaces: ticks, interrupted unmounts and deletions |
//! | `changes` | creates, changes, locks and deletes namespaces |

pub(crate) mod background;
pub(crate) mod changes;
pub(crate) mod directory;
mod id;
pub(crate) mod open;
pub(crate) mod record;

use std::sync::Arc;

pub(crate) use id::{NamespaceId, split_suffix};

use crate::layout::NAMESPACES;

/// A namespace and its ancestors.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Its id.
    pub(crate) id: NamespaceId,
    /// Its path, such as `a/b/`; empty for root.
    pub(crate) path: Arc<str>,
    /// The namespaces above it; `None` for root.
    pub(crate) parent: Option<Arc<Namespace>>,
}

impl Namespace {
    /// The root namespace.
    pub(crate) fn root() -> Arc<Self> {
        Arc::new(Namespace { id: NamespaceId::root(), path: Arc::from(""), parent: None })
    }

    /// A child of this namespace.
    pub(crate) fn child(self: &Arc<Self>, id: NamespaceId, name: &str) -> Arc<Self> {
        let path = Arc::from(format!("{}{name}/", self.path));
        Arc::new(Namespace { id, path, parent: Some(self.clone()) })
    }

    /// The prefix of its storage: empty for root.
    pub(crate) fn storage(&self) -> String {
        if self.id.is_root() { String::new() } else { format!("{NAMESPACES}{}/", self.id.as_str()) }
    }

    /// The ids of this namespace and of those above it, up to root.
    pub(crate) fn lineage(&self) -> impl Iterator<Item = &NamespaceId> {
        std::iter::successors(Some(self), |at| at.parent.as_deref()).map(|at| &at.id)
    }

    /// The path of the namespace of this id, which is this one or above it; empty for root and for any other one.
    pub(crate) fn path_of(&self, id: &NamespaceId) -> &str {
        self.relative_to(id).map_or("", |below| &self.path[..self.path.len() - below.len()])
    }

    /// The path of this namespace relative to the namespace of this id, if that is the same or an ancestor.
    pub(crate) fn relative_to(&self, other: &NamespaceId) -> Option<&str> {
        let mut at = self;
        loop {
            if at.id == *other {
                return self.path.get(at.path.len()..);
            }
            at = at.parent.as_deref()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_path_relative_to_each_ancestor_only() {
        let id = |text: &str| NamespaceId::parse(text).unwrap();
        let a = Namespace::root().child(id("aaaaaa"), "a");
        let b = a.child(id("bbbbbb"), "b");
        assert_eq!((&*b.path, b.storage().as_str()), ("a/b/", "ns/bbbbbb/"));
        assert_eq!(b.relative_to(&b.id), Some(""));
        assert_eq!(b.relative_to(&a.id), Some("b/"));
        assert_eq!(b.relative_to(&NamespaceId::root()), Some("a/b/"));
        assert_eq!(a.relative_to(&b.id), None);
        assert_eq!(a.relative_to(&id("cccccc")), None);
    }
}
