//! The open connections of configs, and the limits of their calls.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, ExternalKeyPlugin, Parameters, Signing,
};
use keepfast_framework::seal::{SealError, SealErrorClass};
use keepfast_framework::{Clock, Error, Result, Status, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::Granted;
use super::parameters::checked;

/// The most open connections; beyond it all are closed, and opened again by their next call.
const MAX_CONNECTIONS: usize = 256;
/// The most prepared keys of a connection.
const MAX_KEYS: usize = 1024;
/// The time after which a key is prepared again: an alias of the other system may mean another key then.
const MAX_AGE: Duration = Duration::from_secs(300);
/// The most calls of a config at the same time.
const IN_FLIGHT: usize = 32;
/// The deadline of a call, from its wait for another one to its response.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most connections that are being opened. Each may keep a thread while a mount of the machine is dead.
const MAX_CONNECTING: usize = 32;
/// The connections that are being opened.
static CONNECTING: Semaphore = Semaphore::const_new(MAX_CONNECTING);
/// The longest input of a call.
const MAX_INPUT: usize = 1024 * 1024;
/// The bytes that a ciphertext may have more than its plaintext.
const OVERHEAD: usize = 4096;

/// The open connections.
pub(super) struct Connections {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of changes of configs that were seen.
    epoch: u64,
    /// By config.
    open: HashMap<String, Open>,
}

struct Open {
    /// The revision of the config.
    revision: String,
    connection: Arc<dyn ExternalKeyConnection>,
    in_flight: Arc<Semaphore>,
    keys: HashMap<String, Prepared>,
}

struct Prepared {
    /// The revision of the key.
    revision: String,
    since: Timestamp,
    key: Arc<dyn ExternalKey>,
}

impl Connections {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Connections { clock, state: Mutex::default() }
    }

    /// The number of changes so far, to be read before the records.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// The key, with a connection of the config as it was read in this epoch. A connection that a change may have outdated
    /// is not kept: that of a deleted config would never be closed. A plugin may read files of the machine: no lock is held
    /// meanwhile.
    pub(super) async fn open_key(
        &self,
        plugin: &Arc<dyn ExternalKeyPlugin>,
        granted: &Granted,
        read_in: u64,
    ) -> Result<Arc<dyn ExternalKey>> {
        if let Some(open) = self.state.lock().of_grant(granted) {
            return open.prepare(&**plugin, granted, self.clock.now());
        }
        let mut opened = Open::new(plugin, granted).await?;
        let mut state = self.state.lock();
        // Another request may have opened it meanwhile.
        if let Some(open) = state.of_grant(granted) {
            return open.prepare(&**plugin, granted, self.clock.now());
        }
        let key = opened.prepare(&**plugin, granted, self.clock.now());
        if state.epoch == read_in {
            if state.open.len() >= MAX_CONNECTIONS {
                state.open.clear();
            }
            state.open.insert(granted.config.clone(), opened);
        }
        key
    }

    /// Closes the connection of a config.
    pub(super) fn close(&self, config: &str) {
        let mut state = self.state.lock();
        state.epoch += 1;
        let closed = state.open.remove(config);
        drop(state);
        drop(closed);
    }

    /// Closes all connections.
    pub(super) fn close_all(&self) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.open.clear();
    }
}

impl State {
    /// The open connection of the config, if it is of the same revision.
    fn of_grant(&mut self, granted: &Granted) -> Option<&mut Open> {
        self.open.get_mut(&granted.config).filter(|open| open.revision == granted.config_record.revision)
    }
}

impl Open {
    async fn new(plugin: &Arc<dyn ExternalKeyPlugin>, granted: &Granted) -> Result<Self> {
        let parameters = checked(plugin.config_parameters(), &granted.config_record.parameters)?;
        Ok(Open {
            revision: granted.config_record.revision.clone(),
            connection: connect(plugin, parameters).await?,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            keys: HashMap::new(),
        })
    }

