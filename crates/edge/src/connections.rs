//! The connections of all listeners: their number in all and per source address, the memory of unauthenticated ones,
//! and which of them is closed when there are too many.
//!
//! A connection is unauthenticated until one of its requests has a live token. The memory of all unauthenticated
//! connections is limited ([`MAX_UNAUTHENTICATED`]): above it the connection with the largest product of memory and age
//! is closed. So a flood of unauthenticated bytes uses a fixed amount of memory, and closes its own connections before
//! others. A closing connection holds its memory a little longer; when that is much, unauthenticated connections read
//! no more bytes ([`READ_STOP`]).

mod charge;
mod peer;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::charge::Charge;
pub(crate) use self::peer::Peer;
use crate::timeouts::Stopwatch;

/// The most bytes that unauthenticated connections hold together. With memory that the estimates below do not include
/// it stays below 64 MiB.
const MAX_UNAUTHENTICATED: usize = 40 << 20;
/// The bytes of unauthenticated and closing connections above which unauthenticated ones read no more. Their clients
/// wait until closing connections have ended.
const READ_STOP: usize = MAX_UNAUTHENTICATED + (8 << 20);
/// The bytes below which they read again. The distance to [`READ_STOP`] avoids frequent wakes.
const READ_RESUME: usize = READ_STOP - (1 << 20);
/// The memory of a connection without requests, in bytes: its task and hyper's buffers, measured.
const PLAIN_BASE: usize = 28 << 10;
/// The memory of a TLS connection.
const TLS_BASE: usize = 44 << 10;
/// The divisor of the number of connections that gives how many are closed at once at the limit, so that the search for
/// them is rare.
const BATCH: usize = 64;

/// All open connections.
pub struct Connections {
    most: usize,
    stopwatch: Stopwatch,
    /// The memory of unauthenticated connections, in bytes.
    unauthenticated: AtomicUsize,
    /// The part of it that closing connections hold.
    closing: AtomicUsize,
    /// Whether clients may be waiting for memory.
    waiting: AtomicBool,
    open: Mutex<OpenConnections>,
    ended: Notify,
    /// The number of connections that were examined for closing.
    #[cfg(test)]
    examined: AtomicUsize,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    peers: HashMap<u64, Arc<Peer>>,
    /// The connections of each address that are not closing.
    sources: HashMap<IpAddr, HashSet<u64>>,
    /// The number of `peers` that are closing.
    closing: usize,
}

/// An open connection; dropping it removes the connection.
pub(crate) struct Place {
    peer: Arc<Peer>,
    id: u64,
}

impl Place {
    /// The connection.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peer.server().remove(self.id);
    }
}

/// The source of a new connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// Its address; `None` on a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// The most connections of its address; `None` is no limit.
    pub(crate) most: Option<usize>,
    /// Whether it uses TLS.
    pub(crate) encrypted: bool,
}

impl Connections {
    /// Creates the set with at most this number of connections at once.
    pub fn new(most: u32) -> Arc<Self> {
        Arc::new(Connections {
            most: most as usize,
            stopwatch: Stopwatch::start(),
            unauthenticated: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            open: Mutex::default(),
            ended: Notify::new(),
            #[cfg(test)]
            examined: AtomicUsize::new(0),
        })
    }

    /// The most connections of one address without a configured limit: a quarter of all, at least 16.
    pub(crate) fn per_source(&self) -> usize {
        (self.most / 4).max(16)
    }

    /// The number of open connections.
    pub fn count(&self) -> usize {
        self.open.lock().peers.len()
    }

    /// Registers a new connection. At the limit it closes connections that wait for their client, the longest idle
    /// first; returns `None` when all are busy.
    pub(crate) fn admit(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut open = self.open.lock();
        let address = source.address.map(|address| network(address.ip()));
        if let (Some(address), Some(most)) = (address, source.most) {
            let others = open.sources.get(&address).map_or(0, HashSet::len);
            if others >= most && !self.make_room(&mut open, most, Some(address)) {
                return None;
            }
        }
        if open.peers.len() - open.closing >= self.most && !self.make_room(&mut open, self.most, None) {
            return None;
        }
        open.next += 1;
        let id = open.next;
        let base = if source.encrypted { TLS_BASE } else { PLAIN_BASE };
        let peer = Arc::new(Peer::new(self.clone(), source.address, base, self.stopwatch));
        open.peers.insert(id, peer.clone());
        if let Some(address) = address {
            open.sources.entry(address).or_default().insert(id);
        }
        drop(open);
        self.close_excess();
        Some(Place { peer, id })
    }

