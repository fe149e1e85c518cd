//! Creates, changes, locks and deletes namespaces.

use std::sync::Arc;

use keepfast_crypto::compare;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Page, Result, Status};
use keepfast_storage::{Tx, View};

use super::NamespaceId;
use super::record::{DIRECTORY, DUE, GONE, NamespaceRecord, RECORDS, directory_key};
use crate::layout::{NAMESPACES, SYSTEM_STORAGE};
use crate::lease::revoke::RevokeMode;
use crate::mount::{Mounted, Mounts, delete_some};
use crate::policy::store::Policies;
use crate::quota::follow;
use crate::unsealed::Unsealed;

/// The length of an unlock key.
const UNLOCK_KEY: usize = 24;
/// The longest name in bytes.
const LONGEST_NAME: usize = 255;
/// The most namespaces one below the other.
const DEEPEST: usize = 32;
/// The longest path in bytes.
const LONGEST_PATH: usize = 1024;
/// The number of records that one transaction of a deletion deletes.
const BATCH: usize = 200;
/// The names that no namespace can have, in lower case.
const RESERVED: [&str; 8] = ["root", "sys", "audit", "auth", "cubbyhole", "identity", ".", ".."];

/// Checks a name that may be that of a namespace.
///
/// # Errors
/// 400 for a reserved name, one of several segments, and one that is too long.
pub(crate) fn check_reserved(name: &str) -> Result<()> {
    if RESERVED.contains(&name.to_lowercase().as_str()) {
        let path = format!("{name}/");
        return Err(Error::invalid(format!("{path:?} is a reserved path and cannot be used as a namespace name")));
    }
    if name.contains('/') {
        return Err(Error::invalid("namespace name cannot contain /"));
    }
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Error::invalid("the name of a namespace has 1 to 255 bytes"));
    }
    Ok(())
}

