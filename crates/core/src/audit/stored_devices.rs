//! Audit devices that `sys/audit` creates, if the configuration allows it: stored behind the barrier, each with its
//! salt in the same commit. Every node opens them: at unseal, and when one is committed.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{Barrier, Page, ReadTx, Tx, View};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::allowed_targets::AllowedTargets;
use super::broker::{Broker, Recorder, salt_key};
use super::device::{Device, Ticket};
use super::device_error::DeviceError;
use super::line::Line;
use super::options::DeviceOptions;
use super::target;
use crate::invalidation::{CacheOwner, CommittedChange};
use crate::layout::AUDIT_DEVICES;
use crate::settings::{AuditSettings, Settings};

/// The most devices that `sys/audit` creates.
const MOST: usize = 64;

/// The stored record of a device, under the name in hexadecimal.
#[derive(Serialize, Deserialize)]
struct Stored {
    device: String,
    name: String,
    description: String,
    options: BTreeMap<String, String>,
    local: bool,
}

const STORED: Records<Stored> = Records::at(AUDIT_DEVICES);

impl Stored {
    fn settings(&self) -> AuditSettings {
        AuditSettings {
            device: self.device.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            options: self.options.clone(),
        }
    }
}

/// Checks a device and that its target can be opened, and writes it with its salt into `tx`; it takes entries once it
/// is committed.
///
/// Fails with 400 as OpenBao: a path in use, invalid options, a target that cannot be opened or written.
pub(crate) async fn create(
    broker: &Broker,
    tx: &mut Tx,
    view: &View,
    settings: AuditSettings,
    local: bool,
    limits: &Settings,
) -> Result<()> {
    let options = DeviceOptions::read(&settings.device, &settings.options).map_err(Error::invalid)?;
    if !options.format.prefix.is_empty() && !limits.allow_audit_log_prefixing {
        return Err(Error::invalid("audit log prefixing is not allowed"));
    }
    let at = hex::encode(&settings.name);
    let present = STORED.list_in(tx, view, "", &Page::all()).await?;
    if broker.collides(&settings.name) || STORED.get_in(tx, view, &at).await?.is_some() {
        return Err(Error::invalid("path already in use"));
    }
    if present.len() >= MOST {
        return Err(Error::invalid(format!("there are {MOST} audit devices already")));
    }
    let failed = |error: DeviceError| Error::invalid(format!("sanity check failed; {}", error.reason));
    let allowed = AllowedTargets::created(&limits.own_files);
    target::prepare_all(std::slice::from_ref(&settings), &allowed).map_err(failed)?;
    target::open(&settings, &allowed).map_err(failed)?;
    let salt = random::bytes::<32>();
    tx.put(view, &salt_key(&settings.name), Bytes::copy_from_slice(&salt));
    let AuditSettings { device, name, description, options } = settings;
    STORED.put_in(tx, view, &at, &Stored { device, name, description, options, local })
}

/// Deletes a device and its salt, if there is one.
pub(crate) async fn delete(tx: &mut Tx, view: &View, name: &str) -> Result<()> {
    let at = hex::encode(name);
    if STORED.get_in(tx, view, &at).await?.is_some() {
        STORED.delete_in(tx, view, &at);
        tx.delete(view, &salt_key(name));
    }
    Ok(())
}

