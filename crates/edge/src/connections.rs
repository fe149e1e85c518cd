//! The connections of all listeners: how many there are in all and per source address, how much memory those hold that
//! have sent no authenticated request yet, and which of them is closed when there are too many.
//!
//! A connection is a stranger's until a request on it carries a token that is alive. What strangers hold together is
//! bounded ([`STRANGERS`]): beyond it the connection that holds most for longest is closed. So a flood of unauthenticated
//! bytes costs a fixed amount of memory, and closes its own connections before those of others. A connection that is
//! closed holds its memory a moment longer; where that is much, no further bytes of strangers are read ([`PRESSED`]).

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
use crate::patience::Stopwatch;

/// What the connections of strangers may hold together, in bytes. With what the estimates below do not see it stays
/// under 64 MiB.
const STRANGERS: usize = 40 << 20;
/// What they may hold, together with connections that are closing, while bytes of them are still read. Beyond it their
/// clients wait, until what closes has ended.
const PRESSED: usize = STRANGERS + (8 << 20);
/// What they hold when their clients need not wait any longer. So much less that few wakes follow each other.
const EASED: usize = PRESSED - (1 << 20);
/// What a connection holds by itself, in bytes: its task and hyper's buffers, as measured.
const CLEAR: usize = 28 << 10;
/// The same with TLS.
const ENCRYPTED: usize = 44 << 10;
/// The part of the connections that is closed at once when there is no place left, so that looking for them stays cheap.
const BATCH: usize = 64;

/// All open connections.
pub struct Connections {
    most: usize,
    stopwatch: Stopwatch,
    /// What strangers hold, in bytes.
    strangers: AtomicUsize,
    /// The part of it that closing connections hold.
    closing: AtomicUsize,
    /// Whether clients may be waiting, because strangers hold too much.
    pressed: AtomicBool,
    open: Mutex<Open>,
    ended: Notify,
    /// How many connections were looked at to find those that give way.
    #[cfg(test)]
    looked_at: AtomicUsize,
}

#[derive(Default)]
struct Open {
    next: u64,
    peers: HashMap<u64, Arc<Peer>>,
    /// The connections of each address that are not closing.
    sources: HashMap<IpAddr, HashSet<u64>>,
    /// How many of `peers` are closing.
    closing: usize,
}

/// An open connection, until it is dropped.
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

/// The client's end of a new connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// Its address; `None` on a socket in the file system.
    pub(crate) address: Option<SocketAddr>,
    /// How many connections its address may have; `None` for any number.
    pub(crate) most: Option<usize>,
    /// Whether it comes by TLS.
    pub(crate) encrypted: bool,
}

impl Connections {
    /// At most this number at once.
    pub fn new(most: u32) -> Arc<Self> {
        Arc::new(Connections {
            most: most as usize,
            stopwatch: Stopwatch::start(),
            strangers: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            pressed: AtomicBool::new(false),
            open: Mutex::default(),
            ended: Notify::new(),
            #[cfg(test)]
            looked_at: AtomicUsize::new(0),
        })
    }

    /// How many connections one address may have when the listener does not say: a quarter of all, and a few in any case.
    pub(crate) fn per_source(&self) -> usize {
        (self.most / 4).max(16)
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().peers.len()
    }

