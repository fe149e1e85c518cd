//! Logins with the same use-limited secret id take turns.
//!
//! Each of them writes the count that the next must read, so at once they would conflict and run again, all but one in
//! vain. The count is held by the transaction; turns only spare the tries, and are forgotten without harm.

use std::sync::Arc;

use keepfast_framework::Cx;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use tokio::sync::Mutex;

/// How many use-limited secret ids are remembered.
const CAPACITY: u64 = 4_096;
/// Room that is made for them at once; more is made as they come.
const FIRST_ROOM: usize = 64;

/// The use-limited secret ids that logged in lately, by keyed hash.
pub(super) struct Queue(Cache<String, Arc<Mutex<()>>>);

impl Default for Queue {
    fn default() -> Self {
        Queue(Cache::with_weighter(FIRST_ROOM, CAPACITY, UnitWeighter))
    }
}

impl Queue {
    /// Waits for the turn of this request, which ends with it, committed or not. No wait for other secret ids.
    pub(super) async fn turn(&self, cx: &mut Cx, hash: &str) {
        if let Some(turns) = self.0.get(hash) {
            let turn = turns.lock_owned().await;
            cx.after_commit(move || drop(turn));
        }
    }

    /// From now on logins with this secret id take turns. Only who knows a secret id gets here.
    pub(super) fn remember(&self, hash: &str) {
        if self.0.get(hash).is_none() {
            self.0.insert(hash.to_owned(), Arc::default());
        }
    }
}
