//! The mount table: stored entries and the router that is built from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keepfast_crypto::random;
use keepfast_framework::engine::{BuiltIn, Registered, Registry, Traits};
use keepfast_framework::mount::MountInfo;
use keepfast_framework::token_params::TokenKind;
use keepfast_framework::{Error, Kind, Records, Result, Status};
use keepfast_storage::{Page, ReadTx, Tx, View, Wrapping};

use super::entry::{MountConfig, MountEntry};
use super::router::{Mounted, Router, storage_prefix};
use crate::invalidation::{CacheOwner, CommittedChange, Followed};
use crate::layout::{ENGINE_STORAGE, MOUNT_ENTRIES};
use crate::namespace::NamespaceId;
use crate::settings::Settings;
use crate::unreadable;

const ENTRIES: Records<MountEntry> = Records::at(MOUNT_ENTRIES);

/// All mounts. The router follows the stored entries.
pub(crate) struct Mounts {
    /// The namespace of the records.
    pub(crate) namespace: NamespaceId,
    storage: MountStorage,
    registry: Arc<Registry>,
    settings: Arc<Settings>,
    entries: Followed<Entries>,
    router: ArcSwap<Router>,
    /// Serializes changes of mounts.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// The storage of the mounts of a namespace.
pub(crate) struct MountStorage {
    /// The path of the namespace, for audit entries.
    pub(crate) namespace: Arc<str>,
    /// All storage of the namespace; each mount has a part of it.
    pub(crate) all: View,
    /// The entries of the mounts.
    pub(crate) entries: View,
    /// The storage of what belongs to tokens, which is beside that of the root namespace; `None` for root, whose mount has
    /// its own.
    pub(crate) cubbyhole: Option<View>,
}

/// The stored entries, by the names of their records.
type Entries = BTreeMap<String, MountEntry>;

impl Mounts {
    /// The table of a namespace, without mounts.
    pub(crate) fn new(
        namespace: NamespaceId,
        storage: MountStorage,
        registry: Arc<Registry>,
        settings: Arc<Settings>,
    ) -> Self {
        Mounts {
            namespace,
            storage,
            registry,
            settings,
            entries: Followed::default(),
            router: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// Reads the table.
    pub(crate) async fn load(&self, tx: &mut ReadTx) -> Result<()> {
        self.route(&*self.entries.load(self, tx, |mounts, tx| Box::pin(mounts.stored_entries(tx))).await?);
        Ok(())
    }

    async fn stored_entries(&self, tx: &mut ReadTx) -> Result<Entries> {
        let mut entries = Entries::new();
        for name in ENTRIES.list_in(tx, &self.storage.entries, "", &Page::all()).await? {
            let entry = unreadable::read((&ENTRIES, "mount"), tx, &self.storage.entries, &name).await?.readable();
            entries.extend(entry.filter(|entry| entry.namespace == self.namespace).map(|entry| (name, entry)));
        }
        Ok(entries)
    }

    /// Writes the built-in mounts of a namespace into a storage that has no mounts.
    pub(crate) async fn write_built_in(
        tx: &mut Tx,
        view: &View,
        registry: &Registry,
        namespace: &NamespaceId,
    ) -> Result<()> {
        if ENTRIES.list_in(tx, view, "", &Page::first(1)).await?.is_empty() {
            for entry in built_in(registry) {
                let mut entry = MountEntry { namespace: namespace.clone(), ..entry };
                if !namespace.is_root() {
                    entry.config.token_type = TokenKind::Default;
                }
                ENTRIES.put_in(tx, view, &entry.uuid, &entry)?;
            }
        }
        Ok(())
    }

    /// The current router.
    pub(crate) fn router(&self) -> arc_swap::Guard<Arc<Router>> {
        self.router.load()
    }

    /// Rebuilds the router; open engines stay open unless their mount changed.
    fn route(&self, entries: &Entries) {
        self.route_without(entries, None);
    }

    /// Rebuilds the router so that the engine of this mount is opened again at its next use. Requests with the old
    /// engine finish with it.
    fn reopen(&self, uuid: &str) {
        self.route_without(&self.entries.lock(), Some(uuid));
    }

    fn route_without(&self, entries: &Entries, stale: Option<&str>) {
        let before = self.router.load_full();
        let mut mounted = Vec::with_capacity(entries.len());
        for entry in entries.values().filter(|entry| !entry.leaving) {
            let earlier = before.at(&entry.path);
            let keeps = |m: &&Arc<Mounted>| same_engine(&m.entry, entry) && stale != Some(&*entry.uuid);
            match earlier.filter(keeps).cloned() {
                Some(kept) => mounted.push(kept),
                None => mounted.extend(self.mounted(entry.clone()).map(|fresh| Arc::new(fresh.following(earlier)))),
            }
        }
        self.router.store(Arc::new(Router::new(mounted)));
    }

    /// A mount of an entry, outside the router; `None` for a type that this server does not have.
    pub(crate) fn mounted(&self, entry: MountEntry) -> Option<Mounted> {
        let registered = self.registry.find(entry.kind(), &entry.engine, &entry.options())?;
        let info = MountInfo {
            path: entry.path.clone(),
            engine: entry.engine.clone(),
            accessor: entry.accessor.clone(),
            uuid: entry.uuid.clone(),
            options: entry.options(),
            ttl: entry.ttl(&self.settings),
        };
        let own = || self.storage.all.sub(&storage_prefix(&entry, &registered.traits));
        let of_tokens = self.storage.cubbyhole.as_ref().filter(|_| registered.traits.per_token);
        let view = of_tokens.cloned().unwrap_or_else(own);
        let view = view.wrapping(self.wrapping(&entry, &registered.traits));
        Some(Mounted::new(entry, info, view, registered, &self.storage.namespace))
    }

    /// Which values of a mount are wrapped.
    fn wrapping(&self, entry: &MountEntry, traits: &Traits) -> Wrapping {
        match (self.settings.disable_sealwrap, entry.seal_wrap && traits.built_in.is_none()) {
            (true, _) => Wrapping::Never,
            (false, true) => Wrapping::Always,
            (false, false) => Wrapping::Below(traits.wrapped),
        }
    }

    /// Whether the value at a storage path must be wrapped; `None` outside of the storage of mounts, and for a mount that
    /// cannot be read.
    pub(crate) fn wraps(&self, path: &str) -> Option<bool> {
        let within = path.strip_prefix(self.storage.all.prefix())?;
        let below = ENGINE_STORAGE.iter().find_map(|storage| within.strip_prefix(storage))?;
        let (uuid, _) = below.split_once('/')?;
        let mounted = self.with_leaving(uuid)?;
        path.starts_with(mounted.view.prefix()).then(|| mounted.view.wraps(path))
    }

    /// Writes an entry; the router follows the commit.
    pub(crate) fn save(&self, tx: &mut Tx, entry: &MountEntry) -> Result<()> {
        ENTRIES.put_in(tx, &self.storage.entries, &entry.uuid, entry)
    }

    /// Makes a transaction that writes to a mount conflict with an unmount and with a change of the engine of the
    /// mount. Data that is written after the mount was cleared, or in the format of a former engine, could be neither
    /// read nor deleted.
    ///
    /// Fails with 404 when the mount is deleted or being unmounted, and with 503 when its engine differs from that of
    /// `mounted`.
    pub(crate) async fn conflict_with_unmount(&self, tx: &mut Tx, mounted: &Mounted) -> Result<()> {
        // A built-in mount always exists, with its engine.
        if !tx.is_dirty() || mounted.traits.built_in.is_some() {
            return Ok(());
        }
        let found = ENTRIES.get_in(tx, &self.storage.entries, &mounted.entry.uuid).await?;
        match found.filter(|found| !found.leaving && found.namespace == self.namespace) {
            Some(found) if found.has_engine_of(&mounted.entry) => Ok(()),
            Some(_) => Err(Error::new(Status::UNAVAILABLE, "the mount has changed, try again")),
            None => Err(Error::new(Status::NOT_FOUND, "no handler for route: its mount is gone")),
        }
    }

    /// Deletes an entry.
    pub(crate) fn delete(&self, tx: &mut Tx, entry: &MountEntry) {
        ENTRIES.delete_in(tx, &self.storage.entries, &entry.uuid);
    }

    /// Entries of mounts whose unmount an earlier process began.
    pub(crate) fn leaving(&self) -> Vec<MountEntry> {
        self.entries.lock().values().filter(|entry| entry.leaving).cloned().collect()
    }

    /// The mount of this uuid, also while it is being unmounted.
    pub(crate) fn with_leaving(&self, uuid: &str) -> Option<Arc<Mounted>> {
        if let Some(found) = self.router().by_uuid(uuid) {
            return Some(found.clone());
        }
        let leaving = self.leaving().into_iter().find(|entry| entry.uuid == uuid);
        leaving.and_then(|entry| self.mounted(entry)).map(Arc::new)
    }

    /// The path of the namespace.
    pub(crate) fn namespace_path(&self) -> &str {
        &self.storage.namespace
    }

    /// The engines that can be mounted.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// A new entry.
    ///
    /// Fails with 400 for a type that this server does not have.
    pub(crate) fn entry(
        &self,
        kind: Kind,
        path: &str,
        engine: &str,
        options: Option<BTreeMap<String, String>>,
    ) -> Result<MountEntry> {
        let options_given = options.clone().unwrap_or_default();
        if self.registry.find(kind, engine, &options_given).is_none() {
            return Err(Error::invalid(format!("plugin not found in the catalog: {engine}")));
        }
        Ok(MountEntry { namespace: self.namespace.clone(), ..fresh(kind, path, engine, options, "") })
    }
}

impl CacheOwner for Mounts {
    fn applied(&self, change: &CommittedChange<'_>) {
        let mut entries = self.entries.follow();
        // A mount with an unreadable entry handles no requests.
        match change.record::<MountEntry>("mount").readable().filter(|entry| entry.namespace == self.namespace) {
            Some(entry) => drop(entries.insert(change.key.to_owned(), entry)),
            None => drop(entries.remove(change.key)),
        }
        self.route(&entries);
    }
}

/// Passes commits to the open engines, each for its own part of the storage.
pub(crate) struct EngineRecords(pub(crate) Arc<Mounts>);

impl CacheOwner for EngineRecords {
    fn applied(&self, change: &CommittedChange<'_>) {
        let Some((uuid, key)) = change.key.split_once('/') else { return };
        if let Some(mounted) = self.0.router().by_uuid(uuid) {
            mounted.applied(key, change.exists());
        }
    }

    fn drop_stale(&self, change: &CommittedChange<'_>) -> bool {
        if let Some((uuid, _)) = change.key.split_once('/') {
            self.0.reopen(uuid);
        }
        true
    }
}

fn same_engine(a: &MountEntry, b: &MountEntry) -> bool {
    a.uuid == b.uuid
        && a.path == b.path
        && a.options == b.options
        && a.config == b.config
        && a.description == b.description
}

fn fresh(
    kind: Kind,
    path: &str,
    engine: &str,
    options: Option<BTreeMap<String, String>>,
    description: &str,
) -> MountEntry {
    let auth = kind == Kind::Auth;
    let prefix = if auth { "auth_" } else { "" };
    MountEntry {
        uuid: random::uuid(),
        namespace: NamespaceId::root(),
        path: path.to_owned(),
        engine: engine.to_owned(),
        auth,
        accessor: format!("{prefix}{engine}_{}", hex::encode(random::bytes::<4>())),
        description: description.to_owned(),
        options,
        config: MountConfig::default(),
        local: false,
        seal_wrap: false,
        external_entropy_access: false,
        leaving: false,
    }
}

/// The entries of the built-in mounts.
fn built_in(registry: &Registry) -> Vec<MountEntry> {
    let entry = |(registered, built_in): (&Registered, &BuiltIn)| {
        let mut entry = fresh(registered.kind, built_in.path, &registered.engine, None, built_in.description);
        (entry.local, entry.seal_wrap) = (built_in.local, built_in.seal_wrap);
        entry.config.token_type = built_in.token_type;
        entry.config.passthrough_request_headers =
            built_in.passthrough_request_headers.iter().map(|&header| header.to_owned()).collect();
        entry
    };
    registry.built_in().map(entry).collect()
}
