//! What a quota applies to: the whole server, a namespace, a mount, or a path. Only the most specific quota applies.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use keepfast_framework::Error;
use keepfast_framework::Result;
use keepfast_framework::fields::Quoted;
use serde::{Deserialize, Serialize};

use crate::mount::Router;
use crate::namespace::NamespaceId;

/// What a quota applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// As the API has it: the path of the namespace, then nothing, a mount with its trailing slash, a path, or a path
    /// that ends in `*`.
    pub(crate) path: String,
    /// Whether `path` is a mount.
    pub(crate) is_mount: bool,
    /// Whether the quota of a namespace applies in the namespaces below it too.
    pub(crate) inheritable: bool,
    /// The namespace.
    #[serde(rename = "target_namespace", default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The length of the path of the namespace.
    #[serde(default)]
    pub(crate) start: usize,
}

impl Target {
    /// The target of a path without its final slash, in the namespace whose path ends at `start`.
    ///
    /// # Errors
    /// 400 for a path that begins with no mount.
    pub(crate) fn new(
        bare: &str,
        (namespace, start): (NamespaceId, usize),
        router: &Router,
        inheritable: Option<bool>,
    ) -> Result<Self> {
        let folder = if bare.is_empty() { String::new() } else { format!("{bare}/") };
        let within = folder.get(start..).unwrap_or_default();
        let is_mount = match router.find(within) {
            _ if within.is_empty() => false,
            Some((mounted, _)) => mounted.entry.path == within,
            None => return Err(Error::invalid(format!("invalid mount path {}", Quoted(within)))),
        };
        let is_folder = is_mount || within.is_empty();
        let inheritable = inheritable.unwrap_or(folder.is_empty());
        Ok(Target { path: if is_folder { folder } else { bare.to_owned() }, is_mount, inheritable, namespace, start })
    }

    /// The path in the namespace; empty for the namespace itself.
    pub(crate) fn within(&self) -> &str {
        self.path.get(self.start..).unwrap_or_default()
    }

    /// Whether it is this mount of this namespace, or a path in it.
    pub(crate) fn is_in(&self, namespace: &NamespaceId, mount: &str) -> bool {
        self.namespace == *namespace && self.within().starts_with(mount)
    }

    /// The same in a mount that has moved within its namespace.
    pub(crate) fn moved(&self, from: &str, to: &str) -> Self {
        let rest = self.within().strip_prefix(from).unwrap_or_default();
        let above = self.path.get(..self.start).unwrap_or_default();
        Target { path: format!("{above}{to}{rest}"), ..self.clone() }
    }
}

/// Quotas by their targets: a look-up does not depend on their number.
#[derive(Clone)]
pub(crate) struct Targets<T> {
    named: HashMap<String, Target>,
    namespaces: HashMap<NamespaceId, Within<T>>,
}

impl<T> Default for Targets<T> {
    fn default() -> Self {
        Targets { named: HashMap::new(), namespaces: HashMap::new() }
    }
}

/// The quotas in one namespace.
#[derive(Clone)]
struct Within<T> {
    whole: Option<Quota<T>>,
    /// By their paths without the trailing slash.
    mounts: HashMap<String, Quota<T>>,
    paths: HashMap<String, Quota<T>>,
    /// By their paths without the `*`, the longest ones first.
    prefixes: BTreeMap<Reverse<usize>, HashMap<String, Quota<T>>>,
}

#[derive(Clone)]
struct Quota<T> {
    name: String,
    inheritable: bool,
    quota: T,
}

impl<T> Targets<T> {
    /// Whether there are no quotas.
    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Adds a quota, or replaces the one with its name.
    pub(crate) fn put(&mut self, name: String, target: Target, quota: T) {
        self.remove(&name);
        let entry = Quota { name: name.clone(), inheritable: target.inheritable, quota };
        let within = self.namespaces.entry(target.namespace.clone()).or_default();
        match slot_of(&target) {
            Slot::Whole => within.whole = Some(entry),
            Slot::Mount(path) => drop(within.mounts.insert(path.to_owned(), entry)),
            Slot::Path(path) => drop(within.paths.insert(path.to_owned(), entry)),
            Slot::Prefix(prefix) => {
                within.prefixes.entry(Reverse(prefix.len())).or_default().insert(prefix.to_owned(), entry);
            }
        }
        self.named.insert(name, target);
    }

    /// Removes a quota.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(target) = self.named.remove(name) else { return };
        let Some(within) = self.namespaces.get_mut(&target.namespace) else { return };
        match slot_of(&target) {
            Slot::Whole => drop(within.whole.take_if(|quota| quota.name == name)),
            Slot::Mount(path) => remove_from(&mut within.mounts, path, name),
            Slot::Path(path) => remove_from(&mut within.paths, path, name),
            Slot::Prefix(prefix) => {
                let length = Reverse(prefix.len());
                if let Some(same_length) = within.prefixes.get_mut(&length) {
                    remove_from(same_length, prefix, name);
                    if same_length.is_empty() {
                        within.prefixes.remove(&length);
                    }
                }
            }
        }
        if within.is_empty() {
            self.namespaces.remove(&target.namespace);
        }
    }

    /// The most specific quota of a path in the first of these namespaces; each later one is the one above it. A path comes
    /// before the longest path with `*`, then the mount, the namespace, and the inheritable quotas above it.
    pub(crate) fn find<'a>(&self, lineage: impl IntoIterator<Item = &'a NamespaceId>, path: &str) -> Option<&T> {
        let mut lineage = lineage.into_iter();
        let own = lineage.next().and_then(|id| self.namespaces.get(id)).and_then(|within| within.find(path));
        let above = || {
            let mut whole = lineage.filter_map(|id| self.namespaces.get(id)?.whole.as_ref());
            whole.find(|quota| quota.inheritable)
        };
        own.or_else(above).map(|quota| &quota.quota)
    }
}

