//! A small connection pool: opens connections on demand and keeps them while they work. All roles of a connection share
//! it.
//!
//! Own code and not `deadpool`: that has no maximum of idle connections (`max_idle_connections`), measures the age of a
//! connection by `Instant` and not by a [`Clock`], and counts no waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_framework::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::DatabaseError;
use super::details::{Details, duration, integer};

/// The default maximum of open connections, as in OpenBao.
const MAX_OPEN: usize = 4;

/// Opens connections of one kind.
#[async_trait]
pub(super) trait Connector: Send + Sync + 'static {
    /// An open connection.
    type Connection: Send + 'static;
    /// Opens a connection.
    async fn open(&self) -> Result<Self::Connection, DatabaseError>;
    /// Whether an idle connection seems to work; a cheap check.
    fn looks_open(connection: &Self::Connection) -> bool;
}

/// The limits of a pool.
pub(super) struct Limits {
    max_open: usize,
    max_idle: usize,
    /// The maximum lifetime of a connection; `None` means no limit.
    max_lifetime: Option<Duration>,
}

impl Limits {
    /// Parses `max_open_connections`, `max_idle_connections` and `max_connection_lifetime` as OpenBao does: for open, 0
    /// is the default and negative means no limit; for idle, 0 is the maximum of open ones and negative is none.
    ///
    /// # Errors
    /// When a value is not a number or not a duration.
    pub(super) fn read(details: &Details) -> Result<Self, String> {
        let max_open = match integer(details, "max_open_connections")?.unwrap_or(0) {
            0 => MAX_OPEN,
            most => usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS),
        };
        let max_idle = match integer(details, "max_idle_connections")?.unwrap_or(0) {
            0 => max_open,
            most => usize::try_from(most).unwrap_or(0).min(max_open),
        };
        Ok(Limits { max_open, max_idle, max_lifetime: duration(details, "max_connection_lifetime")? })
    }
}

/// The statistics of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolStats {
    /// Connections that are open or being opened.
    pub(super) open: usize,
    /// Connections in use.
    pub(super) in_use: usize,
    /// Idle connections.
    pub(super) idle: usize,
    /// How many operations had to wait for a connection since the pool was opened.
    pub(super) waits: u64,
    /// How many connections were opened.
    pub(super) opened: u64,
}

/// Connections to one server.
pub(super) struct Pool<C: Connector> {
    pub(super) connector: C,
    limits: Limits,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<(C::Connection, Timestamp)>>,
    waits: AtomicU64,
    opened: AtomicU64,
}

/// A connection in use. Dropping it without [`Pool::put`] closes it, as its state is unknown.
pub(super) struct PooledConnection<T> {
    connection: T,
    opened: Timestamp,
    /// Whether it was idle before, so the server may have closed it meanwhile.
    pub(super) is_used: bool,
    permit: OwnedSemaphorePermit,
}

impl<T> std::ops::Deref for PooledConnection<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.connection
    }
}

impl<T> std::ops::DerefMut for PooledConnection<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.connection
    }
}

impl<C: Connector> Pool<C> {
    pub(super) fn new(connector: C, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let places = Arc::new(Semaphore::new(limits.max_open));
        let (waits, opened) = Default::default();
        Pool { connector, limits, clock, places, idle: Mutex::default(), waits, opened }
    }

