//! `sys/locked-users`: the users that are locked out, and the `user_lockout_config` of a mount's tuning.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::fields::{Text, parse_duration, truth};
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Data, Error, Page, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{System, unsealed};
use crate::mount::LockoutConfig;
use crate::namespace::directory::children;
use crate::unsealed::Unsealed;

const LOCKED: Help =
    Help { synopsis: "Lists the users that are locked out after too many failed logins.", description: "" };
const UNLOCK: Help = Help { synopsis: "Unlocks a locked user.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("locked-users", LOCKED).read(list).forwarded();
    r.path("locked-users/{mount_accessor}/unlock/{alias_identifier}", UNLOCK).final_slash().update(unlock);
}

#[derive(Deserialize, JsonSchema)]
struct MountAccessorRequest {
    /// Accessor of an auth method's mount. Default: the users of all mounts.
    mount_accessor: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct UserPath {
    /// Accessor of the auth method's mount.
    mount_accessor: Text,
    /// Name of the alias: the user name, or the role id of AppRole.
    alias_identifier: Text,
}

#[derive(Serialize)]
struct LockedUsersResponse {
    by_namespace: Vec<NamespaceLocks>,
    total: usize,
}

#[derive(Serialize)]
struct NamespaceLocks {
    namespace_id: String,
    namespace_path: String,
    counts: usize,
    mount_accessors: Vec<MountLocks>,
}

#[derive(Serialize)]
struct MountLocks {
    mount_accessor: String,
    counts: usize,
    alias_identifiers: Option<Vec<String>>,
}

async fn list(_: &System, cx: &mut Cx, req: MountAccessorRequest) -> Result<Data<LockedUsersResponse>> {
    let unsealed = unsealed(cx)?;
    let only = req.mount_accessor.filter(|a| !a.is_empty());
    let mut by_namespace = vec![locks_of(&unsealed, only.as_ref(), cx.now())];
    if only.is_none() {
        for below in below(&unsealed).await? {
            by_namespace.extend(Some(locks_of(&below, None, cx.now())).filter(|locks| locks.counts > 0));
        }
    }
    let total = by_namespace.iter().map(|locks| locks.counts).sum();
    Ok(Data(LockedUsersResponse { by_namespace, total }))
}

/// The namespaces below this one.
async fn below(unsealed: &Arc<Unsealed>) -> Result<Vec<Arc<Unsealed>>> {
    let directory = &unsealed.observability.directory;
    if !directory.has_any() {
        return Ok(Vec::new());
    }
    let namespaces = unsealed.access.namespaces()?;
    let (mut found, mut next) = (Vec::new(), vec![unsealed.clone()]);
    while let Some(at) = next.pop() {
        let id = &at.access.namespace.id;
        for name in children(directory, &mut unsealed.barrier.begin_read(), id, &Page::all()).await? {
            let Some(record) = directory.child(id, &name).await? else { continue };
            if let Some(open) = namespaces.open_any(&record.id).await? {
                next.push(open.clone());
                found.push(open);
            }
        }
    }
    Ok(found)
}

/// The locked users of one namespace, or of one of its mounts.
fn locks_of(unsealed: &Unsealed, only: Option<&Text>, now: Timestamp) -> NamespaceLocks {
    let mut locked = unsealed.access.lockout.locked(now);
    if let Some(only) = only {
        let of_it = locked.remove(&only.0).unwrap_or_default();
        locked = BTreeMap::from([(only.0.clone(), of_it)]);
    }
    let mount_accessors: Vec<MountLocks> = locked
        .into_iter()
        .map(|(mount_accessor, names)| {
            let counts = names.len();
            MountLocks { mount_accessor, counts, alias_identifiers: (counts > 0).then_some(names) }
        })
        .collect();
    let total = mount_accessors.iter().map(|m| m.counts).sum();
    let namespace_id = unsealed.access.lockout.namespace.as_str().to_owned();
    let namespace_path = unsealed.access.namespace.path.to_string();
    NamespaceLocks { namespace_id, namespace_path, counts: total, mount_accessors }
}

async fn unlock(_: &System, cx: &mut Cx, req: UserPath) -> Result<()> {
    unsealed(cx)?.access.lockout.unlock(&req.mount_accessor, &req.alias_identifier, cx.now()).await
}

impl LockoutConfig {
    /// Sets the values that a request names and keeps the others.
    ///
    /// Fails with 400 when a value cannot be read.
    pub(super) fn tune(&mut self, given: &Map<String, Value>) -> Result<()> {
        let text = |name: &str| match given.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        if let Some(text) = text("lockout_threshold") {
            self.threshold = text.parse().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                Error::invalid(format!("unable to parse user lockout threshold: {why}"))
            })?;
        }
        for (name, own) in
            [("lockout_duration", &mut self.duration), ("lockout_counter_reset_duration", &mut self.counter_reset)]
        {
            if let Some(text) = text(name) {
                let seconds = parse_duration(&text).map_err(Error::invalid)?;
                *own = u64::try_from(seconds).map_err(|_| Error::invalid(format!("{name} cannot be negative")))?;
            }
        }
        if let Some(text) = text("lockout_disable") {
            self.disable = truth(&text).ok_or_else(|| Error::invalid("unable to parse lockout_disable"))?;
        }
        Ok(())
    }
}
