//! The requests in flight, for `sys/in-flight-req`.
//!
//! Each request writes its data into a slot whose buffers an earlier request has left, in the shard of its thread: it
//! allocates nothing here and seldom waits for a lock. The token of a request is in no slot; its path may hold another
//! token, so paths are masked when they are shown, by their route.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keepfast_crypto::Zeroize as _;
use keepfast_framework::{Incoming, Operation, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;

use crate::token::Token;

/// The number of shards.
const SHARDS: usize = 16;
/// The most slots that a shard without requests keeps.
const KEPT_SLOTS: usize = 64;
/// The longest buffer that a free slot keeps, in bytes.
const KEPT_BUFFER: usize = 256;

/// The requests in flight.
#[derive(Default)]
pub(crate) struct InFlight {
    shards: [Shard; SHARDS],
}

/// One lock, in a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    is_used: bool,
    started: Timestamp,
    remote: Option<SocketAddr>,
    method: &'static str,
    operation: Option<Operation>,
    id: String,
    path: String,
    /// The stored part of the caller's token.
    token: Option<Arc<Token>>,
}

/// An entry of the response.
#[derive(Serialize)]
struct InFlightRequest {
    start_time: String,
    client_remote_address: String,
    request_path: String,
    request_method: &'static str,
    client_id: String,
}

/// One request, which is in flight until this is dropped.
pub(crate) struct InFlightGuard<'a> {
    shard: &'a Shard,
    slot: usize,
}

impl InFlight {
    /// Registers a request.
    pub(crate) fn begin(&self, incoming: &Incoming, now: Timestamp) -> InFlightGuard<'_> {
        let shard = &self.shards[own_shard()];
        let mut slots = shard.0.lock();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.all.push(Slot::default());
            slots.all.len() - 1
        });
        slots.all[slot].take(incoming, now);
        InFlightGuard { shard, slot }
    }

    /// The ids of all of them.
    pub(crate) fn ids(&self) -> HashSet<String> {
        let mut ids = HashSet::new();
        for shard in &self.shards {
            let slots = shard.0.lock();
            ids.extend(slots.all.iter().filter(|slot| slot.is_used).map(|slot| slot.id.clone()));
        }
        ids
    }

    /// The number of requests.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let used = |shard: &Shard| {
            let slots = shard.0.lock();
            slots.all.len() - slots.free.len()
        };
        self.shards.iter().map(used).sum()
    }

    /// All of them as a JSON object by their ids; `shown` renders each path.
    ///
    /// # Errors
    /// When they cannot be written as JSON.
    pub(crate) fn to_json(&self, shown: impl Fn(Operation, &str) -> String) -> serde_json::Result<Vec<u8>> {
        let mut requests = BTreeMap::new();
        for shard in &self.shards {
            let slots = shard.0.lock();
            requests
                .extend(slots.all.iter().filter(|slot| slot.is_used).map(|slot| (slot.id.clone(), slot.to_response())));
        }
        for (operation, request) in requests.values_mut() {
            let path = operation.map(|operation| shown(operation, &request.request_path)).unwrap_or_default();
            request.request_path = format!("/v1/{path}");
        }
        let requests: BTreeMap<_, _> = requests.iter().map(|(id, (_, request))| (id, request)).collect();
        serde_json::to_vec(&requests)
    }
}

impl InFlightGuard<'_> {
    /// Adds the token of the caller.
    pub(crate) fn set_caller(&self, token: Arc<Token>) {
        self.shard.0.lock().all[self.slot].token = Some(token);
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let mut slots = self.shard.0.lock();
        slots.all[self.slot].release();
        slots.free.push(self.slot);
        // A burst leaves no memory behind.
        if slots.free.len() == slots.all.len() && slots.all.len() > KEPT_SLOTS {
            slots.all.truncate(KEPT_SLOTS);
            slots.all.shrink_to_fit();
            slots.free = (0..KEPT_SLOTS).collect();
        }
    }
}