impl<T> Default for Within<T> {
    fn default() -> Self {
        Within { whole: None, mounts: HashMap::new(), paths: HashMap::new(), prefixes: BTreeMap::new() }
    }
}

impl<T> Within<T> {
    fn is_empty(&self) -> bool {
        self.whole.is_none() && self.mounts.is_empty() && self.paths.is_empty() && self.prefixes.is_empty()
    }

    fn find(&self, path: &str) -> Option<&Quota<T>> {
        let bare = path.strip_suffix('/').unwrap_or(path);
        let of_prefix = || {
            let mut found = self.prefixes.iter().filter_map(|(length, prefixes)| prefixes.get(path.get(..length.0)?));
            found.next()
        };
        self.paths.get(bare).or_else(of_prefix).or_else(|| self.of_mount(bare)).or(self.whole.as_ref())
    }

    fn of_mount(&self, bare: &str) -> Option<&Quota<T>> {
        let mut at = Some(bare).filter(|_| !self.mounts.is_empty());
        while let Some(path) = at {
            if let Some(quota) = self.mounts.get(path) {
                return Some(quota);
            }
            at = path.rsplit_once('/').map(|(above, _)| above);
        }
        None
    }
}

enum Slot<'a> {
    Whole,
    Mount(&'a str),
    Path(&'a str),
    Prefix(&'a str),
}

fn slot_of(target: &Target) -> Slot<'_> {
    match target.within() {
        "" => Slot::Whole,
        mount if target.is_mount => Slot::Mount(mount.trim_end_matches('/')),
        path => path.strip_suffix('*').map_or(Slot::Path(path), Slot::Prefix),
    }
}

/// Removes the quota at `key`, if it has this name: a record of an earlier version may have had the same target.
fn remove_from<T>(quotas: &mut HashMap<String, Quota<T>>, key: &str, name: &str) {
    if quotas.get(key).is_some_and(|quota| quota.name == name) {
        quotas.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NamespaceId {
        NamespaceId::parse(text).unwrap_or_default()
    }

    fn target(namespace: &str, start: usize, path: &str, inheritable: bool) -> Target {
        let is_mount = path.len() > start && path.ends_with('/');
        Target { path: path.to_owned(), is_mount, inheritable, namespace: id(namespace), start }
    }

    #[test]
    fn the_most_specific_quota_of_a_path_is_found() {
        let mut targets = Targets::default();
        let all = [
            target("", 0, "", true),
            target("aaaaaa", 2, "a/", false),
            target("aaaaaa", 2, "a/kv/", true),
            target("aaaaaa", 2, "a/kv/x", false),
            target("aaaaaa", 2, "a/kv/x*", false),
            target("aaaaaa", 2, "a/kv/xyz*", false),
            target("bbbbbb", 4, "a/b/kv/", false),
        ];
        for target in &all {
            targets.put(target.path.clone(), target.clone(), target.path.clone());
        }
        let root = NamespaceId::root();
        let (a, b) = (id("aaaaaa"), id("bbbbbb"));
        let of = |lineage: &[&NamespaceId], path: &str| {
            targets.find(lineage.iter().copied(), path).cloned().unwrap_or_default()
        };
        let in_a = |path: &str| of(&[&a, &root], path);
        assert_eq!(
            ["kv/x", "kv/x/", "kv/xy", "kv/xyz", "kv/xyzw/v"].map(in_a),
            ["a/kv/x", "a/kv/x", "a/kv/x*", "a/kv/xyz*", "a/kv/xyz*"]
        );
        assert_eq!(
            ["kv/y", "kv/y/z", "kv", "kv/", "kvx", "sys/mounts"].map(in_a),
            ["a/kv/", "a/kv/", "a/kv/", "a/kv/", "a/", "a/"]
        );
        assert_eq!(of(&[&b, &a, &root], "kv/x"), "a/b/kv/");
        assert_eq!(of(&[&b, &a, &root], "other"), "", "a quota that is not inheritable is only of its namespace");
        assert_eq!(of(&[&root], "a/kv/x"), "");
        for target in &all {
            targets.remove(&target.path);
        }
        assert!(targets.is_empty() && targets.namespaces.is_empty());
    }

    #[test]
    fn the_nearest_inheritable_quota_applies_below() {
        let mut targets = Targets::default();
        targets.put("root".into(), target("", 0, "", true), 0);
        targets.put("a".into(), target("aaaaaa", 2, "a/", true), 1);
        let (root, a, b) = (NamespaceId::root(), id("aaaaaa"), id("bbbbbb"));
        assert_eq!(targets.find([&b, &a, &root], "kv/x"), Some(&1));
        assert_eq!(targets.find([&b, &root], "kv/x"), Some(&0));
        targets.put("root".into(), target("", 0, "", false), 0);
        assert_eq!(targets.find([&b, &root], "kv/x"), None);
        assert_eq!(targets.find([&root], "kv/x"), Some(&0));
    }

    #[test]
    fn a_target_moves_with_its_mount() {
        let path = target("aaaaaa", 2, "a/kv/x", false);
        assert!(path.is_in(&id("aaaaaa"), "kv/") && !path.is_in(&NamespaceId::root(), "kv/"));
        assert_eq!(path.moved("kv/", "new/").path, "a/new/x");
        assert_eq!(target("aaaaaa", 2, "a/kv/", false).moved("kv/", "new/").path, "a/new/");
    }
}