    /// The prepared key.
    fn prepare(
        &mut self,
        plugin: &dyn ExternalKeyPlugin,
        granted: &Granted,
        now: Timestamp,
    ) -> Result<Arc<dyn ExternalKey>> {
        let Granted { key, key_record, .. } = granted;
        let is_current =
            |prepared: &&Prepared| prepared.revision == key_record.revision && now.since(prepared.since) < MAX_AGE;
        if let Some(prepared) = self.keys.get(key).filter(is_current) {
            return Ok(prepared.key.clone());
        }
        if self.keys.len() >= MAX_KEYS {
            self.keys.clear();
        }
        let parameters = checked(plugin.key_parameters(), &key_record.parameters)?;
        let inner = self.connection.key(&parameters).map_err(Error::invalid)?;
        let in_flight = self.in_flight.clone();
        let bounded: Arc<dyn ExternalKey> = Arc::new(BoundedKey { inner, in_flight, deadline: DEADLINE });
        let prepared = Prepared { revision: key_record.revision.clone(), since: now, key: bounded.clone() };
        self.keys.insert(key.clone(), prepared);
        Ok(bounded)
    }
}

/// Prepares a connection, by a thread for blocking calls: a plugin may read files, such as those of trusted authorities.
///
/// # Errors
/// 400 with what is invalid; 503 when it takes too long.
pub(crate) async fn connect(
    plugin: &Arc<dyn ExternalKeyPlugin>,
    parameters: Parameters,
) -> Result<Arc<dyn ExternalKeyConnection>> {
    let busy = || Error::new(Status::UNAVAILABLE, "too many connections of external keys are being opened");
    // Held until the thread ends, not the request.
    let permit = CONNECTING.try_acquire().map_err(|_| busy())?;
    let plugin = plugin.clone();
    let connected = tokio::task::spawn_blocking(move || {
        let connected = plugin.connect(&parameters);
        drop(permit);
        connected
    });
    let connected = tokio::time::timeout(DEADLINE, connected).await;
    let slow = |_| Error::new(Status::UNAVAILABLE, "the connection of the external key is not open in time");
    connected.map_err(slow)?.map_err(|error| Error::internal(error.to_string()))?.map_err(Error::invalid)
}

/// A key whose calls are bounded in number, time and size.
struct BoundedKey {
    inner: Arc<dyn ExternalKey>,
    in_flight: Arc<Semaphore>,
    deadline: Duration,
}

impl BoundedKey {
    async fn bounded<T: Send>(
        &self,
        lengths: &[usize],
        call: impl Future<Output = Result<T, ExternalKeyError>> + Send,
    ) -> Result<T, ExternalKeyError> {
        if lengths.iter().any(|length| *length > MAX_INPUT) {
            return Err(ExternalKeyError::refused("the input is too long for an external key: at most 1 MiB"));
        }
        let unavailable = |class, cause: &str| ExternalKeyError::from(SealError::new(class, cause));
        let limited = tokio::time::timeout(self.deadline, async {
            let permit = self.in_flight.acquire().await;
            let _permit = permit.map_err(|_| unavailable(SealErrorClass::Unreachable, "the connection is closed"))?;
            call.await
        });
        limited.await.unwrap_or_else(|_| {
            // A call that waits for others has sent nothing.
            let class = match self.in_flight.available_permits() {
                0 => SealErrorClass::Throttled(None),
                _ => SealErrorClass::Unreachable,
            };
            Err(unavailable(class, "the call exceeds its deadline"))
        })
    }
}

#[async_trait]
impl ExternalKey for BoundedKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        self.bounded(&[], self.inner.public_key()).await
    }

    async fn sign(&self, signing: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        self.bounded(&[signing.input.len()], self.inner.sign(signing)).await
    }

    async fn verify(&self, signing: &Signing<'_>, signature: &[u8]) -> Result<bool, ExternalKeyError> {
        self.bounded(&[signing.input.len(), signature.len()], self.inner.verify(signing, signature)).await
    }

    async fn encrypt(&self, plaintext: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        let lengths = [plaintext.len(), associated_data.len()];
        self.bounded(&lengths, self.inner.encrypt(plaintext, associated_data)).await
    }

    async fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        let lengths = [ciphertext.len().saturating_sub(OVERHEAD), associated_data.len()];
        self.bounded(&lengths, self.inner.decrypt(ciphertext, associated_data)).await
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
