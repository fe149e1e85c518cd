//! The rewrap of all wrapped values, in the background of the leader: each is then under the newest wrap key, and the one
//! before it ends. With `disable_sealwrap` no value is wrapped afterwards. Another leader resumes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Error, Records, Result, Status};
use keepfast_storage::{ReadTx, Rewrap, Rewrapped, View, WrapKeys};
use serde::{Deserialize, Serialize};

use crate::layout::{NAMESPACES, SYSTEM_STORAGE};
use crate::unreadable::confined;
use crate::unsealed::Unsealed;

/// The state of the last rewrap.
const STATE: Records<RewrapState> = Records::at("sealwrap/rewrap");
/// The most values that one commit rewraps.
const PAGE: usize = 100;
/// The pages without a wrapped value after which the state is stored.
const STORED_AFTER: u32 = 20;
/// The pause before a failed rewrap is resumed.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// The pause while members differ in `disable_sealwrap`, which the migration of the seals logs.
const MEMBERS_PAUSE: Duration = Duration::from_secs(60);

/// The state of a rewrap, the running or the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RewrapState {
    /// Whether it is not complete.
    pub(crate) is_running: bool,
    /// The generation of the wrap key under which it puts the values.
    generation: u32,
    /// Whether it unwraps the values.
    unwraps: bool,
    /// The path of the last record that it has visited.
    cursor: String,
    /// Values that are wrapped, or were.
    pub(crate) processed: u64,
    /// Those of them that are as they must be now.
    pub(crate) succeeded: u64,
    /// Those that cannot be decrypted, or not be written.
    pub(crate) failed: u64,
    /// Those of the failed ones that can be decrypted, so that the wrap key before the newest stays.
    kept: u64,
}

impl RewrapState {
    /// The stored state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn load(tx: &mut ReadTx, system: &View) -> Result<Self> {
        Ok(STATE.get_in(tx, system, "").await?.unwrap_or_default())
    }

    /// One that begins.
    fn started(generation: u32, unwraps: bool) -> Self {
        RewrapState { is_running: true, generation, unwraps, ..RewrapState::default() }
    }

    async fn store(&self, unsealed: &Unsealed) -> Result<()> {
        let system = &unsealed.barrier.view(SYSTEM_STORAGE);
        let stored = unsealed.barrier.transact(|mut tx| async move {
            STATE.put_in(&mut tx, system, "", self)?;
            Ok::<_, Error>((tx, ()))
        });
        stored.await
    }

    fn count(&mut self, done: Rewrapped, cursor: &str) {
        self.processed += done.processed;
        self.succeeded += done.succeeded;
        self.failed += done.failed;
        self.kept += done.kept;
        cursor.clone_into(&mut self.cursor);
    }
}

/// Begins a rewrap, under another wrap key unless the one before the newest is still in use. Returns false, and changes
/// nothing, while one is running.
///
/// # Errors
/// 503 while members differ in `disable_sealwrap`; see
/// [`WrapRotation::change`](crate::seal::wrap_rotation::WrapRotation::change); those of the storage.
pub(crate) async fn begin(unsealed: &Unsealed) -> Result<bool> {
    let system = unsealed.barrier.view(SYSTEM_STORAGE);
    let state = RewrapState::load(&mut unsealed.barrier.begin_read(), &system).await?;
    let (unwraps, wrap) = (unsealed.settings.disable_sealwrap, &unsealed.current_seal.wrap);
    if !state.is_running {
        check_members(unsealed)?;
        if !unwraps {
            let next = |keys: &WrapKeys| if keys.is_empty() { Some(WrapKeys::first()) } else { keys.rotated() };
            wrap.change(next).await?;
        }
        RewrapState::started(unsealed.barrier.wrap_keys().generation(), unwraps).store(unsealed).await?;
    }
    wrap.started.notify_one();
    Ok(!state.is_running)
}

