//! A small bounded pool: connections are opened when they are needed and kept while they work.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::DatabaseError;
use super::settings::Settings;
use super::shown;

/// Connections to one server.
pub(super) struct Pool {
    config: Config,
    tls: MakeRustlsConnect,
    clock: Arc<dyn Clock>,
    max_lifetime: Option<Duration>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<(Client, Timestamp)>>,
}

/// A connection that is in use. Dropped without [`Pool::put`] it is closed: what state it is in is not known.
pub(super) struct Lent {
    client: Client,
    opened: Timestamp,
    _place: OwnedSemaphorePermit,
}

impl std::ops::Deref for Lent {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Pool {
    pub(super) fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        Pool {
            config: settings.config.clone(),
            tls: settings.tls.clone(),
            clock,
            max_lifetime: settings.max_lifetime,
            places: Arc::new(Semaphore::new(settings.max_open)),
            idle: Mutex::default(),
        }
    }

    /// A connection, once one is free.
    pub(super) async fn get(&self) -> Result<Lent, DatabaseError> {
        let place =
            self.places.clone().acquire_owned().await.map_err(|_| DatabaseError("the pool is closed".to_owned()))?;
        while let Some((client, opened)) = self.take() {
            if !client.is_closed() && self.is_young(opened) {
                return Ok(Lent { client, opened, _place: place });
            }
        }
        let client = connect(&self.config, &self.tls).await.map_err(|e| shown("failed to connect", &e))?;
        Ok(Lent { client, opened: self.clock.now(), _place: place })
    }

    /// Gives back a connection that is in order.
    pub(super) fn put(&self, lent: Lent) {
        if !lent.client.is_closed() && self.is_young(lent.opened) {
            self.idle.lock().push((lent.client, lent.opened));
        }
    }

    fn take(&self) -> Option<(Client, Timestamp)> {
        self.idle.lock().pop()
    }

    fn is_young(&self, opened: Timestamp) -> bool {
        self.max_lifetime.is_none_or(|most| self.clock.now().since(opened) < most)
    }
}

/// Opens a connection; its other half runs until the client is dropped.
pub(super) async fn connect(config: &Config, tls: &MakeRustlsConnect) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(tls.clone()).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(client)
}
