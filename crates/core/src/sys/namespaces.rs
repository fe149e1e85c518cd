//! `sys/namespaces`: creates, reads, changes, lists, locks and deletes the namespaces directly below that of the request.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::fields::{Flag, Text};
use keepfast_framework::reply::Reply as _;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Page, Result, Routes, Status};
use keepfast_storage::Tx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{System, call, unsealed};
use crate::namespace::background;
use crate::namespace::changes::{self, check_name, check_reserved};
use crate::namespace::directory::children;
use crate::namespace::record::NamespaceRecord;
use crate::unsealed::Unsealed;

const LIST: Help = Help {
    synopsis: "Lists the namespaces directly below this one; SCAN lists those at every level.",
    description: "",
};
const ONE: Help = Help {
    synopsis: "Creates, reads, changes or deletes a namespace directly below this one.",
    description: "A namespace has its own mounts, policies, identity and tokens. Its tokens have no effect outside of it and of those below it.",
};
const LOCK: Help = Help {
    synopsis: "Locks a namespace and those below it: their API refuses every request.",
    description: "Returns the key that unlocks it, which is shown once. Expiry of tokens and leases goes on.",
};
const UNLOCK: Help =
    Help { synopsis: "Unlocks a namespace by its unlock key, or with sudo of a token from above.", description: "" };

/// The most bytes of the metadata of a namespace.
const MOST_METADATA: usize = 64 * 1024;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("namespaces/", LIST).list(list).scan(scan);
    r.path("namespaces/api-lock/lock", LOCK).update(lock_own);
    r.path("namespaces/api-lock/lock/{path...}", LOCK).update(lock_below);
    r.path("namespaces/api-lock/unlock", UNLOCK).update(unlock_own);
    r.path("namespaces/api-lock/unlock/{path...}", UNLOCK).update(unlock_below);
    r.path("namespaces/{path...}", ONE).final_slash().read(read).update(write).patch(patch).delete(delete);
}

