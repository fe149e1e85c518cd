//! Accepts connections. Until a node has shown the certificate of a member it costs a handshake and a place among a few:
//! when there are too many, the oldest one of the network with the most of them is closed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use keepfast_edge::network;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, Credentials, Halves};
use super::dial::{HANDSHAKE, certificate};
use super::frames::{Hello, Kind, invalid, read_address, welcome};
use super::open_port::OpenPort;
use super::serve;

/// The most connections without an authenticated node.
const MAX_STRANGERS: usize = 64;
/// The pause when the system has no more descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the port is closed.
pub(super) async fn run(listener: TcpListener, port: Arc<OpenPort>) {
    let strangers = Arc::<Strangers>::default();
    tokio::select! {
        () = accept(&listener, &port, &strangers) => {}
        () = port.closed() => {}
    }
    strangers.close();
}

async fn accept(listener: &TcpListener, port: &Arc<OpenPort>, strangers: &Arc<Strangers>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => strangers.clone().add(stream, from, port.clone()),
            // Most errors are of one connection; a pause is right for the others and short for these.
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted on the cluster port");
                port.clock.sleep_until(port.clock.now().after(PAUSE)).await;
            }
        }
    }
}

/// The connections without an authenticated node, the oldest first.
#[derive(Default)]
struct Strangers(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    open: Vec<Stranger>,
}

struct Stranger {
    number: u64,
    /// The network of its address.
    from: IpAddr,
    task: AbortHandle,
}

impl Strangers {
    fn add(self: Arc<Self>, stream: TcpStream, from: SocketAddr, port: Arc<OpenPort>) {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        if state.open.len() >= MAX_STRANGERS {
            let place = state.surplus();
            state.open.remove(place).task.abort();
        }
        let strangers = self.clone();
        let task = tokio::spawn(async move {
            let greeted = timeout(HANDSHAKE, greet(&port, stream)).await;
            // The lock is free again, and the entry is there.
            if !strangers.remove(number) {
                return;
            }
            match greeted.map_err(io::Error::from).flatten() {
                Ok((connection, kind, halves)) => serve::run(&port, connection, kind, halves).await,
                Err(error) => tracing::debug!(%from, %error, "a connection to the cluster port was refused"),
            }
        });
        state.open.push(Stranger { number, from: network(from.ip().to_canonical()), task: task.abort_handle() });
    }

    /// Returns whether it was there: otherwise its task is aborted.
    fn remove(&self, number: u64) -> bool {
        let mut state = self.0.lock();
        let place = state.open.iter().position(|stranger| stranger.number == number);
        place.map(|place| state.open.remove(place)).is_some()
    }

    fn close(&self) {
        self.0.lock().open.drain(..).for_each(|stranger| stranger.task.abort());
    }
}

impl State {
    /// The oldest connection of the network with the most of them.
    fn surplus(&self) -> usize {
        let count = |from: IpAddr| self.open.iter().filter(|stranger| stranger.from == from).count();
        let counts = self.open.iter().enumerate().map(|(place, stranger)| (count(stranger.from), place));
        counts.max_by_key(|(count, place)| (*count, std::cmp::Reverse(*place))).map_or(0, |(_, place)| place)
    }
}

/// The handshake and the first bytes.
async fn greet(port: &OpenPort, stream: TcpStream) -> io::Result<(Connection, Kind, Halves)> {
    let session = port.session().ok_or(io::ErrorKind::NotConnected)?;
    stream.set_nodelay(true)?;
    let tls = session.identity.configs().map_err(io::Error::other)?.accepting;
    let mut stream = TlsAcceptor::from(tls).accept(stream).await?;
    let certificate = certificate(stream.get_ref().1)?;
    let origin = session.identity.origin(&certificate).ok_or_else(|| invalid("a node of another cluster"))?;
    let mut hello = [0; Hello::LENGTH];
    stream.read_exact(&mut hello).await?;
    let hello = Hello::decode(&hello).ok_or_else(|| invalid("the first bytes of a node"))?;
    let address = read_address(&mut stream).await?;
    let other = Credentials { origin: Arc::new(origin), certificate, verified: session.identity.now() };
    let connection = port.accepted(other, hello, &address).ok_or_else(|| invalid("the node is no member"))?;
    stream.write_all(&welcome(hello.kind.limit(port.largest))).await?;
    stream.flush().await?;
    Ok((connection, hello.kind, Halves::new(stream.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_of_the_address_with_the_most_is_closed() {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let state = |last: &[u8]| {
            let address = |last: &u8| IpAddr::from([10, 0, 0, *last]);
            let stranger = |(number, last)| Stranger { number, from: address(last), task: task.clone() };
            State { next: 0, open: (0..).zip(last).map(stranger).collect() }
        };
        for (addresses, expected) in [(&[1, 2, 3][..], 0), (&[1, 2, 2], 1), (&[1, 2, 1, 2, 2], 1), (&[3, 2, 1, 1], 2)] {
            assert_eq!(state(addresses).surplus(), expected, "{addresses:?}");
        }
    }
}