    /// A place for a new connection. Where there is none left, connections that wait for their client are closed for it,
    /// the longest idle first; `None` when all are busy.
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
        let base = if source.encrypted { ENCRYPTED } else { CLEAR };
        let peer = Arc::new(Peer::new(self.clone(), source.address, base, self.stopwatch));
        open.peers.insert(id, peer.clone());
        if let Some(address) = address {
            open.sources.entry(address).or_default().insert(id);
        }
        drop(open);
        self.relieve();
        Some(Place { peer, id })
    }

    /// Closes the longest idle connections of an address, or of all, a part of `most` at once. Looks at no others, so that
    /// an address at a low cap does not cost more with each connection of others.
    fn make_room(&self, open: &mut Open, most: usize, of: Option<IpAddr>) -> bool {
        let now = self.stopwatch.millis();
        let candidates: Vec<u64> = match of {
            Some(address) => open.sources.get(&address).into_iter().flatten().copied().collect(),
            None => open.peers.keys().copied().collect(),
        };
        #[cfg(test)]
        self.looked_at.fetch_add(candidates.len(), Ordering::Relaxed);
        let mut idle: Vec<_> =
            candidates.iter().filter_map(|id| Some((open.peers.get(id)?.idleness(now)?, *id))).collect();
        // Of equally idle ones the oldest goes first.
        idle.sort_unstable_by_key(|(idleness, id)| (std::cmp::Reverse(*idleness), *id));
        idle.truncate((most / BATCH).max(1));
        for (_, id) in &idle {
            open.close(*id);
        }
        !idle.is_empty()
    }

    /// Adds to what strangers hold. The part of closing connections is added first, so that it never counts as the burden of
    /// others.
    fn count_held(&self, bytes: usize, closing: bool) {
        if closing {
            self.closing.fetch_add(bytes, Ordering::Relaxed);
        }
        self.strangers.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_released(&self, bytes: usize, closing: bool) {
        self.strangers.fetch_sub(bytes, Ordering::AcqRel);
        if closing {
            self.closing.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn count_closing(&self, bytes: usize) {
        self.closing.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether strangers hold so much that their clients must wait.
    fn is_pressed(&self) -> bool {
        self.strangers.load(Ordering::Relaxed) > PRESSED
    }

    /// The same, ordered after all earlier releases. A task that waits after this call is woken.
    fn is_pressed_now(&self) -> bool {
        self.pressed.store(true, Ordering::SeqCst);
        self.strangers.fetch_add(0, Ordering::AcqRel) > PRESSED
    }

    /// Wakes the clients that wait when they need not any longer.
    fn eases(&self) {
        if self.pressed.load(Ordering::SeqCst)
            && self.strangers.load(Ordering::Relaxed) <= EASED
            && self.pressed.swap(false, Ordering::SeqCst)
        {
            self.open.lock().peers.values().for_each(|peer| peer.wake());
        }
    }

    /// What strangers hold on connections that are not closing.
    fn burden(&self) -> usize {
        self.strangers.load(Ordering::Relaxed).saturating_sub(self.closing.load(Ordering::Relaxed))
    }

    /// Closes connections of strangers until the others hold no more than they may.
    fn relieve(&self) {
        if self.burden() <= STRANGERS {
            return;
        }
        let mut open = self.open.lock();
        let Some(mut excess) = self.burden().checked_sub(STRANGERS) else { return };
        excess += STRANGERS / BATCH;
        let now = self.stopwatch.millis();
        let mut strangers: Vec<_> = open.peers.iter().filter_map(|(id, peer)| Some((peer.burden(now)?, *id))).collect();
        strangers.sort_unstable_by_key(|(burden, id)| (std::cmp::Reverse(*burden), *id));
        for (_, id) in strangers {
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
                open.leave(&peer, id);
            }
        }
        drop(open);
        self.ended.notify_waiters();
    }

    /// Waits until all have ended, at most `bound`. Returns whether they have.
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
    pub(crate) fn held_by_strangers(&self) -> usize {
        self.strangers.load(Ordering::Relaxed)
    }
}

/// What counts as one source: an address of IPv4, or the /64 that one host of IPv6 may have to itself (RFC 7934).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Open {
    /// Tells a connection to close. Its place counts as free from now on. Returns what it holds, in bytes.
    fn close(&mut self, id: u64) -> usize {
        let Some(peer) = self.peers.get(&id).cloned() else { return 0 };
        let Some(held) = peer.close() else { return 0 };
        self.closing += 1;
        self.leave(&peer, id);
        held
    }

    fn leave(&mut self, peer: &Peer, id: u64) {
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
    fn sec_kf10_at_the_cap_the_longest_idle_connection_gives_way() {
        let mut all = Connections::new(3);
        Arc::get_mut(&mut all).unwrap().stopwatch = Stopwatch::started(Duration::from_secs(1));
        let mut places: Vec<_> = (1..=3).map(|last| all.admit(from(last)).unwrap()).collect();
        for (place, since) in places.iter().zip([30, 10, 20]) {
            place.peer.set_idle_since(since);
        }
        places.push(all.admit(from(4)).unwrap());
        assert_eq!(closing(&places), [1]);
        // Known clients stay as long as there are strangers, whatever they do.
        places[2].peer.set_known();
        places.push(all.admit(from(5)).unwrap());
        assert_eq!(closing(&places), [0, 1]);
        drop(places);
        assert_eq!(all.held_by_strangers(), 0);
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
    fn sec_kf10_at_the_cap_of_an_address_only_its_connections_are_looked_at() {
        let all = Connections::new(10_000);
        let others: Vec<_> = (0..500).map(|n| all.admit(Source { most: None, ..from(n as u8) }).unwrap()).collect();
        let own: Vec<_> = (0..100).map(|_| all.admit(Source { most: Some(12), ..from(1) }).unwrap()).collect();
        assert_eq!(closing(&others).len() + closing(&own).len(), 90);
        // Two of the others have the same address.
        assert_eq!(all.looked_at.load(Ordering::Relaxed), 90 * 12);
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
    fn busy_connections_of_known_clients_are_never_displaced() {
        let all = Connections::new(2);
        let busy: Vec<_> = (1..=2).map(|last| all.admit(from(last)).unwrap()).collect();
        let requests: Vec<_> =
            busy.iter().map(|p| crate::patience::Open::new(p.peer.clone(), http::Version::HTTP_11)).collect();
        busy.iter().for_each(|p| p.peer.set_known());
        assert!(all.admit(from(3)).is_none());
        drop(requests);
        assert!(all.admit(from(3)).is_some());
        assert_eq!(closing(&busy), [0]);
    }

    #[test]
    fn sec_kf03_strangers_hold_no_more_than_their_bound_together() {
        let all = Connections::new(16_384);
        let known = all.admit(from(200)).unwrap();
        known.peer.set_known();
        let mut places: Vec<_> = (0..100).map(|last| all.admit(from(last)).unwrap()).collect();
        let mut charges: Vec<_> = places.iter().map(|p| Charge::new(&p.peer, 1 << 20)).collect();
        let live = |places: &[Place]| places.iter().filter(|p| !p.peer.is_closing()).count();
        assert!(live(&places) * ((1 << 20) + CLEAR) <= STRANGERS && live(&places) > 30, "{}", live(&places));
        assert!(!known.peer.is_closing());
        places.clear();
        charges.clear();
        assert_eq!(all.held_by_strangers(), 0);
        // What a known client holds does not count.
        let charge = Charge::new(&known.peer, 64 << 20);
        assert_eq!(all.held_by_strangers(), 0);
        drop(charge);
        assert_eq!(all.held_by_strangers(), 0);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sec_kf03_what_a_closing_connection_takes_is_no_burden_of_others() {
        let all = Connections::new(100);
        let (small, heavy) = (all.admit(from(1)).unwrap(), all.admit(from(2)).unwrap());
        let first = Charge::new(&heavy.peer, STRANGERS);
        assert!(heavy.peer.is_closing() && !small.peer.is_closing());
        let second = Charge::new(&heavy.peer, STRANGERS);
        assert!(!small.peer.is_closing());
        let peer = heavy.peer.clone();
        drop(heavy);
        assert!(all.held_by_strangers() > 2 * STRANGERS, "what its requests hold is held until they end");
        drop((first, second, peer));
        assert_eq!((all.held_by_strangers(), all.closing.load(Ordering::Relaxed)), (CLEAR, 0));
    }

    #[test]
    fn sec_kf03_clients_of_strangers_wait_while_those_hold_too_much() {
        let all = Connections::new(100);
        let [stranger, other, becomes_known] = [1, 2, 3].map(|last| all.admit(from(last)).unwrap());
        let woken: [Arc<Woken>; 3] = Default::default();
        let waits = |place: &Place, by: usize, exempt: bool| {
            place.peer.must_wait(&std::task::Context::from_waker(&woken[by].clone().into()), exempt)
        };
        let counts = || [0, 1, 2].map(|at| woken[at].0.load(Ordering::Relaxed));
        assert!(!waits(&stranger, 0, false));
        let heavy = all.admit(from(9)).unwrap();
        let mut charge = Charge::new(&heavy.peer, PRESSED + 1);
        assert!(waits(&stranger, 0, false) && waits(&becomes_known, 2, false));
        // A connection that holds nothing but itself is exempt where it may be.
        assert!(!waits(&other, 1, true));
        let request = Charge::new(&other.peer, 1);
        assert!(waits(&other, 1, true));
        becomes_known.peer.set_known();
        assert_eq!((counts(), waits(&becomes_known, 2, false)), ([0, 0, 1], false));
        // A little less wakes nobody; enough less wakes all that wait, once.
        charge.set(PRESSED - (512 << 10));
        assert_eq!(counts(), [0, 0, 1]);
        charge.set(STRANGERS);
        charge.set(0);
        assert_eq!(counts(), [1, 1, 1]);
        assert!(!waits(&stranger, 0, false));
        drop(request);
    }
}
