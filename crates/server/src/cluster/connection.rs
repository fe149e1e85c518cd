//! An authenticated connection: its two halves, the end of silent ones, and the list of all.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use keepfast_framework::clock::Clock;
use keepfast_storage::Origin;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsStream;

use super::frames::{Hello, Kind, MAX_QUIET, Outgoing, RECORD, tag};

/// The interval of the frames that show that a node is alive.
const TICK: Duration = Duration::from_secs(1);

/// The halves of a connection after its handshake.
pub(super) struct Halves {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// The half that writes.
pub(super) type Writer = WriteHalf<TlsStream<TcpStream>>;

/// The half that reads. Counts bytes, so that a long frame on a slow line is no silence.
pub(super) struct Reader {
    half: ReadHalf<TlsStream<TcpStream>>,
    activity: Arc<Activity>,
}

#[derive(Default)]
struct Activity {
    received: AtomicU64,
    /// Whether a read waits for bytes. A reader that is busy with a part of a snapshot knows nothing of the other node.
    waits: AtomicBool,
}

impl Halves {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (half, writer) = tokio::io::split(stream);
        Halves { reader: Reader { half, activity: Arc::default() }, writer }
    }
}

impl Reader {
    /// Completes when reads have waited for [`MAX_QUIET`] ticks of the clock.
    pub(super) fn silence(&self, clock: Arc<dyn Clock>) -> impl Future<Output = ()> + Send + 'static {
        let activity = self.activity.clone();
        async move {
            let (mut last, mut quiet) = (0, 0);
            while quiet < MAX_QUIET {
                clock.sleep_until(clock.now().after(TICK)).await;
                let current = activity.received.load(Ordering::Relaxed);
                let is_quiet = current == last && activity.waits.load(Ordering::Relaxed);
                quiet = if is_quiet { quiet + 1 } else { 0 };
                last = current;
            }
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.half).poll_read(cx, out);
        self.activity.received.fetch_add((out.filled().len() - before) as u64, Ordering::Relaxed);
        self.activity.waits.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

/// The frames that a connection sends.
pub(super) trait Source: Send {
    /// The next frame; `None` at the end. Dropping the future loses no frame.
    fn next(&mut self) -> impl Future<Output = Option<Outgoing>> + Send;
    /// The next frame, if one waits.
    fn waiting(&mut self) -> Option<Outgoing>;
}

impl Source for mpsc::Receiver<Outgoing> {
    async fn next(&mut self) -> Option<Outgoing> {
        self.recv().await
    }

    fn waiting(&mut self) -> Option<Outgoing> {
        self.try_recv().ok()
    }
}

/// Writes frames until their source ends, and closes the connection.
///
/// # Errors
/// Those of the connection.
pub(super) async fn write_all(mut writer: Writer, mut frames: impl Source, clock: &dyn Clock) -> io::Result<()> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.next() => frame,
            () = clock.sleep_until(clock.now().after(TICK)) => Some(Outgoing::empty(tag::ALIVE)),
        };
        let mut next = frame;
        if next.is_none() {
            break;
        }
        while let Some(frame) = next {
            next = write_record(&mut writer, frame, &mut frames).await?;
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

/// Writes a frame, and those that wait and fit with it into one record of TLS: the stream passes each record to the
/// socket by itself. Returns the frame that did not fit.
async fn write_record(writer: &mut Writer, first: Outgoing, frames: &mut impl Source) -> io::Result<Option<Outgoing>> {
    let Some(second) = frames.waiting() else {
        first.write(writer).await?;
        return Ok(None);
    };
    let (mut size, mut record, mut next) = (first.size(), vec![first], Some(second));
    while let Some(frame) = next.take_if(|frame| size + frame.size() <= RECORD) {
        size += frame.size();
        record.push(frame);
        next = frames.waiting();
    }
    Outgoing::write_together(&record, size, writer).await?;
    Ok(next)
}

/// The other end of a connection.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) origin: Arc<Origin>,
    pub(super) certificate: CertificateDer<'static>,
    /// The time at which the certificate was verified.
    pub(super) verified: UnixTime,
}

/// An open connection. Ends when it is dropped, when a newer one replaces it, or when its node is no longer accepted.
pub(super) struct Connection {
    entry: Arc<Entry>,
    of: Arc<Connections>,
}

struct Entry {
    credentials: Credentials,
    hello: Hello,
    is_open: Mutex<bool>,
    ended: watch::Sender<bool>,
}

/// The open connections that this node dialled, or those that it accepted: one of each node and kind, and the one before
/// while it has calls.
#[derive(Default)]
pub(super) struct Connections(Mutex<State>);

#[derive(Default)]
struct State {
    is_closed: bool,
    open: HashMap<(Arc<Origin>, Kind), Open>,
}

/// The connection of a node and kind.
struct Open {
    current: Arc<Entry>,
    /// The one before, whose calls run to their end.
    draining: Option<Arc<Entry>>,
}

impl Open {
    fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        std::iter::once(&self.current).chain(&self.draining)
    }
}