    /// Closes the longest idle connections of an address, or of all: a fraction of `most` at once. It examines no
    /// others, so that the cost for an address at a low limit does not grow with the connections of others.
    fn make_room(&self, open: &mut OpenConnections, most: usize, of: Option<IpAddr>) -> bool {
        let now = self.stopwatch.millis();
        let candidates: Vec<u64> = match of {
            Some(address) => open.sources.get(&address).into_iter().flatten().copied().collect(),
            None => open.peers.keys().copied().collect(),
        };
        #[cfg(test)]
        self.examined.fetch_add(candidates.len(), Ordering::Relaxed);
        let mut idle: Vec<_> =
            candidates.iter().filter_map(|id| Some((open.peers.get(id)?.idleness(now)?, *id))).collect();
        // Of equally idle connections the oldest is closed first.
        idle.sort_unstable_by_key(|(idleness, id)| (std::cmp::Reverse(*idleness), *id));
        idle.truncate((most / BATCH).max(1));
        for (_, id) in &idle {
            open.close(*id);
        }
        !idle.is_empty()
    }

    /// Adds memory of an unauthenticated connection. The part of closing connections is added first, so that it never
    /// counts as that of open ones.
    fn count_held(&self, bytes: usize, closing: bool) {
        if closing {
            self.closing.fetch_add(bytes, Ordering::Relaxed);
        }
        self.unauthenticated.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_released(&self, bytes: usize, closing: bool) {
        self.unauthenticated.fetch_sub(bytes, Ordering::AcqRel);
        if closing {
            self.closing.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn count_closing(&self, bytes: usize) {
        self.closing.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether unauthenticated connections hold so much memory that they must not read.
    fn must_stop_reading(&self) -> bool {
        self.unauthenticated.load(Ordering::Relaxed) > READ_STOP
    }

    /// Like [`Self::must_stop_reading`], ordered after all earlier releases. A task that waits after this call is woken.
    fn must_stop_reading_now(&self) -> bool {
        self.waiting.store(true, Ordering::SeqCst);
        self.unauthenticated.fetch_add(0, Ordering::AcqRel) > READ_STOP
    }

    /// Wakes the waiting clients when memory is available again.
    fn wake_waiting(&self) {
        if self.waiting.load(Ordering::SeqCst)
            && self.unauthenticated.load(Ordering::Relaxed) <= READ_RESUME
            && self.waiting.swap(false, Ordering::SeqCst)
        {
            self.open.lock().peers.values().for_each(|peer| peer.wake());
        }
    }

    /// The memory of unauthenticated connections that are not closing.
    fn held_open(&self) -> usize {
        self.unauthenticated.load(Ordering::Relaxed).saturating_sub(self.closing.load(Ordering::Relaxed))
    }

    /// Closes unauthenticated connections until the others are below the limit.
    fn close_excess(&self) {
        if self.held_open() <= MAX_UNAUTHENTICATED {
            return;
        }
        let mut open = self.open.lock();
        let Some(mut excess) = self.held_open().checked_sub(MAX_UNAUTHENTICATED) else { return };
        excess += MAX_UNAUTHENTICATED / BATCH;
        let now = self.stopwatch.millis();
        let mut unauthenticated: Vec<_> =
            open.peers.iter().filter_map(|(id, peer)| Some((peer.weight(now)?, *id))).collect();
        unauthenticated.sort_unstable_by_key(|(weight, id)| (std::cmp::Reverse(*weight), *id));
        for (_, id) in unauthenticated {
            match excess.checked_sub(open.close(id)) {
                Some(left) => excess = left,
                None => return,
            }
        }
    }

    fn remove(&self, id: u64) {
        let mut open = self.open.lock();
        if let Some(peer) = open.peers.remove(&id) {
            if peer.is_closing() {
                open.closing -= 1;
            } else {
                open.remove_source(&peer, id);
            }
        }
        drop(open);
        self.ended.notify_waiters();
    }

    /// Waits until all connections have ended, at most `bound`. Returns whether they have.
    pub async fn drained(&self, bound: Duration) -> bool {
        let all = async {
            loop {
                let ended = self.ended.notified();
                if self.open.lock().peers.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(bound, all).await.is_ok()
    }

    #[cfg(test)]
    pub(crate) fn held_unauthenticated(&self) -> usize {
        self.unauthenticated.load(Ordering::Relaxed)
    }
}

/// The source of an address: an IPv4 address, or the /64 of an IPv6 address, which one host can have (RFC 7934).
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl OpenConnections {
    /// Signals a connection to close. From now on it does not count against the limits. Returns its memory in bytes.
    fn close(&mut self, id: u64) -> usize {
        let Some(peer) = self.peers.get(&id).cloned() else { return 0 };
        let Some(held) = peer.close() else { return 0 };
        self.closing += 1;
        self.remove_source(&peer, id);
        held
    }

    fn remove_source(&mut self, peer: &Peer, id: u64) {
        let Some(address) = peer.network() else { return };
        if let Some(ids) = self.sources.get_mut(&address) {
            ids.remove(&id);
            if ids.is_empty() {
                self.sources.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn from(last: u8) -> Source {
        let address = Some(SocketAddr::from(([127, 0, 0, last], 1000)));
        Source { address, most: Some(4), encrypted: false }
    }

    fn closing(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, p)| p.peer.is_closing()).map(|(at, _)| at).collect()
    }

    #[test]
    fn sec_kf10_at_the_cap_the_longest_idle_connection_is_closed() {
        let mut all = Connections::new(3);
        Arc::get_mut(&mut all).unwrap().stopwatch = Stopwatch::started(Duration::from_secs(1));
        let mut places: Vec<_> = (1..=3).map(|last| all.admit(from(last)).unwrap()).collect();
        for (place, since) in places.iter().zip([30, 10, 20]) {
            place.peer.set_idle_since(since);
        }
        places.push(all.admit(from(4)).unwrap());
        assert_eq!(closing(&places), [1]);
        // Authenticated connections stay while there are unauthenticated ones, even busy ones.
        places[2].peer.set_authenticated();
        places.push(all.admit(from(5)).unwrap());
        assert_eq!(closing(&places), [0, 1]);
        drop(places);
        assert_eq!(all.held_unauthenticated(), 0);
        let open = all.open.lock();
        assert_eq!((open.closing, open.peers.len(), open.sources.len()), (0, 0, 0));
        assert_eq!(all.closing.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn sec_kf10_an_address_at_its_cap_displaces_its_own_connections() {
        let all = Connections::new(100);
        let others: Vec<_> = (0..4).map(|_| all.admit(from(9)).unwrap()).collect();
        let own: Vec<_> = (0..20).map(|_| all.admit(from(1)).unwrap()).collect();
        assert_eq!((closing(&others), closing(&own)), (vec![], (0..16).collect()));
        let free = Source { most: None, ..from(1) };
        let exempt: Vec<_> = (0..20).map(|_| all.admit(free).unwrap()).collect();
        assert_eq!((closing(&exempt), closing(&own).len()), (vec![], 16));
    }

    #[test]
    fn sec_kf10_at_the_cap_of_an_address_only_its_connections_are_examined() {
        let all = Connections::new(10_000);
        let others: Vec<_> = (0..500).map(|n| all.admit(Source { most: None, ..from(n as u8) }).unwrap()).collect();
        let own: Vec<_> = (0..100).map(|_| all.admit(Source { most: Some(12), ..from(1) }).unwrap()).collect();
        assert_eq!(closing(&others).len() + closing(&own).len(), 90);
        // Two of the others have the same address.
        assert_eq!(all.examined.load(Ordering::Relaxed), 90 * 12);
    }

    #[test]
    fn sec_kf10_the_addresses_of_one_host_of_ipv6_are_one_source() {
        let source = |host: u16| Source {
            address: Some(SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, host], 1000))),
            ..from(1)
        };
        let all = Connections::new(100);
        let places: Vec<_> = (0..10).map(|host| all.admit(source(host)).unwrap()).collect();
        assert_eq!(closing(&places), (0..6).collect::<Vec<_>>());
    }

    #[test]
    fn busy_authenticated_connections_are_never_closed() {
        let all = Connections::new(2);
        let busy: Vec<_> = (1..=2).map(|last| all.admit(from(last)).unwrap()).collect();
        let requests: Vec<_> =
            busy.iter().map(|p| crate::timeouts::OpenRequest::new(p.peer.clone(), http::Version::HTTP_11)).collect();
        busy.iter().for_each(|p| p.peer.set_authenticated());
        assert!(all.admit(from(3)).is_none());
        drop(requests);
        assert!(all.admit(from(3)).is_some());
        assert_eq!(closing(&busy), [0]);
    }

    #[test]
    fn sec_kf03_unauthenticated_connections_share_a_memory_limit() {
        let all = Connections::new(16_384);
        let authenticated = all.admit(from(200)).unwrap();
        authenticated.peer.set_authenticated();
        let mut places: Vec<_> = (0..100).map(|last| all.admit(from(last)).unwrap()).collect();
        let mut charges: Vec<_> = places.iter().map(|p| Charge::new(&p.peer, 1 << 20)).collect();
        let live = |places: &[Place]| places.iter().filter(|p| !p.peer.is_closing()).count();
        assert!(
            live(&places) * ((1 << 20) + PLAIN_BASE) <= MAX_UNAUTHENTICATED && live(&places) > 30,
            "{}",
            live(&places)
        );
        assert!(!authenticated.peer.is_closing());
        places.clear();
        charges.clear();
        assert_eq!(all.held_unauthenticated(), 0);
        // The memory of an authenticated client does not count.
        let charge = Charge::new(&authenticated.peer, 64 << 20);
        assert_eq!(all.held_unauthenticated(), 0);
        drop(charge);
        assert_eq!(all.held_unauthenticated(), 0);
    }

    /// Counts its wakes.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sec_kf03_memory_of_closing_connections_closes_no_others() {
        let all = Connections::new(100);
        let (small, heavy) = (all.admit(from(1)).unwrap(), all.admit(from(2)).unwrap());
        let first = Charge::new(&heavy.peer, MAX_UNAUTHENTICATED);
        assert!(heavy.peer.is_closing() && !small.peer.is_closing());
        let second = Charge::new(&heavy.peer, MAX_UNAUTHENTICATED);
        assert!(!small.peer.is_closing());
        let peer = heavy.peer.clone();
        drop(heavy);
        assert!(
            all.held_unauthenticated() > 2 * MAX_UNAUTHENTICATED,
            "the memory of its requests counts until they end"
        );
        drop((first, second, peer));
        assert_eq!((all.held_unauthenticated(), all.closing.load(Ordering::Relaxed)), (PLAIN_BASE, 0));
    }

    #[test]
    fn sec_kf03_unauthenticated_clients_wait_above_the_memory_limit() {
        let all = Connections::new(100);
        let [unauthenticated, other, becomes_authenticated] = [1, 2, 3].map(|last| all.admit(from(last)).unwrap());
        let woken: [Arc<Woken>; 3] = Default::default();
        let waits = |place: &Place, by: usize, exempt: bool| {
            place.peer.must_wait(&std::task::Context::from_waker(&woken[by].clone().into()), exempt)
        };
        let counts = || [0, 1, 2].map(|at| woken[at].0.load(Ordering::Relaxed));
        assert!(!waits(&unauthenticated, 0, false));
        let heavy = all.admit(from(9)).unwrap();
        let mut charge = Charge::new(&heavy.peer, READ_STOP + 1);
        assert!(waits(&unauthenticated, 0, false) && waits(&becomes_authenticated, 2, false));
        // A connection without memory for requests is exempt where that is allowed.
        assert!(!waits(&other, 1, true));
        let request = Charge::new(&other.peer, 1);
        assert!(waits(&other, 1, true));
        becomes_authenticated.peer.set_authenticated();
        assert_eq!((counts(), waits(&becomes_authenticated, 2, false)), ([0, 0, 1], false));
        // A small release wakes no task; a sufficient one wakes all waiting tasks, once.
        charge.set(READ_STOP - (512 << 10));
        assert_eq!(counts(), [0, 0, 1]);
        charge.set(MAX_UNAUTHENTICATED);
        charge.set(0);
        assert_eq!(counts(), [1, 1, 1]);
        assert!(!waits(&unauthenticated, 0, false));
        drop(request);
    }
}
