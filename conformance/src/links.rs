//! A proxy in front of the cluster port of each node. Each node connects from its own address, so that a proxy knows
//! both ends of a connection, and the bytes of each direction between two nodes can be stopped, delayed, and reset.
//!
//! Bytes on a cut link wait, as those of TCP do whose packets are lost: they arrive when the link is whole again. A new
//! connection needs both directions. A lost packet of a lossy link delays what follows by the time of a retransmission.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::rng::Rng;
use crate::servers::free_port;

/// The pause between two looks at a cut link.
const POLL: Duration = Duration::from_millis(2);
/// The time of the first retransmission of a lost packet; each one after it takes twice as long.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// The bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// How slow a link is, and how many packets it loses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slowness {
    /// The least delay.
    pub delay: Duration,
    /// The most additional delay.
    pub spread: Duration,
    /// The lost packets of a thousand.
    pub lost: u16,
}

/// One direction between two nodes.
#[derive(Default)]
struct Link {
    is_cut: AtomicBool,
    slowness: Mutex<Slowness>,
}

/// The links between the nodes of a cluster.
pub struct Links {
    shared: Arc<Shared>,
    ports: Vec<u16>,
}

struct Shared {
    nodes: usize,
    /// From node `a` to node `b` at `a * nodes + b`.
    links: Vec<Link>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    seed: u64,
    /// The address of the first node; the others have the following ones.
    first: Ipv4Addr,
    is_over: AtomicBool,
}

/// A connection between two nodes.
struct Open {
    nodes: (usize, usize),
    streams: [TcpStream; 2],
}

impl Links {
    /// Opens a proxy for each of this number of nodes.
    ///
    /// # Errors
    /// When no port is free.
    pub fn open(nodes: usize, seed: u64) -> Result<Self> {
        Self::open_from(nodes, seed, Ipv4Addr::new(127, 0, 0, 10))
    }

    fn open_from(nodes: usize, seed: u64, first: Ipv4Addr) -> Result<Self> {
        let shared = Arc::new(Shared {
            nodes,
            links: (0..nodes * nodes).map(|_| Link::default()).collect(),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            seed,
            first,
            is_over: AtomicBool::new(false),
        });
        let mut ports = Vec::new();
        for to in 0..nodes {
            let port = free_port()?;
            let listener = TcpListener::bind((proxy(to), port))?;
            let shared = shared.clone();
            std::thread::spawn(move || shared.accept(&listener, to, port));
            ports.push(port);
        }
        Ok(Self { shared, ports })
    }

    /// The address from which a node must connect to the proxies.
    pub fn source(&self, node: usize) -> Ipv4Addr {
        self.shared.source(node)
    }

    /// The address at which others reach the cluster port of a node.
    pub fn address(&self, node: usize) -> SocketAddr {
        (proxy(node), self.ports[node]).into()
    }

    /// The address at which the cluster port of a node must listen.
    pub fn target(&self, node: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[node]).into()
    }

    /// Stops all bytes from a node to another.
    pub fn cut(&self, from: usize, to: usize) {
        self.shared.link(from, to).is_cut.store(true, Ordering::SeqCst);
    }

    /// Stops all bytes between two nodes.
    pub fn cut_both(&self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Slows all links, and loses packets.
    pub fn slow(&self, slowness: Slowness) {
        for link in &self.shared.links {
            *lock(&link.slowness) = slowness;
        }
    }

    /// Makes all links whole and fast.
    pub fn heal(&self) {
        self.slow(Slowness::default());
        for link in &self.shared.links {
            link.is_cut.store(false, Ordering::SeqCst);
        }
    }

    /// Closes all connections of a node.
    pub fn reset(&self, node: usize) {
        self.shared.close(|(from, to)| from == node || to == node);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.heal();
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.close(|_| true);
        for node in 0..self.shared.nodes {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(self.address(node));
        }
    }
}

