//! Serializes logins with the same use-limited secret id.
//!
//! Each of them writes the use count that the next one reads. Concurrent logins would conflict, and all but one would
//! run again. The transaction protects the count; the queue only avoids retries, so losing an entry is harmless.

use std::sync::Arc;

use keepfast_framework::Cx;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use tokio::sync::Mutex;

/// The capacity of the cache of use-limited secret ids.
const CAPACITY: u64 = 4_096;
/// The initial capacity of the cache.
const INITIAL_CAPACITY: usize = 64;

/// The use-limited secret ids with recent logins, by keyed hash.
pub(super) struct Queue(Cache<String, Arc<Mutex<()>>>);

impl Default for Queue {
    fn default() -> Self {
        Queue(Cache::with_weighter(INITIAL_CAPACITY, CAPACITY, UnitWeighter))
    }
}

impl Queue {
    /// Waits until this request may log in; the lock ends with the request, committed or not. Other secret ids do not
    /// wait.
    pub(super) async fn turn(&self, cx: &mut Cx, hash: &str) {
        if let Some(turns) = self.0.get(hash) {
            let turn = turns.lock_owned().await;
            cx.after_commit(move || drop(turn));
        }
    }

    /// Serializes later logins with this secret id. Only a client that knows the secret id gets here.
    pub(super) fn add(&self, hash: &str) {
        if self.0.get(hash).is_none() {
            self.0.insert(hash.to_owned(), Arc::default());
        }
    }
}