/// Checks the name of a new namespace.
///
/// # Errors
/// 400 for a reserved name, and for one that a path or a policy could not name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    check_reserved(name)?;
    if let Some(wildcard) = name.chars().find(|c| matches!(c, '*' | '+')) {
        return Err(Error::invalid(format!(
            "{name:?} contains wildcard characters that cannot be used in a namespace name: '{wildcard}'"
        )));
    }
    if name.contains(' ') {
        return Err(Error::invalid(format!(
            "{name:?} contains space characters that cannot be used in a namespace name"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid("the name of a namespace has no control characters"));
    }
    Ok(())
}

/// Creates a namespace below `parent`, with its built-in mounts and policies, in this transaction.
///
/// # Errors
/// 400 when a mount of the parent has the name, and when the path is too long or too deep; when storage fails.
pub(crate) async fn create(
    parent: &Unsealed,
    tx: &mut Tx,
    name: &str,
    metadata: std::collections::BTreeMap<String, String>,
) -> Result<NamespaceRecord> {
    let above = &parent.access.namespace;
    let path = format!("{}{name}/", above.path);
    if path.matches('/').count() > DEEPEST || path.len() > LONGEST_PATH {
        return Err(Error::invalid("the path of the namespace is too long"));
    }
    let folder = format!("{name}/");
    let router = parent.engines.mounts.router();
    if let Some(taken) = router.all().find(|m| m.entry.path.starts_with(&folder)) {
        let taken = format!("{}{}", above.path, taken.entry.path);
        return Err(Error::invalid(format!("new namespace conflicts with existing mount: {taken}")));
    }
    let view = &parent.observability.directory.view;
    parent.observability.directory.fence(tx, &above.id).await?;
    let mut id = NamespaceId::random();
    while RECORDS.get_in(tx, view, id.as_str()).await?.is_some() || GONE.get_in(tx, view, id.as_str()).await?.is_some()
    {
        id = NamespaceId::random();
    }
    let (uuid, now) = (random::uuid(), parent.clock.now());
    let record = NamespaceRecord {
        id: id.clone(),
        uuid,
        parent: above.id.clone(),
        name: name.to_owned(),
        custom_metadata: metadata,
        lock: None,
        deleting: false,
        force: false,
        created: now,
    };
    RECORDS.put_in(tx, view, id.as_str(), &record)?;
    DIRECTORY.put_in(tx, view, &directory_key(&above.id, name), &id)?;
    let system = parent.barrier.view(format!("{NAMESPACES}{}/{SYSTEM_STORAGE}", id.as_str()));
    Mounts::write_built_in(tx, &system, parent.engines.mounts.registry(), &id).await?;
    Policies::write_built_in(tx, &system, now).await?;
    Ok(record)
}

/// Makes a write of a request in a namespace conflict with its deletion, and notes that the leader opens a namespace whose
/// engines have background work.
///
/// # Errors
/// 404 when the namespace is being deleted; when storage fails.
pub(crate) async fn before_write(unsealed: &Unsealed, tx: &mut Tx, mounted: &Mounted) -> Result<()> {
    unsealed.observability.directory.fence(tx, &unsealed.access.namespace.id).await?;
    if mounted.traits.in_background {
        unsealed.observability.directory.note_due(tx, &unsealed.access.namespace.id).await?;
    }
    Ok(())
}

/// The ids of the namespaces with background work, a page of them.
///
/// # Errors
/// When storage fails.
pub(crate) async fn due(unsealed: &Unsealed, page: &Page) -> Result<Vec<NamespaceId>> {
    let view = &unsealed.observability.directory.view;
    let names = DUE.list_in(&mut unsealed.barrier.begin_read(), view, "", page).await?;
    Ok(names.iter().filter_map(|name| NamespaceId::parse(name)).collect())
}

/// The error of every request in a locked namespace.
pub(super) fn locked(path: &str) -> Error {
    Error::new(
        Status::UNAVAILABLE,
        format!(
            "API access to this namespace has been locked by an administrator - {:?} must be unlocked to gain access.",
            path
        ),
    )
}

/// Locks a namespace in its record, which the caller saves. Returns the unlock key, of which the record has a hash.
pub(crate) fn lock(record: &mut NamespaceRecord) -> SecretString {
    let key = random::base62(UNLOCK_KEY);
    record.lock = Some(hex::encode(sha256(key.as_bytes())));
    SecretString::new(key)
}

/// Whether this key unlocks a namespace.
pub(crate) fn unlocks(record: &NamespaceRecord, key: &str) -> bool {
    let hash = hex::encode(sha256(key.as_bytes()));
    record.lock.as_ref().is_some_and(|lock| compare::equal(lock.as_bytes(), hash.as_bytes()))
}

/// Writes a changed record.
///
/// # Errors
/// When the record cannot be serialized.
pub(crate) fn save(unsealed: &Unsealed, tx: &mut Tx, record: &NamespaceRecord) -> Result<()> {
    RECORDS.put_in(tx, &unsealed.observability.directory.view, record.id.as_str(), record)
}

/// The record of a namespace directly below this one, in a transaction that may change it.
///
/// # Errors
/// When storage fails.
pub(crate) async fn child(unsealed: &Unsealed, tx: &mut Tx, name: &str) -> Result<Option<NamespaceRecord>> {
    let view = &unsealed.observability.directory.view;
    let key = directory_key(&unsealed.access.namespace.id, name);
    match DIRECTORY.get_in(tx, view, &key).await? {
        Some(id) => RECORDS.get_in(tx, view, id.as_str()).await,
        None => Ok(None),
    }
}

/// The record of this namespace, in a transaction that may change it; `None` for root.
///
/// # Errors
/// When storage fails.
pub(crate) async fn record(unsealed: &Unsealed, tx: &mut Tx) -> Result<Option<NamespaceRecord>> {
    record_of(unsealed, tx, &unsealed.access.namespace.id).await
}

/// The record of a namespace in this transaction; `None` for root.
///
/// # Errors
/// When storage fails.
pub(crate) async fn record_of(unsealed: &Unsealed, tx: &mut Tx, id: &NamespaceId) -> Result<Option<NamespaceRecord>> {
    RECORDS.get_in(tx, &unsealed.observability.directory.view, id.as_str()).await
}

/// The namespace that a path within another one leads to, and the rest of the path within it.
///
/// # Errors
/// 503 when that namespace is locked; when storage fails.
pub(crate) async fn below<'p>(at: &Arc<Unsealed>, path: &'p str) -> Result<(Arc<Unsealed>, &'p str)> {
    let (mut at, mut rest) = (at.clone(), path);
    while let Some((name, within)) = rest.split_once('/').filter(|(name, _)| !name.is_empty()) {
        if at.engines.mounts.router().find(rest).is_some() {
            break;
        }
        let Some(record) = at.observability.directory.child(&at.access.namespace.id, name).await? else { break };
        let Some(child) = at.access.namespaces()?.usable(&record.id).await? else { break };
        (at, rest) = (child, within);
    }
    Ok((at, rest))
}

