//! `seal "tpm"`: a TPM 2.0 of this machine. Every wrapped key is a sealed data object of the TPM. The commands are our own
//! code (`docs/adr/0012-own-tpm-commands.md`).
//!
//! Source: the TPM 2.0 library specification, <https://trustedcomputinggroup.org/resource/tpm-library-specification/>.

mod device;
mod failure;
mod parent;
mod sealed;
mod session;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use keepfast_crypto::compare;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::call::{denied, unreachable_because, wrong_key};
use crate::pkcs11::number;
use crate::stanza::{Key, SealConfigError, Stanza};
use device::Device;
use failure::{Failure, Meaning};
use parent::Parent;
use sealed::{PERSISTENT, Policy, Sealed, read_pcrs};
use session::{Session, SessionKind};
use wire::Pcrs;

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("device", &["VAULT_TPM_SEAL_DEVICE"]),
    ("key_handle", &["VAULT_TPM_SEAL_KEY_HANDLE"]),
    ("key_name", &["VAULT_TPM_SEAL_KEY_NAME"]),
    ("key_auth", &["VAULT_TPM_SEAL_KEY_AUTH"]),
    ("pcrs", &["VAULT_TPM_SEAL_PCRS"]),
    ("auth", &["VAULT_TPM_SEAL_AUTH"]),
];

/// The device of the kernel with a resource manager.
const DEVICE: &str = "/dev/tpmrm0";
/// The only mechanism.
const MECHANISM: &str = "TPM2-SEALED";
/// The longest authorization value: the size of the digest of names.
const MAX_AUTH: usize = 32;

/// The seal.
struct Tpm {
    shared: Arc<Shared>,
    /// Held by the thread of a call until it ends, also when its caller is gone: a device that hangs has one thread.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What the thread of a call uses.
struct Shared {
    settings: TpmSettings,
    timeout: Duration,
    /// The name of the configured storage key, once it has wrapped or unwrapped: another one is not the TPM of this machine.
    known: Mutex<Option<Vec<u8>>>,
    auth_is_refused: AtomicBool,
}

struct TpmSettings {
    device: PathBuf,
    /// 0: the primary key.
    key_handle: u32,
    key_name: Option<Vec<u8>>,
    key_auth: SecretBytes,
    pcrs: Pcrs,
    auth: SecretBytes,
}

impl TpmSettings {
    /// The authorization value with which a storage key is used. The primary key has none: `key_auth` is that of its hierarchy.
    fn use_auth(&self, handle: u32) -> &[u8] {
        if handle != 0 && handle == self.key_handle { self.key_auth.expose() } else { &[] }
    }
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    let (settings, timeout) = (read_settings(stanza)?, stanza.timeout());
    let shared = Shared { settings, timeout, known: Mutex::default(), auth_is_refused: AtomicBool::new(false) };
    Ok(Arc::new(Tpm { shared: Arc::new(shared), turn: Arc::default() }))
}

fn read_settings(stanza: &Stanza<'_>) -> Result<TpmSettings, SealConfigError> {
    let device = stanza.text("device").unwrap_or_else(|| DEVICE.to_owned());
    let handle = stanza.text("key_handle").map(|text| {
        let handle = number(&text).and_then(|number| u32::try_from(number).ok());
        let handle = handle.filter(|handle| PERSISTENT.contains(handle));
        handle.ok_or_else(|| stanza.refused("key_handle must be a persistent handle, such as 0x81000001"))
    });
    let name = stanza.text("key_name").map(|text| {
        let name = hex::decode(&text).ok().filter(|name| name.len() == 34 && name.starts_with(&[0, 0x0b]));
        name.ok_or_else(|| stanza.refused("key_name must be 000b and the 64 hexadecimal digits of a SHA-256 digest"))
    });
    let pcrs = stanza.text("pcrs").map(|text| {
        let refused = || stanza.refused("pcrs must be at most eight numbers from 0 to 23 with commas, such as 0,2,7");
        Pcrs::parse(&text).ok_or_else(refused)
    });
    let auth = |key: &str| -> Result<SecretBytes, SealConfigError> {
        let Some(text) = stanza.secret(key)? else { return Ok(SecretBytes::default()) };
        // A TPM removes zeros at the end.
        let bytes = text.expose().trim_end_matches('\0').as_bytes();
        if bytes.is_empty() || bytes.len() > MAX_AUTH {
            return Err(
                stanza.refused_content(key, format!("{key} must have 1 to {MAX_AUTH} bytes without zeros at the end"))
            );
        }
        Ok(SecretBytes::new(bytes.to_vec()))
    };
    Ok(TpmSettings {
        device: device.into(),
        key_handle: handle.transpose()?.unwrap_or_default(),
        key_name: name.transpose()?,
        key_auth: auth("key_auth")?,
        pcrs: pcrs.transpose()?.unwrap_or_default(),
        auth: auth("auth")?,
    })
}

/// Set when the caller of a call is gone.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Tpm {
    /// Runs this in a thread with the open device, after the calls before it. The thread is not one of the runtime: a device
    /// that hangs would use those up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &mut Device) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, SealError> {
        let timeout = self.shared.timeout;
        let turn = tokio::time::timeout(timeout, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| unreachable_because(format!("other calls keep the TPM for {timeout:?}")))?;
        let (sender, receiver) = oneshot::channel();
        let shared = self.shared.clone();
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = Abandon(is_abandoned.clone());
        let thread = std::thread::Builder::new().name("tpm".to_owned()).spawn(move || {
            let outcome = shared.run(is_abandoned, work);
            drop(turn);
            // The caller may be gone.
            let _ = sender.send(outcome);
        });
        thread.map_err(|error| unreachable_because(format!("cannot start a thread: {error}")))?;
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unreachable_because("the thread of the TPM ended")),
            Err(_) => Err(unreachable_because(format!("no response of the TPM within {timeout:?}"))),
        }
    }
}