    /// A connection; waits until one is free.
    pub(super) async fn get(&self) -> Result<PooledConnection<C::Connection>, DatabaseError> {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                let closed = |_| DatabaseError::new("the pool is closed");
                self.places.clone().acquire_owned().await.map_err(closed)?
            }
        };
        while let Some((connection, opened)) = self.take() {
            if C::looks_open(&connection) && self.is_young(opened) {
                return Ok(PooledConnection { connection, opened, is_used: true, permit });
            }
        }
        self.open(permit).await
    }

    /// Replaces a broken connection by a new one and closes all idle ones, which are probably broken too.
    pub(super) async fn replace(
        &self,
        broken: PooledConnection<C::Connection>,
    ) -> Result<PooledConnection<C::Connection>, DatabaseError> {
        let PooledConnection { connection, permit, .. } = broken;
        drop(connection);
        self.idle.lock().clear();
        self.open(permit).await
    }

    async fn open(&self, permit: OwnedSemaphorePermit) -> Result<PooledConnection<C::Connection>, DatabaseError> {
        let connection = self.connector.open().await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(PooledConnection { connection, opened: self.clock.now(), is_used: false, permit })
    }

    /// Returns a working connection to the pool.
    pub(super) fn put(&self, connection: PooledConnection<C::Connection>) {
        let mut idle = self.idle.lock();
        if C::looks_open(&connection.connection)
            && self.is_young(connection.opened)
            && idle.len() < self.limits.max_idle
        {
            idle.push((connection.connection, connection.opened));
        }
    }

    /// The statistics.
    pub(super) fn pool_stats(&self) -> PoolStats {
        let idle = self.idle.lock().len();
        let in_use = self.limits.max_open - self.places.available_permits();
        PoolStats {
            open: idle + in_use,
            in_use,
            idle,
            waits: self.waits.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
        }
    }

    fn take(&self) -> Option<(C::Connection, Timestamp)> {
        self.idle.lock().pop()
    }

    fn is_young(&self, opened: Timestamp) -> bool {
        self.limits.max_lifetime.is_none_or(|most| self.clock.now().since(opened) < most)
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::clock::TestClock;
    use serde_json::json;

    use super::super::details::of_json;
    use super::*;

    struct Numbered(AtomicU64);

    #[async_trait]
    impl Connector for Numbered {
        type Connection = u64;
        async fn open(&self) -> Result<u64, DatabaseError> {
            Ok(self.0.fetch_add(1, Ordering::Relaxed))
        }
        fn looks_open(_: &u64) -> bool {
            true
        }
    }

    fn pool(details: serde_json::Value) -> (Pool<Numbered>, TestClock) {
        let clock = TestClock::default();
        let limits = Limits::read(&of_json(&details)).unwrap();
        (Pool::new(Numbered(AtomicU64::new(0)), limits, Arc::new(clock.clone())), clock)
    }

    #[tokio::test]
    async fn the_pool_opens_lazily_keeps_its_limits_and_counts_waits() {
        let (pool, clock) =
            pool(json!({"max_open_connections": 2, "max_idle_connections": 1, "max_connection_lifetime": "1m"}));
        assert_eq!(pool.pool_stats(), PoolStats::default());
        let (a, b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        let third = async {
            let third = pool.get().await.unwrap();
            assert_eq!((*third, third.is_used), (0, true), "it reuses the returned connection");
            pool.put(third);
        };
        let give = async {
            assert_eq!(pool.pool_stats(), PoolStats { open: 2, in_use: 2, idle: 0, waits: 1, opened: 2 });
            pool.put(a);
        };
        tokio::join!(third, give);
        pool.put(b);
        assert_eq!(pool.pool_stats(), PoolStats { open: 1, in_use: 0, idle: 1, waits: 1, opened: 2 });
        clock.advance(Duration::from_secs(61));
        assert_eq!(*pool.get().await.unwrap(), 2, "a connection beyond its lifetime is not used");
    }

    #[test]
    fn limits_are_parsed_as_in_openbao() {
        let read = |details: serde_json::Value| {
            Limits::read(&of_json(&details)).map(|l| (l.max_open, l.max_idle, l.max_lifetime.map(|d| d.as_secs())))
        };
        assert_eq!(read(json!({})), Ok((4, 4, None)));
        assert_eq!(read(json!({"max_open_connections": 0, "max_idle_connections": -1})), Ok((4, 0, None)));
        assert_eq!(read(json!({"max_open_connections": "2", "max_idle_connections": 7})), Ok((2, 2, None)));
        assert_eq!(read(json!({"max_open_connections": -1})).unwrap().0, Semaphore::MAX_PERMITS);
        assert_eq!(read(json!({"max_connection_lifetime": "5m"})).unwrap().2, Some(300));
        assert!(read(json!({"max_connection_lifetime": "x"})).is_err());
    }
}