impl Slot {
    fn take(&mut self, incoming: &Incoming, now: Timestamp) {
        self.is_used = true;
        self.started = now;
        self.remote = incoming.remote;
        self.method = incoming.method;
        self.id.push_str(&incoming.id);
        self.operation = Some(incoming.operation);
        self.path.push_str(incoming.path.as_str());
    }

    fn release(&mut self) {
        self.is_used = false;
        self.token = None;
        for buffer in [&mut self.id, &mut self.path] {
            buffer.zeroize();
            if buffer.capacity() > KEPT_BUFFER {
                *buffer = String::new();
            }
        }
    }

    /// The entry, with the whole path, and the operation.
    fn to_response(&self) -> (Option<Operation>, InFlightRequest) {
        let request = InFlightRequest {
            start_time: self.started.rfc3339(),
            client_remote_address: self.remote.map(|address| address.to_string()).unwrap_or_default(),
            request_path: self.path.clone(),
            request_method: self.method,
            client_id: self.token.as_ref().map(|token| token.record.client_id()).unwrap_or_default(),
        };
        (self.operation, request)
    }
}

/// The shard of the calling thread; threads get theirs in turn.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use keepfast_framework::CanonicalPath;

    use super::*;
    use keepfast_framework::UnauthedEndpoints;

    fn incoming(id: &str, path: &str) -> Incoming {
        Incoming {
            id: id.to_owned(),
            method: "GET",
            operation: Operation::Read,
            path: CanonicalPath::new(path.to_owned()).unwrap(),
            input: keepfast_framework::Input::default(),
            token: Some(keepfast_crypto::secret::SecretString::new("hvs.s3cr3t".to_owned())),
            authorization: keepfast_framework::Authorization::None,
            mfa: Vec::new(),
            namespace: String::new(),
            body_withheld: false,
            headers: Vec::new(),
            accepts_prometheus: false,
            wrap_ttl: None,
            remote: "127.0.0.1:1234".parse().ok(),
            tls: None,
            open: UnauthedEndpoints::default(),
            cluster: None,
        }
    }

    fn shown(registry: &InFlight) -> serde_json::Value {
        serde_json::from_slice(&registry.to_json(|_, path| path.to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_listed_until_it_ends() {
        let registry = InFlight::default();
        let under_way = registry.begin(&incoming("a", "secret/data/x"), Timestamp::from_unix(1_767_225_600));
        let expected = serde_json::json!({"a": {
            "start_time": "2026-01-01T00:00:00Z", "client_remote_address": "127.0.0.1:1234",
            "request_path": "/v1/secret/data/x", "request_method": "GET", "client_id": "",
        }});
        assert_eq!((shown(&registry), registry.count()), (expected, 1));
        drop(under_way);
        assert_eq!((shown(&registry), registry.count()), (serde_json::json!({}), 0));
    }

    #[test]
    fn paths_in_flight_are_masked_when_they_are_read() {
        let registry = InFlight::default();
        for id in ["a", "b"] {
            let _under_way = registry.begin(&incoming(id, "auth/token/lookup/hvs.s3cr3t"), Timestamp::EPOCH);
            let shown = registry.to_json(|operation, path| format!("{operation:?} {}", path.len())).unwrap();
            let text = String::from_utf8(shown).unwrap();
            assert!(text.contains("/v1/Read 28") && !text.contains("s3cr3t"), "{text}");
        }
        assert_eq!(registry.shards[own_shard()].0.lock().all.len(), 1);
    }

    #[test]
    fn a_burst_leaves_few_slots() {
        let registry = InFlight::default();
        let long = "x".repeat(4 * KEPT_BUFFER);
        let burst: Vec<_> =
            (0..1000).map(|n| registry.begin(&incoming(&n.to_string(), &long), Timestamp::EPOCH)).collect();
        assert_eq!(registry.count(), 1000);
        drop(burst);
        let slots = registry.shards[own_shard()].0.lock();
        assert_eq!((slots.all.len(), slots.free.len()), (KEPT_SLOTS, KEPT_SLOTS));
        assert!(slots.all.iter().all(|slot| slot.path.capacity() <= KEPT_BUFFER));
    }
}