impl Shared {
    fn run<T>(
        &self,
        is_abandoned: Arc<AtomicBool>,
        work: impl FnOnce(&Self, &mut Device) -> Result<T, Failure>,
    ) -> Result<T, SealError> {
        if self.auth_is_refused.load(Ordering::SeqCst) {
            return Err(denied(
                "the TPM refused the authorization value; it is not tried again before another value, another configuration or \
                 a restart, so that the TPM is not locked",
            ));
        }
        let mut device = Device::open(&self.settings.device, self.timeout, is_abandoned)?;
        let outcome = work(self, &mut device);
        device.close();
        if let Err(failure) = &outcome
            && failure.meaning() == Some(Meaning::AuthRefused)
        {
            self.auth_is_refused.store(true, Ordering::SeqCst);
        }
        outcome.map_err(SealError::from)
    }

    /// The configured storage key. Its name is checked, and proven by the first response of a session with its salt.
    fn parent(&self, device: &mut Device) -> Result<Parent, Failure> {
        let settings = &self.settings;
        let parent = Parent::open(device, settings.key_handle, settings.key_auth.expose())?;
        self.check_name(&parent)?;
        Ok(parent)
    }

    fn check_name(&self, parent: &Parent) -> Result<(), SealError> {
        if self.settings.key_name.as_ref().is_some_and(|name| *name != parent.name) {
            return Err(wrong_key("the storage key of the TPM is not that of key_name"));
        }
        if self.known.lock().as_ref().is_some_and(|name| *name != parent.name) {
            return Err(wrong_key(
                "the TPM has another storage key than before: it was cleared, replaced, or is another one",
            ));
        }
        Ok(())
    }

    /// The policy of a key that is wrapped now.
    fn policy(&self, device: &mut Device, session: &mut Session) -> Result<Policy, Failure> {
        let (pcrs, needs_auth) = (self.settings.pcrs, !self.settings.auth.expose().is_empty());
        let pcrs = if pcrs.is_empty() { None } else { Some((pcrs, read_pcrs(device, session, pcrs)?)) };
        Ok(Policy { pcrs, needs_auth })
    }

