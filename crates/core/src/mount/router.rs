//! The router from paths to mounts: an immutable snapshot, replaced as a whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keepfast_framework::engine::{Registered, Traits};
use keepfast_framework::mount::MountInfo;
use keepfast_framework::{Result, Table};
use keepfast_storage::View;

use super::engine_cell::EngineCell;
use super::entry::MountEntry;
use super::host::EngineHost;
use super::opened::OpenedEngine;
use crate::audit::MountMembers;
use crate::metrics::routes::RouteTimings;
use crate::metrics::standby::MountRows;

/// A mount with its storage and, after the first use, its engine.
pub(crate) struct Mounted {
    /// The stored entry.
    pub(crate) entry: MountEntry,
    /// The data of the mount that its engine gets.
    pub(crate) info: Arc<MountInfo>,
    /// Its part of the storage.
    pub(crate) view: View,
    /// The properties that the engine declares of its type.
    pub(crate) traits: Traits,
    /// The route table of its engine type, known before the engine is opened.
    pub(crate) table: Arc<Table>,
    /// Its representation in audit entries.
    pub(crate) audit: MountMembers,
    /// The timings of its engine.
    pub(crate) timings: Arc<RouteTimings>,
    engine: EngineCell<OpenedEngine>,
}

impl MountRows for Mounted {
    fn labels(&self, row: usize) -> (&str, &str) {
        let pattern = self.table.rows().get(row).and_then(|row| row.patterns.first());
        (pattern.map_or("", |pattern| pattern.source()), &self.entry.engine)
    }
}

impl Mounted {
    /// A mount of the namespace at this path, whose engine is not opened yet.
    pub(crate) fn new(
        entry: MountEntry,
        info: MountInfo,
        view: View,
        registered: &Registered,
        namespace: &str,
    ) -> Self {
        let (table, traits) = (registered.table().clone(), registered.traits);
        let audit = MountMembers::new(&entry, namespace, &shown_type(&entry, &traits));
        let (info, timings, engine) = (Arc::new(info), Arc::default(), EngineCell::default());
        Mounted { entry, info, view, traits, table, audit, timings, engine }
    }

    /// The type as the API shows it: a built-in mount of a namespace other than root has `ns_` before it, as in OpenBao.
    pub(crate) fn shown_type(&self) -> Cow<'_, str> {
        shown_type(&self.entry, &self.traits)
    }

    /// The prefix of its storage. All data of the mount is below it, and no data of other mounts.
    pub(crate) fn storage_prefix(&self) -> String {
        storage_prefix(&self.entry, &self.traits)
    }

    /// Keeps the timings of the mount from before a change.
    #[must_use]
    pub(crate) fn following(self, before: Option<&Arc<Mounted>>) -> Self {
        match before.filter(|before| before.entry.uuid == self.entry.uuid && before.entry.path == self.entry.path) {
            Some(before) => Mounted { timings: before.timings.clone(), ..self },
            None => self,
        }
    }

    /// The engine, opened at the first use.
    ///
    /// # Errors
    /// The error of the opening of the engine; 500 when it panics. The next request tries again.
    pub(crate) async fn engine(&self, host: &EngineHost) -> Result<&OpenedEngine> {
        self.engine.get_or_open(OpenedEngine::open(host, self)).await
    }

    /// The engine if it is open.
    pub(crate) fn opened(&self) -> Option<&OpenedEngine> {
        self.engine.get()
    }

    /// Passes a committed write or deletion of the record at `key` to the engine, if it is open or being opened.
    pub(super) fn applied(&self, key: &str, exists: bool) {
        self.engine.applied(key, exists);
    }
}

fn shown_type<'a>(entry: &'a MountEntry, traits: &Traits) -> Cow<'a, str> {
    match traits.built_in.is_some() && !entry.namespace.is_root() {
        true => Cow::Owned(format!("ns_{}", entry.engine)),
        false => Cow::Borrowed(&entry.engine),
    }
}

/// The prefix of the storage of a mount of this type.
pub(super) fn storage_prefix(entry: &MountEntry, traits: &Traits) -> String {
    match traits.built_in.and_then(|built_in| built_in.storage) {
        Some(prefix) => prefix.to_owned(),
        None => entry.own_storage(),
    }
}

/// All mounts by path.
#[derive(Default)]
pub(crate) struct Router {
    by_path: HashMap<String, Arc<Mounted>>,
    ordered: BTreeMap<String, Arc<Mounted>>,
    by_uuid: HashMap<String, Arc<Mounted>>,
    /// The maximum number of slashes in the path of a mount.
    deepest: usize,
}

impl Router {
    /// A router of these mounts.
    pub(crate) fn new(mounts: impl IntoIterator<Item = Arc<Mounted>>) -> Self {
        let ordered: BTreeMap<String, Arc<Mounted>> = mounts.into_iter().map(|m| (m.entry.path.clone(), m)).collect();
        let deepest = ordered.keys().map(|path| path.matches('/').count()).max().unwrap_or(0);
        let by_uuid = ordered.values().map(|m| (m.entry.uuid.clone(), m.clone())).collect();
        Router { by_path: ordered.clone().into_iter().collect(), ordered, by_uuid, deepest }
    }

    /// The mount of `path`, and the path within it: the longest mount path that is a prefix.
    ///
    /// A path without its trailing slash reaches the mount of that name too (`GET secret` is the root of `secret/`).
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(&Arc<Mounted>, &'p str)> {
        let mut found = None;
        for at in memchr::memchr_iter(b'/', path.as_bytes()).take(self.deepest) {
            if let Some(mounted) = self.by_path.get(&path[..=at]) {
                found = Some((mounted, &path[at + 1..]));
            }
        }
        if found.is_none() && !path.ends_with('/') {
            found = self.by_path.get(&format!("{path}/")).map(|m| (m, ""));
        }
        found
    }

    /// The mount at exactly this path (with its trailing slash).
    pub(crate) fn at(&self, path: &str) -> Option<&Arc<Mounted>> {
        self.by_path.get(path)
    }

    /// All mounts in the order of their paths.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Mounted>> {
        self.ordered.values()
    }

    /// A mount with which `path` (with its trailing slash) collides: the same path, one above it or one below it.
    pub(crate) fn collides(&self, path: &str) -> Option<&Arc<Mounted>> {
        self.ordered.values().find(|m| path.starts_with(&m.entry.path) || m.entry.path.starts_with(path))
    }

    /// The mount whose storage has this name.
    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<&Arc<Mounted>> {
        self.by_uuid.get(uuid)
    }

    /// The mount with this accessor.
    pub(crate) fn by_accessor(&self, accessor: &str) -> Option<&Arc<Mounted>> {
        self.ordered.values().find(|m| m.entry.accessor == accessor)
    }
}
