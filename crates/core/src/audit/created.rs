//! Audit devices that `sys/audit` creates, where the configuration allows it: stored behind the barrier, each with its salt
//! in the same commit, and opened again at unseal.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{Page, ReadTx, Tx, View};
use serde::{Deserialize, Serialize};

use super::allowed::Allowed;
use super::broker::{Broker, Recorder, salt_key};
use super::device::{Device, Ticket};
use super::options::DeviceOptions;
use super::own_files::OwnFiles;
use super::target;
use crate::settings::{AuditSettings, Settings};

/// Devices that `sys/audit` creates, at most.
const MOST: usize = 64;

/// What is stored of a device, under the name in hexadecimal.
#[derive(Serialize, Deserialize)]
struct Stored {
    device: String,
    name: String,
    description: String,
    options: BTreeMap<String, String>,
    local: bool,
}

const STORED: Records<Stored> = Records::at("device/");

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

/// Checks and opens a device, and writes it with its salt into `tx`; it takes entries once [`Broker::add`] has it.
///
/// Fails with 400 as OpenBao: a path in use, options that do not fit, a target that cannot be opened or written.
pub(crate) async fn create(
    broker: &Broker,
    tx: &mut Tx,
    view: &View,
    settings: AuditSettings,
    local: bool,
    limits: &Settings,
) -> Result<Recorder> {
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
    let failed = |error: super::DeviceError| Error::invalid(format!("sanity check failed; {}", error.reason));
    let allowed = Allowed::created(&limits.own_files);
    target::prepare_all(std::slice::from_ref(&settings), &allowed).map_err(failed)?;
    let opened = target::open(&settings, &allowed).map_err(failed)?;
    let salt = random::bytes::<32>();
    tx.put(view, &salt_key(&settings.name), Bytes::copy_from_slice(&salt));
    let AuditSettings { device, name, description, options } = settings.clone();
    STORED.put_in(tx, view, &at, &Stored { device, name, description, options, local })?;
    Ok(Recorder::created(settings, opened, &salt, local))
}

/// Deletes a device and its salt. Whether there is one.
pub(crate) async fn delete(tx: &mut Tx, view: &View, name: &str) -> Result<bool> {
    let at = hex::encode(name);
    if STORED.get_in(tx, view, &at).await?.is_none() {
        return Ok(false);
    }
    STORED.delete_in(tx, view, &at);
    tx.delete(view, &salt_key(name));
    Ok(true)
}

/// Opens all stored devices at unseal. One that cannot be opened stays, and is tried again when logs are reopened, as long
/// as another device takes entries.
///
/// Fails when storage fails; when there are devices and none can be opened.
pub(crate) async fn open_all(broker: &Broker, tx: &mut ReadTx, view: &View, own: &Arc<OwnFiles>) -> Result<()> {
    let allowed = Allowed::created(own);
    let mut last = None;
    for at in STORED.list_in(tx, view, "", &Page::all()).await? {
        let Some(stored) = STORED.get_in(tx, view, &at).await? else { continue };
        let salt = tx.get(view, &salt_key(&stored.name)).await?;
        let salt = salt.ok_or_else(|| Error::internal("an audit device has no salt"))?;
        let settings = stored.settings();
        // A device that was declared meanwhile under the same path goes before.
        if broker.collides(&settings.name) {
            tracing::warn!(device = %settings.name, "a declared audit device has the path of a created one, which is not opened");
            continue;
        }
        let opened = match target::open(&settings, &allowed) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "an audit device that sys/audit created takes no entries");
                // Options that an older version took: nothing is written until they are given anew.
                let options = DeviceOptions::of(&settings).unwrap_or_else(|_| DeviceOptions::unusable());
                let unopened =
                    Unopened { settings: settings.clone(), allowed: allowed.clone(), opened: OnceLock::new() };
                last = Some(error);
                (options, Box::new(unopened) as Box<dyn Device>)
            }
        };
        broker.add(Recorder::created(settings, opened, &salt, stored.local));
    }
    match last {
        Some(error) if !broker.has_open_device() => Err(error.into()),
        _ => Ok(()),
    }
}

/// A device whose target could not be opened at unseal. It takes no entries until a reload opens it.
struct Unopened {
    settings: AuditSettings,
    allowed: Allowed,
    opened: OnceLock<Box<dyn Device>>,
}

impl Device for Unopened {
    fn submit(&self, line: Vec<u8>) -> Ticket<'_> {
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
        // Of two reloads at the same time one opens the target, and both mean the same file.
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