    fn wrap(&self, device: &mut Device, key: &Key256) -> Result<WrappedKey, Failure> {
        let settings = &self.settings;
        let parent = self.parent(device)?;
        let mut session = Session::start(device, Some(&parent), SessionKind::Hmac)?;
        let policy = self.policy(device, &mut session)?;
        let below = (&parent, settings.key_handle, settings.use_auth(settings.key_handle));
        let blob = sealed::seal(device, &mut session, below, (policy, settings.auth.expose()), key)?;
        *self.known.lock() = Some(parent.name.clone());
        let key_id = key_id(&parent, policy);
        Ok(WrappedKey { key_id, mechanism: MECHANISM.to_owned(), blob: Bytes::from(blob), iv: None, tag: None })
    }

    fn unwrap(&self, device: &mut Device, wrapped: &WrappedKey) -> Result<Key256, Failure> {
        if wrapped.mechanism != MECHANISM {
            return Err(wrong_key("the wrapped key has an unknown mechanism").into());
        }
        let sealed = Sealed::parse(&wrapped.blob)?;
        let settings = &self.settings;
        let is_configured = sealed.parent == settings.key_handle;
        // The authorization value belongs to the configured key.
        let open_auth = if is_configured { settings.key_auth.expose().as_slice() } else { &[] };
        let parent = Parent::open(device, sealed.parent, open_auth)?;
        // The name is stored: no other TPM receives a salt, and an interposer cannot replace the key by its own.
        let stored = wrapped.key_id.split(';').next().unwrap_or_default();
        if !compare::equal(stored.as_bytes(), hex::encode(&parent.name).as_bytes()) {
            let cause =
                "the key was wrapped below another storage key: the TPM was cleared, replaced, or is another one";
            return Err(wrong_key(cause).into());
        }
        if is_configured {
            self.check_name(&parent)?;
        }
        let key = sealed.unseal(device, &parent, settings.use_auth(sealed.parent), settings.auth.expose())?;
        if is_configured {
            *self.known.lock() = Some(parent.name);
        }
        Ok(key)
    }

    fn current_key(&self, device: &mut Device) -> Result<String, Failure> {
        let parent = self.parent(device)?;
        let mut session = Session::start(device, Some(&parent), SessionKind::Hmac)?;
        Ok(key_id(&parent, self.policy(device, &mut session)?))
    }
}

/// The id of a key: the name of its parent, and what unwrapping needs. So a changed stanza leads to a new wrapping.
fn key_id(parent: &Parent, policy: Policy) -> String {
    let pcrs = policy.pcrs.map(|(pcrs, values)| format!(";sha256:{}={}", pcrs.numbers(), hex::encode(values)));
    let auth = if policy.needs_auth { ";auth" } else { "" };
    format!("{}{}{auth}", hex::encode(&parent.name), pcrs.unwrap_or_default())
}

#[async_trait]
impl Seal for Tpm {
    fn kind(&self) -> &'static str {
        "tpm"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        let settings = &self.shared.settings;
        let mut shown = vec![("device", settings.device.display().to_string())];
        if settings.key_handle != 0 {
            shown.push(("key_handle", format!("{:#010x}", settings.key_handle)));
        }
        if !settings.pcrs.is_empty() {
            shown.push(("pcrs", settings.pcrs.numbers()));
        }
        shown
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let key = key.clone();
        self.run(move |shared, device| shared.wrap(device, &key)).await
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let wrapped = wrapped.clone();
        self.run(move |shared, device| shared.unwrap(device, &wrapped)).await
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.run(|shared, device| shared.current_key(device)).await.map(Some)
    }

    /// Those with an authorization value.
    fn counts_attempts(&self) -> bool {
        let settings = &self.shared.settings;
        !settings.auth.expose().is_empty() || !settings.key_auth.expose().is_empty()
    }
}

#[cfg(test)]
mod swtpm;
#[cfg(test)]
#[path = "tpm_tests.rs"]
mod tests;