impl Connections {
    /// Adds a connection and ends an older one of the same node and kind; one with calls is the next to end. `None` when
    /// there is a newer one, or all are closed.
    pub(super) fn add(self: &Arc<Self>, credentials: Credentials, hello: Hello) -> Option<Connection> {
        let mut state = self.0.lock();
        let key = (credentials.origin.clone(), hello.kind);
        // Generations of another process cannot be compared; that one no longer runs.
        let is_newer = |old: &Entry| old.hello.process != hello.process || old.hello.generation < hello.generation;
        if state.is_closed || !state.open.get(&key).is_none_or(|old| is_newer(&old.current)) {
            return None;
        }
        let (ended, is_open) = (watch::Sender::new(false), Mutex::new(true));
        let current = Arc::new(Entry { credentials, hello, is_open, ended });
        let draining = match state.open.remove(&key) {
            Some(Open { current: older, draining }) if hello.kind.drains() && older.hello.process == hello.process => {
                draining.iter().for_each(|oldest| oldest.end());
                Some(older)
            }
            Some(older) => {
                older.entries().for_each(|entry| entry.end());
                None
            }
            None => None,
        };
        state.open.insert(key, Open { current: current.clone(), draining });
        Some(Connection { entry: current, of: self.clone() })
    }

    /// Ends the connections that are not accepted.
    pub(super) fn retain(&self, is_accepted: impl Fn(&Credentials, Kind) -> bool) {
        let open: Vec<Arc<Entry>> = self.0.lock().open.values().flat_map(Open::entries).cloned().collect();
        let refused = open.iter().filter(|entry| !is_accepted(&entry.credentials, entry.hello.kind));
        refused.for_each(|entry| entry.end());
    }

    /// Ends all connections, and adds no more.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        state.open.values().flat_map(Open::entries).for_each(|entry| entry.end());
    }
}

impl Entry {
    fn end(&self) {
        *self.is_open.lock() = false;
        self.ended.send_replace(true);
    }
}

impl Connection {
    /// The other end.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.entry.credentials
    }

    /// Runs `deliver` unless the connection has ended. None runs after a newer connection was added.
    pub(super) fn deliver(&self, deliver: impl FnOnce()) -> bool {
        let is_open = self.entry.is_open.lock();
        if *is_open {
            deliver();
        }
        *is_open
    }

    /// Completes when the connection has ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.entry.ended.subscribe();
        async move {
            // An error means that the connection was dropped.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.entry.end();
        let mut state = self.of.0.lock();
        let key = (self.entry.credentials.origin.clone(), self.entry.hello.kind);
        let Some(open) = state.open.get_mut(&key) else { return };
        open.draining.take_if(|draining| Arc::ptr_eq(draining, &self.entry));
        if Arc::ptr_eq(&open.current, &self.entry) {
            match open.draining.take() {
                Some(draining) => open.current = draining,
                None => drop(state.open.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn add(connections: &Arc<Connections>, node: &str, process: u8, generation: u64) -> Option<Connection> {
        add_kind(connections, Kind::Messages, node, process, generation)
    }

    fn add_kind(
        connections: &Arc<Connections>,
        kind: Kind,
        node: &str,
        process: u8,
        generation: u64,
    ) -> Option<Connection> {
        let origin = Arc::new(Origin { node: node.to_owned(), incarnation: [1; 16] });
        let verified = UnixTime::since_unix_epoch(Duration::ZERO);
        let credentials = Credentials { origin, certificate: CertificateDer::from(Vec::new()), verified };
        connections.add(credentials, Hello { kind, process: [process; 16], generation })
    }

    fn delivers(connection: &Connection) -> bool {
        let mut delivered = false;
        let is_open = connection.deliver(|| delivered = true);
        assert_eq!(is_open, delivered);
        delivered
    }

    #[test]
    fn a_connection_delivers_nothing_after_a_newer_one_was_added() {
        let connections = Arc::<Connections>::default();
        let (first, other) = (add(&connections, "a", 1, 5).unwrap(), add(&connections, "b", 1, 1).unwrap());
        assert!(delivers(&first));
        // A connection that was dialled earlier and arrives later.
        assert!(add(&connections, "a", 1, 5).is_none() && add(&connections, "a", 1, 4).is_none());
        assert!(delivers(&first));
        let second = add(&connections, "a", 1, 6).unwrap();
        assert!(!delivers(&first) && delivers(&second) && delivers(&other));
        // The end of the older one does not remove the newer one.
        drop(first);
        assert!(add(&connections, "a", 1, 5).is_none());
        // After a restart the generations begin again.
        let restarted = add(&connections, "a", 2, 0).unwrap();
        assert!(!delivers(&second) && delivers(&restarted));
        connections.close();
        assert!(!delivers(&restarted) && !delivers(&other) && add(&connections, "c", 1, 1).is_none());
    }

    #[test]
    fn a_connection_with_calls_ends_after_the_next_but_one() {
        let connections = Arc::<Connections>::default();
        let calls = |process, generation| add_kind(&connections, Kind::Calls, "a", process, generation).unwrap();
        let (first, second) = (calls(1, 1), calls(1, 2));
        assert!(delivers(&first) && delivers(&second));
        let third = calls(1, 3);
        assert!(!delivers(&first) && delivers(&second) && delivers(&third));
        // The one before takes the place of a newer one that has ended, and is refused like any other.
        drop(third);
        connections.retain(|_, kind| kind != Kind::Calls);
        assert!(!delivers(&second));
        drop((first, second));
        assert!(connections.0.lock().open.is_empty());
        // A process that has ended waits for nothing.
        let (before, restarted) = (calls(1, 9), calls(2, 1));
        assert!(!delivers(&before) && delivers(&restarted));
    }
}