#[derive(Deserialize, JsonSchema)]
struct NamespacePath {
    /// Name of the namespace.
    path: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the namespace.
    path: Text,
    /// Metadata of the namespace.
    custom_metadata: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
struct Patch {
    /// Name of the namespace.
    path: Text,
    /// Metadata of the namespace; a null removes a key.
    custom_metadata: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
struct Delete {
    /// Name of the namespace.
    path: Text,
    /// Whether leases that cannot be revoked are abandoned. Default: false.
    force: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct UnlockOwn {
    /// The key that the lock has returned.
    unlock_key: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct UnlockBelow {
    /// Path of the namespace.
    path: Text,
    /// The key that the lock has returned.
    unlock_key: Option<Text>,
}

/// A namespace in a response.
#[derive(Serialize)]
struct NamespaceResponse {
    custom_metadata: BTreeMap<String, String>,
    id: String,
    locked: bool,
    path: String,
    tainted: bool,
    uuid: String,
}

#[derive(Serialize)]
struct UnlockKey {
    unlock_key: String,
}

impl NamespaceResponse {
    fn new(above: &str, record: &NamespaceRecord) -> Self {
        NamespaceResponse {
            custom_metadata: record.custom_metadata.clone(),
            id: record.id.as_str().to_owned(),
            locked: record.lock.is_some(),
            path: format!("{above}{}/", record.name),
            tainted: record.deleting,
            uuid: record.uuid.clone(),
        }
    }
}

/// The name in a path: that of a namespace directly below.
fn name_of(path: &str) -> Result<&str> {
    if ["api-lock/lock", "api-lock/unlock"].contains(&path) {
        return Err(Error::unsupported_operation());
    }
    let name = path.trim_matches('/');
    check_reserved(name).map(|()| name)
}

/// The metadata of a request: an object of strings.
fn metadata_of(given: Option<Value>) -> Result<BTreeMap<String, String>> {
    let given = match given {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(not_an_object()),
    };
    let text = |(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        _ => Err(Error::invalid("custom_metadata values must be strings")),
    };
    bounded(given.into_iter().map(text).collect::<Result<_>>()?)
}

fn not_an_object() -> Error {
    Error::invalid(
        "Field validation failed: error converting input for field \"custom_metadata\": an object is expected",
    )
}

/// Metadata within the limit.
fn bounded(metadata: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    match size > MOST_METADATA {
        true => Err(Error::invalid(format!("custom_metadata has more than {MOST_METADATA} bytes"))),
        false => Ok(metadata),
    }
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let unsealed = unsealed(cx)?;
    let mut info = BTreeMap::new();
    add_children(&unsealed, &mut info, false).await?;
    Keys::with_info(info.keys().cloned().collect(), &info)
}

async fn scan(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let unsealed = unsealed(cx)?;
    let mut info = BTreeMap::new();
    add_children(&unsealed, &mut info, true).await?;
    let keys = Keys::with_info(info.keys().cloned().collect(), &info)?;
    let info = keys.info.filter(|_| !keys.keys.is_empty());
    Ok(Keys { empty_is_fine: true, info, ..keys })
}

/// Adds the namespaces below this one, by their paths relative to it.
async fn add_children(
    unsealed: &Unsealed,
    info: &mut BTreeMap<String, NamespaceResponse>,
    recursive: bool,
) -> Result<()> {
    let directory = &unsealed.observability.directory;
    let mut below = vec![(String::new(), unsealed.access.namespace.id.clone())];
    while let Some((within, id)) = below.pop() {
        let names = children(directory, &mut unsealed.barrier.begin_read(), &id, &Page::all()).await?;
        for name in names {
            let Some(record) = directory.child(&id, &name).await? else { continue };
            let path = format!("{within}{name}/");
            let above = format!("{}{within}", unsealed.access.namespace.path);
            info.insert(path.clone(), NamespaceResponse::new(&above, &record));
            if recursive {
                below.push((path, record.id.clone()));
            }
        }
    }
    Ok(())
}

async fn read(_: &System, cx: &mut Cx, req: NamespacePath) -> Result<Option<Data<NamespaceResponse>>> {
    let unsealed = unsealed(cx)?;
    let namespace = &unsealed.access.namespace;
    let found = unsealed.observability.directory.child(&namespace.id, name_of(&req.path)?).await?;
    Ok(found.map(|record| Data(NamespaceResponse::new(&namespace.path, &record))))
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<Data<NamespaceResponse>> {
    let unsealed = unsealed(cx)?;
    let name = name_of(&req.path)?;
    check_name(name)?;
    let metadata = metadata_of(req.custom_metadata)?;
    unsealed.current_seal.wrap.check_members_read_namespaces()?;
    let (unsealed, metadata) = (&*unsealed, &metadata);
    // No mount of this name appears meanwhile.
    let _changing = unsealed.engines.mounts.changing.lock().await;
    let written = unsealed.barrier.transact(|mut tx| async move {
        let record = match changes::child(unsealed, &mut tx, name).await? {
            Some(mut record) => {
                refuse_deleting(&record)?;
                record.custom_metadata = metadata.clone();
                changes::save(unsealed, &mut tx, &record)?;
                record
            }
            None => changes::create(unsealed, &mut tx, name, metadata.clone()).await?,
        };
        Ok::<_, Error>((tx, record))
    });
    Ok(Data(NamespaceResponse::new(&unsealed.access.namespace.path, &written.await?)))
}

fn refuse_deleting(record: &NamespaceRecord) -> Result<()> {
    match record.deleting {
        true => Err(Error::invalid("namespace with that name exists and is currently tainted")),
        false => Ok(()),
    }
}

async fn patch(_: &System, cx: &mut Cx, req: Patch) -> Result<Data<NamespaceResponse>> {
    let unsealed = unsealed(cx)?;
    let name = name_of(&req.path)?;
    let (tx, _) = cx.store();
    let found = changes::child(&unsealed, tx, name).await?;
    let mut record = found.ok_or_else(|| Error::invalid("namespace not found"))?;
    refuse_deleting(&record)?;
    apply(&mut record.custom_metadata, req.custom_metadata)?;
    record.custom_metadata = bounded(record.custom_metadata)?;
    changes::save(&unsealed, tx, &record)?;
    Ok(Data(NamespaceResponse::new(&unsealed.access.namespace.path, &record)))
}

/// Applies a merge patch (RFC 7396).
fn apply(metadata: &mut BTreeMap<String, String>, patch: Option<Value>) -> Result<()> {
    let patch = match patch {
        None => return Ok(()),
        Some(Value::Null) => {
            metadata.clear();
            return Ok(());
        }
        Some(Value::Object(patch)) => patch,
        Some(_) => return Err(not_an_object()),
    };
    for (key, value) in patch {
        match value {
            Value::Null => drop(metadata.remove(&key)),
            Value::String(text) => drop(metadata.insert(key, text)),
            other => {
                let text = "metadata patch can only have string or null values, got";
                return Err(Error::invalid(format!("{text} {}", keepfast_framework::fields::type_name(&other))));
            }
        }
    }
    Ok(())
}

async fn delete(_: &System, cx: &mut Cx, req: Delete) -> Result<Outcome> {
    let unsealed = unsealed(cx)?;
    let name = name_of(&req.path)?;
    let force = req.force.is_some_and(|force| force.0);
    let marked = unsealed.barrier.transact(|tx| mark(&unsealed, tx, name, force)).await?;
    let Some(record) = marked else {
        cx.warn("requested namespace does not exist");
        return Ok(Outcome::Empty(Some(Status::OK)));
    };
    // The background work of the leader goes on where this ends.
    let namespaces = Arc::downgrade(&unsealed.access.namespaces()?);
    tokio::spawn(async move {
        let Some(opened) = namespaces.upgrade() else { return };
        let opened = opened.open_any(&record.id).await;
        let deleted = match opened {
            Ok(Some(opened)) => Box::pin(background::delete_once(&opened, record.force)).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, %cause, "deleting a namespace failed and is resumed");
        }
    });
    Data(json!({ "status": "in-progress" })).into_outcome()
}

/// Marks a namespace as being deleted. Returns its record, `None` if it does not exist.
async fn mark(unsealed: &Unsealed, mut tx: Tx, name: &str, force: bool) -> Result<(Tx, Option<NamespaceRecord>)> {
    let Some(mut record) = changes::child(unsealed, &mut tx, name).await? else { return Ok((tx, None)) };
    if changes::has_children(unsealed, &mut tx, &record.id).await? {
        return Err(Error::invalid("unable to delete namespace containing child namespaces"));
    }
    record.deleting = true;
    record.force |= force;
    changes::save(unsealed, &mut tx, &record)?;
    unsealed.observability.directory.note_due(&mut tx, &record.id).await?;
    Ok((tx, Some(record)))
}

async fn lock_own(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<UnlockKey>> {
    let unsealed = unsealed(cx)?;
    lock(cx, &unsealed).await
}

async fn lock_below(_: &System, cx: &mut Cx, req: NamespacePath) -> Result<Data<UnlockKey>> {
    let below = below(cx, &req.path).await?;
    lock(cx, &below).await
}

/// The namespace at a path below that of the request.
async fn below(cx: &Cx, path: &str) -> Result<Arc<Unsealed>> {
    let own = unsealed(cx)?;
    let namespaces = own.access.namespaces()?;
    let mut id = own.access.namespace.id.clone();
    let missing = || Error::invalid("requested namespace does not exist");
    for name in path.trim_matches('/').split('/') {
        id = own.observability.directory.child(&id, name).await?.ok_or_else(missing)?.id.clone();
    }
    namespaces.open_any(&id).await?.ok_or_else(missing)
}

async fn lock(cx: &mut Cx, unsealed: &Unsealed) -> Result<Data<UnlockKey>> {
    let (tx, _) = cx.store();
    let found = changes::record(unsealed, tx).await?;
    let Some(mut record) = found else { return Err(Error::invalid("root namespace cannot be locked/unlocked")) };
    let path = &unsealed.access.namespace.path;
    if let Some(ancestor) = locked_above(cx, unsealed).await? {
        return Err(Error::invalid(format!(
            "cannot lock namespace {path:?}: ancestor namespace {ancestor:?} is already locked"
        )));
    }
    if record.lock.is_some() {
        return Err(Error::invalid(format!("cannot lock namespace {path:?}: it is already locked")));
    }
    let (tx, _) = cx.store();
    let key = changes::lock(&mut record);
    changes::save(unsealed, tx, &record)?;
    Ok(Data(UnlockKey { unlock_key: key.expose().clone() }))
}

async fn unlock_own(_: &System, cx: &mut Cx, req: UnlockOwn) -> Result<()> {
    let unsealed = unsealed(cx)?;
    // The own sudo of a tenant does not undo a lock of its parent.
    let is_above = !call(cx)?.within().is_empty() && has_sudo(cx)?;
    unlock(cx, &unsealed, req.unlock_key, is_above).await
}

async fn unlock_below(_: &System, cx: &mut Cx, req: UnlockBelow) -> Result<()> {
    let below = below(cx, &req.path).await?;
    let is_above = has_sudo(cx)?;
    unlock(cx, &below, req.unlock_key, is_above).await
}

/// The path of the topmost locked namespace above this one.
async fn locked_above(cx: &mut Cx, unsealed: &Unsealed) -> Result<Option<String>> {
    let (tx, _) = cx.store();
    let (mut at, mut found) = (unsealed.access.namespace.parent.clone(), None);
    while let Some(namespace) = at {
        if changes::record_of(unsealed, tx, &namespace.id).await?.is_some_and(|record| record.lock.is_some()) {
            found = Some(namespace.path.to_string());
        }
        at = namespace.parent.clone();
    }
    Ok(found)
}

/// Whether the caller has `sudo` on the path of the request.
fn has_sudo(cx: &Cx) -> Result<bool> {
    let call = call(cx)?;
    let Some(compiled) = &call.compiled else { return Ok(false) };
    let path = format!("{}{}", call.within(), cx.request().path);
    Ok(compiled.acl.capabilities(&path, cx.now()).iter().any(|c| matches!(*c, "sudo" | "root")))
}

async fn unlock(cx: &mut Cx, unsealed: &Unsealed, key: Option<Text>, with_sudo: bool) -> Result<()> {
    let (tx, _) = cx.store();
    let found = changes::record(unsealed, tx).await?;
    let Some(mut record) = found else { return Err(Error::invalid("root namespace cannot be locked/unlocked")) };
    let path = &unsealed.access.namespace.path;
    if record.lock.is_none() {
        return Err(Error::invalid(format!("namespace {path:?} is not locked")));
    }
    if let Some(ancestor) = locked_above(cx, unsealed).await? {
        return Err(Error::invalid(format!("cannot unlock {path:?} with namespace {ancestor:?} being locked")));
    }
    let key = key.filter(|key| !key.is_empty());
    match key {
        Some(key) if changes::unlocks(&record, &key) => {}
        None if with_sudo => cx.warn("Namespace unlocked using sudo capabilities"),
        Some(_) => return Err(Error::invalid("incorrect unlock key")),
        None => return Err(Error::invalid("provided empty key")),
    }
    record.lock = None;
    let (tx, _) = cx.store();
    changes::save(unsealed, tx, &record)
}