/// Whether a namespace has others below it, as of the commit of this transaction.
///
/// # Errors
/// When storage fails.
pub(crate) async fn has_children(unsealed: &Unsealed, tx: &mut Tx, id: &NamespaceId) -> Result<bool> {
    let view = &unsealed.observability.directory.view;
    let first = DIRECTORY.list_verified_in(tx, view, &directory_key(id, ""), &Page::first(1)).await?;
    Ok(!first.is_empty())
}

/// Runs one pass of the deletion of a namespace that is marked as being deleted: its leases and tokens are revoked, then
/// everything of it is deleted, page by page, and at last its record. What fails, or must wait, is for a later pass: a
/// lease whose engine may still be creating its user is revoked twice, with a pause between.
///
/// # Errors
/// When a lease cannot be revoked, unless the deletion is forced; when storage fails.
pub(crate) async fn delete(unsealed: &Unsealed, force: bool) -> Result<()> {
    let namespace = &unsealed.access.namespace;
    let mode = if force { RevokeMode::Forced } else { RevokeMode::Now };
    unsealed.leases.revoker.revoke_prefix("", mode).await?;
    unsealed.access.tokens.resume_collection().await?;
    unsealed.leases.tidier.tidy_namespace(&namespace.id).await?;
    if !unsealed.leases.store.below(&namespace.id, "", &Page::first(1)).await?.is_empty() {
        tracing::info!(namespace = %namespace.path, "leases of a namespace that is being deleted remain: it goes on later");
        return Ok(());
    }
    clear(unsealed, &namespace.id).await?;
    unsealed.access.tokens.forget_elsewhere(&namespace.id).await?;
    let (directory, system) = (&unsealed.observability.directory.view, &unsealed.barrier.view(SYSTEM_STORAGE));
    let end = |mut tx: Tx| async move {
        if let Some(record) = RECORDS.get_in(&mut tx, directory, namespace.id.as_str()).await? {
            RECORDS.delete_in(&mut tx, directory, record.id.as_str());
            DIRECTORY.delete_in(&mut tx, directory, &directory_key(&record.parent, &record.name));
            GONE.put_in(&mut tx, directory, record.id.as_str(), &())?;
            follow::namespace_deleted(&mut tx, system, &record.id).await?;
        }
        Ok::<_, Error>((tx, ()))
    };
    unsealed.barrier.transact(end).await
}

/// Deletes the storage of a namespace. Returns whether there was anything.
async fn clear(unsealed: &Unsealed, id: &NamespaceId) -> Result<bool> {
    let view = unsealed.barrier.view("");
    let cubbyhole = unsealed.access.tokens.cubbyhole_of(id);
    let mut found = false;
    for prefix in [format!("{NAMESPACES}{}/", id.as_str()), cubbyhole.prefix().to_owned()] {
        while delete_page(unsealed, &view, &prefix, &mut found).await? {}
    }
    Ok(found)
}

/// Deletes what requests that were under way have written into a namespace that is gone, such as a failed login. After a
/// pass that finds nothing the namespace is forgotten.
///
/// # Errors
/// When storage fails.
pub(crate) async fn clear_gone(root: &Unsealed, id: &NamespaceId) -> Result<()> {
    let view = &root.observability.directory.view;
    if GONE.get_in(&mut root.barrier.begin_read(), view, id.as_str()).await?.is_none() || clear(root, id).await? {
        return Ok(());
    }
    let forget = |mut tx: Tx| async move {
        DUE.delete_in(&mut tx, view, id.as_str());
        Ok::<_, Error>((tx, ()))
    };
    root.barrier.transact(forget).await
}

/// Deletes one page of records. Returns whether there may be more.
async fn delete_page(unsealed: &Unsealed, view: &View, prefix: &str, found: &mut bool) -> Result<bool> {
    let mut tx = unsealed.barrier.begin();
    let deleted = delete_some(&mut tx, view, prefix, BATCH).await?;
    *found |= deleted > 0;
    match tx.commit().await {
        Ok(_) => Ok(deleted == BATCH),
        Err(error) if error.may_run_again() => Ok(true),
        Err(error) => Err(error.into()),
    }
}