impl Shared {
    fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[from * self.nodes + to]
    }

    fn source(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + node as u32)
    }

    fn close(&self, is_meant: impl Fn((usize, usize)) -> bool) {
        for open in lock(&self.open).values().filter(|open| is_meant(open.nodes)) {
            for stream in &open.streams {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn accept(self: Arc<Self>, listener: &TcpListener, to: usize, port: u16) {
        loop {
            let accepted = listener.accept();
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let Ok((stream, address)) = accepted else { continue };
            // Nothing but a node has such an address.
            let Some(from) = (0..self.nodes).find(|node| address.ip() == IpAddr::V4(self.source(*node))) else {
                continue;
            };
            let shared = self.clone();
            std::thread::spawn(move || shared.connect(stream, (from, to), port));
        }
    }

    /// Connects to the node when both directions are whole, and forwards bytes until both ends are closed.
    fn connect(self: Arc<Self>, incoming: TcpStream, (from, to): (usize, usize), port: u16) {
        self.wait_while_cut(from, to);
        self.wait_while_cut(to, from);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let connected = (|| {
            let outgoing = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            outgoing.set_nodelay(true)?;
            incoming.set_nodelay(true)?;
            let streams = [incoming.try_clone()?, outgoing.try_clone()?];
            lock(&self.open).insert(number, Open { nodes: (from, to), streams });
            Ok::<_, std::io::Error>((outgoing.try_clone()?, incoming.try_clone()?, outgoing))
        })();
        if let Ok((back, forth, outgoing)) = connected {
            let shared = self.clone();
            let backward = std::thread::spawn(move || shared.forward(back, forth, (to, from), 2 * number + 1));
            self.forward(incoming, outgoing, (from, to), 2 * number);
            let _ = backward.join();
        }
        lock(&self.open).remove(&number);
    }

    /// Forwards the bytes of one direction until its source ends.
    fn forward(&self, mut source: TcpStream, mut sink: TcpStream, (from, to): (usize, usize), item: u64) {
        let mut rng = Rng::of(self.seed, item);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match source.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            std::thread::sleep(delay(*lock(&self.link(from, to).slowness), &mut rng));
            self.wait_while_cut(from, to);
            if sink.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        // The end travels on the link, too.
        self.wait_while_cut(from, to);
        let _ = sink.shutdown(Shutdown::Write);
        let _ = source.shutdown(Shutdown::Read);
    }

    fn wait_while_cut(&self, from: usize, to: usize) {
        while self.link(from, to).is_cut.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(POLL);
        }
    }
}

/// The time that a chunk of bytes takes.
fn delay(Slowness { delay, spread, lost }: Slowness, rng: &mut Rng) -> Duration {
    let mut total = delay + Duration::from_micros(rng.below(spread.as_micros() as usize + 1) as u64);
    let mut retransmission = RETRANSMISSION;
    while rng.below(1000) < usize::from(lost.min(999)) {
        total += retransmission;
        retransmission *= 2;
    }
    total
}

/// The address of the proxy of a node.
fn proxy(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 10 + node as u8)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_lost_packets_take_longer_than_the_delay() {
        let mut rng = Rng::of(1, 0);
        let (millis, mut lost) = (Duration::from_millis, 0);
        for _ in 0..1000 {
            let total = delay(Slowness { delay: millis(10), spread: millis(5), lost: 100 }, &mut rng);
            assert!(total >= millis(10));
            lost += usize::from(total > millis(15));
            assert!(total <= millis(15) || total >= millis(210));
        }
        assert!((50..200).contains(&lost), "{lost}");
        assert_eq!(delay(Slowness::default(), &mut rng), Duration::ZERO);
    }

    #[test]
    fn bytes_on_a_cut_link_arrive_when_it_is_whole_again() {
        // A connection to a loopback address comes from 127.0.0.1.
        let links = Links::open_from(2, 1, Ipv4Addr::LOCALHOST).unwrap();
        let node = TcpListener::bind(links.target(1)).unwrap();
        let mut sender = TcpStream::connect(links.address(1)).unwrap();
        let (mut receiver, _) = node.accept().unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut byte = [0];
        links.cut(0, 1);
        sender.write_all(b"a").unwrap();
        assert!(receiver.read(&mut byte).is_err(), "the link is cut");
        // The other direction is whole.
        receiver.write_all(b"b").unwrap();
        sender.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"b");
        links.heal();
        receiver.set_read_timeout(None).unwrap();
        receiver.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"a");
        links.reset(1);
        assert_eq!((receiver.read(&mut byte).unwrap(), sender.read(&mut byte).unwrap()), (0, 0));
    }
}