/// Refuses a rewrap while members differ in `disable_sealwrap`: after a failover the next leader would undo it.
fn check_members(unsealed: &Unsealed) -> Result<()> {
    let members = unsealed.current_seal.wrap.members_that_differ(unsealed.settings.disable_sealwrap);
    if members.is_empty() {
        return Ok(());
    }
    let text =
        format!("disable_sealwrap differs between the leader and {}; give all members the same", members.join(", "));
    Err(Error::new(Status::UNAVAILABLE, text))
}

/// Runs rewraps on the leader: one that was interrupted, and each that begins.
pub(crate) async fn run(unsealed: Arc<Unsealed>) {
    loop {
        match confined(resume(&unsealed)).await {
            Ok(true) => unsealed.current_seal.wrap.started.notified().await,
            Ok(false) => unsealed.clock.sleep_until(unsealed.clock.now().after(MEMBERS_PAUSE)).await,
            Err(error) => {
                let cause = error.cause().map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, cause, "the rewrap is interrupted and is resumed");
                unsealed.clock.sleep_until(unsealed.clock.now().after(RETRY_PAUSE)).await;
            }
        }
    }
}

/// Completes a rewrap, if one is not complete. Returns false, and does nothing, while members differ in `disable_sealwrap`.
pub(crate) async fn resume(unsealed: &Unsealed) -> Result<bool> {
    let system = unsealed.barrier.view(SYSTEM_STORAGE);
    let mut state = RewrapState::load(&mut unsealed.barrier.begin_read(), &system).await?;
    let (keys, unwraps) = (unsealed.barrier.wrap_keys(), unsealed.settings.disable_sealwrap);
    // The wrap key was changed before the state was stored.
    if !state.is_running && !keys.has_former() {
        return Ok(true);
    }
    if check_members(unsealed).is_err() {
        return Ok(false);
    }
    if !state.is_running || state.generation != keys.generation() || state.unwraps != unwraps {
        state = RewrapState::started(keys.generation(), unwraps);
    }
    // After this commit of a new leader, everything that was committed before is applied here.
    state.store(unsealed).await?;
    tracing::info!(generation = state.generation, unwraps, "the rewrap of wrapped values runs");
    visit(unsealed, &mut state).await?;
    // No value can appear under the former key any more: a commit of one conflicts with the record that has the newest.
    let end =
        |keys: &WrapKeys| (keys.has_former() && keys.generation() == state.generation).then(|| keys.newest_only());
    if state.kept == 0 {
        unsealed.current_seal.wrap.change(end).await?;
    }
    (state.is_running, state.cursor) = (false, String::new());
    state.store(unsealed).await?;
    let RewrapState { processed, failed, kept, .. } = state;
    tracing::info!(generation = state.generation, processed, failed, kept, "the rewrap of wrapped values is complete");
    Ok(true)
}

/// Visits all records after the cursor.
async fn visit(unsealed: &Unsealed, state: &mut RewrapState) -> Result<()> {
    let mounts = &unsealed.engines.mounts;
    let namespaces = unsealed.access.namespaces()?;
    namespaces.open_all().await?;
    let opened = namespaces.opened().into_iter().map(|open| (open.access.namespace.id.as_str().to_owned(), open));
    let opened: HashMap<String, Arc<Unsealed>> = opened.collect();
    let wraps = |path: &str| match path.strip_prefix(NAMESPACES).and_then(|rest| rest.split_once('/')) {
        Some((id, _)) => opened.get(id)?.engines.mounts.wraps(path),
        None => mounts.wraps(path),
    };
    let mut rewrap = Rewrap::after(unsealed.barrier.clone(), &state.cursor);
    let mut unstored = 0;
    while let Some(done) = rewrap.page(PAGE, &wraps).await? {
        state.count(done, rewrap.cursor());
        unstored += 1;
        if done.processed > 0 || unstored == STORED_AFTER {
            state.store(unsealed).await?;
            unstored = 0;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