/// Opens all stored devices at unseal, if the configuration allows any. One that cannot be opened is kept, and opened again
/// when logs are reopened, as long as another device takes entries.
///
/// Fails when storage fails; when there are devices and none can be opened.
pub(crate) async fn open_all(broker: &Broker, tx: &mut ReadTx, view: &View, settings: &Settings) -> Result<()> {
    let mut last = None;
    for at in STORED.list_in(tx, view, "", &Page::all()).await? {
        last = open_stored(broker, tx, view, settings, &at).await?.or(last);
    }
    match last {
        Some(error) if !broker.has_open_device() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Opens the stored device at `at`, if there is one and the configuration allows it: a device of a restored snapshot may
/// write to any file. The error is why its target cannot be opened: then the device takes no entries, and without another
/// one every request is refused.
async fn open_stored(
    broker: &Broker,
    tx: &mut ReadTx,
    view: &View,
    limits: &Settings,
    at: &str,
) -> Result<Option<DeviceError>> {
    let Some(stored) = STORED.get_in(tx, view, at).await? else { return Ok(None) };
    let salt = tx.get(view, &salt_key(&stored.name)).await?;
    let settings = stored.settings();
    // A device declared later under the same path has precedence.
    if broker.collides(&settings.name) {
        tracing::warn!(device = %settings.name, "an audit device of the configuration has the path of one of sys/audit, which is not opened");
        return Ok(None);
    }
    if !limits.allow_api_audit_creation {
        let error = DeviceError::of(&settings, FORBIDDEN);
        tracing::error!(%error, "an audit device of sys/audit is not opened and gets no entries");
        let salt = salt.unwrap_or_else(|| Bytes::copy_from_slice(&random::bytes::<32>()));
        let opened = (DeviceOptions::unusable(), Box::new(Forbidden) as Box<dyn Device>);
        broker.add(Recorder::created(settings, opened, &salt, stored.local));
        return Ok(Some(error));
    }
    let salt = salt.ok_or_else(|| Error::internal("an audit device has no salt"))?;
    let allowed = AllowedTargets::created(&limits.own_files);
    let (opened, failure) = match target::open(&settings, &allowed) {
        Ok(opened) => (opened, None),
        Err(error) => {
            tracing::error!(%error, "an audit device of sys/audit cannot be opened and gets no entries");
            // Options that an older version accepted: the device writes nothing until they are corrected.
            let options = DeviceOptions::of(&settings).unwrap_or_else(|_| DeviceOptions::unusable());
            let unopened = Unopened { settings: settings.clone(), allowed, opened: OnceLock::new() };
            ((options, Box::new(unopened) as Box<dyn Device>), Some(error))
        }
    };
    broker.add(Recorder::created(settings, opened, &salt, stored.local));
    Ok(failure)
}

/// The stored devices, which any node may change. A broker applies the changes before it takes the next entry.
pub(crate) struct StoredDevices {
    barrier: Arc<Barrier>,
    view: View,
    settings: Arc<Settings>,
    changed: Mutex<Changed>,
    is_behind: AtomicBool,
    /// Only one request applies changes at a time; the others wait.
    following: tokio::sync::Mutex<()>,
}

/// Committed records that are not applied yet.
#[derive(Default)]
struct Changed {
    /// The number of the last commit by the name of the record.
    names: BTreeMap<String, u64>,
    /// Counts the commits.
    commits: u64,
}

impl StoredDevices {
    /// The devices under `view`, as far as the configuration allows them.
    pub(crate) fn new(barrier: Arc<Barrier>, view: View, settings: Arc<Settings>) -> Self {
        StoredDevices {
            barrier,
            view,
            settings,
            changed: Mutex::default(),
            is_behind: AtomicBool::new(false),
            following: tokio::sync::Mutex::default(),
        }
    }

    /// Whether there are changes to apply.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    /// Opens and removes devices of the broker to match the stored ones.
    ///
    /// Fails when storage fails or a record or salt cannot be read: no request may run before the devices are known.
    pub(crate) async fn follow(&self, broker: &Broker) -> Result<()> {
        let _alone = self.following.lock().await;
        while let Some((at, commit)) = self.next_changed() {
            self.reopen(broker, &at).await?;
            // Removed last, so that after a failure, a panic or a dropped request the next request applies them.
            let mut changed = self.changed.lock();
            if changed.names.get(&at) == Some(&commit) {
                changed.names.remove(&at);
            }
            self.is_behind.store(!changed.names.is_empty(), Ordering::Release);
        }
        Ok(())
    }

    fn next_changed(&self) -> Option<(String, u64)> {
        self.changed.lock().names.first_key_value().map(|(at, commit)| (at.clone(), *commit))
    }

    async fn reopen(&self, broker: &Broker, at: &str) -> Result<()> {
        let Some(name) = hex::decode(at).ok().and_then(|name| String::from_utf8(name).ok()) else { return Ok(()) };
        broker.remove(&name);
        open_stored(broker, &mut self.barrier.begin_read(), &self.view, &self.settings, at).await.map(drop)
    }
}

/// Follows the records of devices.
impl CacheOwner for StoredDevices {
    fn applied(&self, change: &CommittedChange<'_>) {
        let mut changed = self.changed.lock();
        changed.commits += 1;
        let commit = changed.commits;
        changed.names.insert(change.key.to_owned(), commit);
        self.is_behind.store(true, Ordering::Release);
    }
}

/// Why a device is never opened.
const FORBIDDEN: &str = "the configuration does not have unsafe_allow_api_audit_creation = true";

/// A device that the configuration of this node forbids. It takes no entries.
struct Forbidden;

impl Device for Forbidden {
    fn submit(&self, _: Line) -> Ticket<'_> {
        Ticket::Done(Err(io::Error::other(FORBIDDEN)))
    }

    fn reopen(&self) -> io::Result<()> {
        Err(io::Error::other(FORBIDDEN))
    }

    fn can_block(&self) -> bool {
        false
    }

    fn is_open(&self) -> bool {
        false
    }
}

/// A device whose target could not be opened at unseal. It takes no entries until a reload opens it.
struct Unopened {
    settings: AuditSettings,
    allowed: AllowedTargets,
    opened: OnceLock<Box<dyn Device>>,
}

impl Device for Unopened {
    fn submit(&self, line: Line) -> Ticket<'_> {
        match self.opened.get() {
            Some(device) => device.submit(line),
            None => Ticket::Done(Err(io::Error::other("it could not be opened at unseal"))),
        }
    }

    fn reopen(&self) -> io::Result<()> {
        if let Some(device) = self.opened.get() {
            return device.reopen();
        }
        let (_, device) =
            target::open(&self.settings, &self.allowed).map_err(|error| io::Error::other(error.reason))?;
        // Of two concurrent reloads one sets the device; both open the same file.
        let _ = self.opened.set(device);
        Ok(())
    }

    fn can_block(&self) -> bool {
        self.opened.get().is_some_and(|device| device.can_block())
    }

    fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }
}
