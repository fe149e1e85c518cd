//! `seal "pkcs11"`: a key of an HSM. A program of its own, `keepfast-pkcs11`, loads the HSM's library: an error in the
//! library ends that program, which is started again.
//!
//! Sources: <https://openbao.org/docs/configuration/seal/pkcs11>,
//! <https://developer.hashicorp.com/vault/docs/configuration/seal/pkcs11>.

mod logins;
mod program;
pub(crate) mod protocol;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use keepfast_framework::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::call::{denied, json_body, misconfigured, unreachable_because, wrong_key};
use crate::stanza::{Key, SealConfigError, Stanza};
use logins::LOGINS;
use program::{ExchangeError, Program, Threads};
use protocol::{Class, FoundToken, KeyName, Mechanism, Open, Request, Response, Stored};

/// The keys of the stanza.
pub(crate) const KEYS: &[Key] = &[
    ("lib", &["VAULT_HSM_LIB"]),
    ("slot", &["VAULT_HSM_SLOT"]),
    ("token_label", &["VAULT_HSM_TOKEN_LABEL"]),
    ("pin", &["VAULT_HSM_PIN"]),
    ("key_label", &["VAULT_HSM_KEY_LABEL"]),
    ("default_key_label", &["VAULT_HSM_DEFAULT_KEY_LABEL"]),
    ("key_id", &["VAULT_HSM_KEY_ID"]),
    ("mechanism", &["VAULT_HSM_MECHANISM"]),
    ("rsa_oaep_hash", &["VAULT_HSM_RSA_OAEP_HASH"]),
    ("helper_program", &[]),
    ("library_variables", &[]),
];

/// The program, beside that of the server.
const PROGRAM: &str = "keepfast-pkcs11";
/// Variables of libraries that are passed on; `library_variables` adds others.
const LIBRARY_VARIABLES: [&str; 4] =
    ["SOFTHSM2_CONF", "ChrystokiConfigurationPath", "CS_PKCS11_R3_CFG", "CKNFAST_LOADSHARING"];
/// The wait before the program is started again, doubled after each failure.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The number of logins without a response after which the next one waits: each may have counted as a wrong PIN.
const MAX_SILENT_LOGINS: u32 = 2;
/// That wait.
const LOGIN_PAUSE: Duration = Duration::from_secs(600);
/// The longest text of the stanza that is sent to the program.
pub(crate) const MAX_TEXT: usize = 512;

/// The session with an HSM: the seal, and the connection of external keys.
pub(crate) struct Pkcs11 {
    settings: HsmSettings,
    program: HsmProgram,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    state: Mutex<State>,
    threads: Threads,
}

/// The program that loads the library.
#[derive(Clone)]
pub(crate) struct HsmProgram {
    pub(crate) path: PathBuf,
    /// Its variables.
    pub(crate) variables: Vec<(String, String)>,
}

/// What the first request contains.
pub(crate) struct HsmSettings {
    pub(crate) lib: String,
    pub(crate) slot: Option<u64>,
    pub(crate) token_label: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) pin: SecretString,
    /// Whether the PIN is that of a seal, and not of a config of external keys.
    pub(crate) is_seal: bool,
    pub(crate) key: KeyName,
    pub(crate) mechanism: Mechanism,
}

#[derive(Default)]
struct State {
    running: Option<Program>,
    /// Failures since the last success, and the time of the next start.
    failures: u32,
    not_before: Timestamp,
    /// Logins since the last one with a response.
    silent_logins: u32,
    /// The PIN was refused: after a few attempts a token is locked, so there is no other one.
    pin_refused: bool,
}

/// Creates the seal of a stanza.
pub(crate) fn create(stanza: &Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError> {
    Ok(Arc::new(read(stanza)?))
}

fn read(stanza: &Stanza<'_>) -> Result<Pkcs11, SealConfigError> {
    let settings = read_settings(stanza)?;
    let path = match stanza.text("helper_program") {
        Some(path) => PathBuf::from(path),
        None => own_program().map_err(|error| stanza.refused(error))?,
    };
    let more = stanza.text("library_variables").unwrap_or_default();
    let more = more.split(',').map(str::trim).filter(|name| !name.is_empty());
    let program = HsmProgram { path, variables: variables_of(more, |name| stanza.machine_variable(name)) };
    if stanza.text("default_key_label").is_some() {
        stanza.warn("default_key_label has no effect: the key of each wrapped key is stored");
    }
    Ok(Pkcs11::new(settings, program, stanza.clock(), stanza.timeout()))
}

/// The program beside that of the server.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    Ok(own.with_file_name(PROGRAM))
}

/// The variables of libraries and these.
pub(crate) fn variables_of<'n>(
    more: impl Iterator<Item = &'n str>,
    find: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let names = LIBRARY_VARIABLES.into_iter().chain(more);
    names.filter_map(|name| Some((name.to_owned(), find(name)?))).collect()
}

fn read_settings(stanza: &Stanza<'_>) -> Result<HsmSettings, SealConfigError> {
    let text = |key: &str| match stanza.text(key) {
        Some(text) if text.len() > MAX_TEXT => Err(stanza.refused(format!("{key} is longer than {MAX_TEXT} bytes"))),
        found => Ok(found),
    };
    let lib = text("lib")?.ok_or_else(|| stanza.refused("lib, the path of the library of the HSM, is required"))?;
    let pin = stanza.secret("pin")?.ok_or_else(|| stanza.refused("pin is required"))?;
    if pin.expose().len() > MAX_TEXT {
        return Err(stanza.refused(format!("pin is longer than {MAX_TEXT} bytes")));
    }
    let slot = text("slot")?.map(|slot| number(&slot).ok_or_else(|| stanza.refused("slot must be a number")));
    let slot = slot.transpose()?;
    let (key_label, key_id) = (text("key_label")?, text("key_id")?);
    let key_id = key_id.map(|id| id.trim_start_matches("0x").to_ascii_lowercase());
    if key_id.as_ref().is_some_and(|id| hex::decode(id).is_err()) {
        return Err(stanza.refused("key_id must be hex, such as 0x1a2b"));
    }
    if key_label.is_none() && key_id.is_none() {
        return Err(stanza.refused("key_label or key_id is required"));
    }
    let mechanism = mechanism(stanza)?;
    let key = KeyName { label: key_label, id: key_id };
    Ok(HsmSettings { lib, slot, token_label: text("token_label")?, serial: None, pin, is_seal: true, key, mechanism })
}

fn mechanism(stanza: &Stanza<'_>) -> Result<Mechanism, SealConfigError> {
    let refused = || stanza.refused("mechanism must be CKM_AES_GCM (0x1087) or CKM_RSA_PKCS_OAEP (0x0009)");
    let hash = stanza.text("rsa_oaep_hash").unwrap_or_default().to_ascii_lowercase();
    let named = stanza.text("mechanism");
    let number = match named.as_deref() {
        None | Some("CKM_AES_GCM") => 0x1087,
        Some("CKM_RSA_PKCS_OAEP") => 0x0009,
        Some(text) => number(text).ok_or_else(refused)?,
    };
    match (number, hash.as_str()) {
        (0x1087, _) => Ok(Mechanism::AesGcm),
        (0x0009, "sha1") => Ok(Mechanism::OaepSha1),
        (0x0009, "sha224") => Ok(Mechanism::OaepSha224),
        (0x0009, "" | "sha256") => Ok(Mechanism::OaepSha256),
        (0x0009, "sha384") => Ok(Mechanism::OaepSha384),
        (0x0009, "sha512") => Ok(Mechanism::OaepSha512),
        (0x0009, _) => Err(stanza.refused("rsa_oaep_hash must be sha1, sha224, sha256, sha384 or sha512")),
        _ => Err(refused()),
    }
}

/// A number, decimal or `0x…`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Pkcs11 {
    /// A session that the first call opens.
    pub(crate) fn new(settings: HsmSettings, program: HsmProgram, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        Pkcs11 { settings, program, clock, timeout, state: Mutex::default(), threads: Threads::default() }
    }

    /// Sends a request to the program, which is started first if it does not run.
    async fn call(&self, request: Request<&str>) -> Result<Response<SecretText>, SealError> {
        self.send(json_body(&request)?).await
    }

    /// Sends the frame of a request, one at a time.
    pub(crate) async fn send(&self, frame: SecretBytes) -> Result<Response<SecretText>, SealError> {
        let state = tokio::time::timeout(self.timeout, self.state.lock()).await;
        let mut state =
            state.map_err(|_| unreachable_because(format!("other calls keep the HSM for {:?}", self.timeout)))?;
        if state.pin_refused {
            return Err(denied(
                "the HSM refused the PIN; it is not tried again before another PIN, another configuration or a restart, so \
                 that the token is not locked",
            ));
        }
        let mut program = match state.running.take() {
            Some(program) => program,
            None => self.start(&mut state).await?,
        };
        let response = self.exchange(&mut state, &mut program, frame).await?;
        let is_lost = matches!(&response, Response::Failed { class: Class::Unreachable, .. });
        if !is_lost {
            state.failures = 0;
            state.running = Some(program);
        } else {
            // The session may be lost: a new program opens another.
            self.failed(&mut state);
        }
        answered(&mut state, response)
    }

    async fn start(&self, state: &mut State) -> Result<Program, SealError> {
        let now = self.clock.now();
        if now < state.not_before {
            let wait = state.not_before.since(now).as_secs() + 1;
            let cause = format!("{PROGRAM} ended or failed; it is started again in {wait} s");
            return Err(SealError::new(SealErrorClass::Crashed, cause));
        }
        if self.threads.are_full() {
            let cause = format!("several processes of {PROGRAM} do not end: the HSM or its driver hangs");
            return Err(SealError::new(SealErrorClass::Crashed, cause));
        }
        let HsmProgram { path, variables } = &self.program;
        let started = Program::start(path, variables, &self.threads);
        let mut program = started.map_err(|error| {
            self.failed(state);
            misconfigured(format!("cannot start {}: {error}", path.display()))
        })?;
        let HsmSettings { lib, slot, token_label, serial, key, mechanism, .. } = &self.settings;
        let open = Request::<&str>::Open(Open {
            lib: lib.clone(),
            slot: *slot,
            token_label: token_label.clone(),
            serial: serial.clone(),
            key_label: key.label.clone(),
            key_id: key.id.clone(),
            mechanism: *mechanism,
        });
        let frame = json_body(&open)?;
        state.silent_logins = state.silent_logins.saturating_add(1);
        let found = self.exchange(state, &mut program, frame).await?;
        let logged_in = match answered(state, found) {
            Ok(Response::Found(token)) => self.log_in(state, &mut program, &token).await?,
            Ok(_) => Err(unexpected()),
            Err(error) => Err(error),
        };
        state.silent_logins = 0;
        logged_in.inspect_err(|_| self.failed(state))?;
        Ok(program)
    }

    /// Logs in; the inner error is a response.
    async fn log_in(
        &self,
        state: &mut State,
        program: &mut Program,
        token: &FoundToken,
    ) -> Result<Result<(), SealError>, SealError> {
        let HsmSettings { pin, is_seal, .. } = &self.settings;
        let frame = json_body(&Request::Login(pin.expose().as_str()))?;
        let login = match LOGINS.begin(token, pin.expose(), *is_seal, self.clock.now()) {
            Ok(login) => login,
            Err(error) => return Ok(Err(error)),
        };
        // Dropped without a response, the login counts as refused.
        let response = self.exchange(state, program, frame).await?;
        match &response {
            Response::LoggedIn => login.accepted(),
            Response::Failed { class: Class::PinRefused, .. } => login.refused(),
            Response::Failed { class: Class::Unreachable, .. } => drop(login),
            _ => login.not_compared(),
        }
        Ok(match answered(state, response) {
            Ok(Response::LoggedIn) => Ok(()),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(error),
        })
    }

    /// Sends a frame. The failure is counted before it and forgiven after the response: so a call counts that is dropped.
    async fn exchange(
        &self,
        state: &mut State,
        program: &mut Program,
        frame: SecretBytes,
    ) -> Result<Response<SecretText>, SealError> {
        let before = (state.failures, state.not_before);
        self.failed(state);
        let reply = program.exchange(frame, self.timeout).await.map_err(|error| match error {
            ExchangeError::Timeout => unreachable_because(format!("no response of the HSM within {:?}", self.timeout)),
            ExchangeError::Ended(status) => SealError::new(SealErrorClass::Crashed, format!("{PROGRAM} ended{status}")),
        })?;
        let parsed = serde_json::from_slice(reply.expose());
        let invalid = |_| SealError::new(SealErrorClass::Crashed, format!("{PROGRAM} sent an invalid response"));
        let response = parsed.map_err(invalid)?;
        (state.failures, state.not_before) = before;
        Ok(response)
    }

    /// Counts a failure: the next start waits.
    fn failed(&self, state: &mut State) {
        let is_silent = state.silent_logins >= MAX_SILENT_LOGINS;
        let wait = SHORTEST_WAIT.saturating_mul(1_u32 << state.failures.min(6)).min(LONGEST_WAIT);
        let wait = if is_silent { LOGIN_PAUSE } else { wait };
        state.failures = state.failures.saturating_add(1);
        state.not_before = self.clock.now().after(wait);
    }
}

/// A secret text in a response.
#[derive(serde::Deserialize)]
#[serde(from = "String")]
pub(crate) struct SecretText(pub(crate) SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        SecretText(SecretString::new(text))
    }
}

/// The response, or its failure as an error.
fn answered(state: &mut State, response: Response<SecretText>) -> Result<Response<SecretText>, SealError> {
    let Response::Failed { class, cause } = response else { return Ok(response) };
    let cause: String = cause.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(match class {
        Class::Unreachable => unreachable_because(cause),
        Class::PinRefused => {
            state.pin_refused = true;
            denied(cause)
        }
        Class::Denied => denied(cause),
        Class::WrongKey => wrong_key(cause),
        Class::Misconfigured => misconfigured(cause),
    })
}

pub(crate) fn unexpected() -> SealError {
    SealError::new(SealErrorClass::Crashed, format!("{PROGRAM} sent another response"))
}

#[async_trait]
impl Seal for Pkcs11 {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
        let mut shown = vec![("lib", settings.lib.clone())];
        shown.extend(settings.slot.map(|slot| ("slot", slot.to_string())));
        let texts =
            [("token_label", &settings.token_label), ("key_label", &settings.key.label), ("key_id", &settings.key.id)];
        shown.extend(texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        shown
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let key = SecretString::new(STANDARD.encode(key.expose()));
        let Response::Wrapped(stored) = self.call(Request::Wrap(key.expose())).await? else { return Err(unexpected()) };
        let decode = |text: &str| STANDARD.decode(text).map(Bytes::from).map_err(|_| unexpected());
        let iv = stored.iv.as_deref().map(decode).transpose()?;
        let mechanism = serde_json::to_value(stored.mechanism).ok();
        let mechanism = mechanism.and_then(|value| Some(value.as_str()?.to_owned())).ok_or_else(unexpected)?;
        Ok(WrappedKey { key_id: stored.key_id, mechanism, blob: decode(&stored.blob)?, iv, tag: None })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let mechanism = serde_json::from_value(serde_json::Value::String(wrapped.mechanism.clone()));
        let mechanism = mechanism.map_err(|_| wrong_key("the wrapped key has an unknown mechanism"))?;
        if wrapped.blob.len() > 2048 || wrapped.key_id.len() > MAX_TEXT {
            return Err(wrong_key("the wrapped key is too long for an HSM"));
        }
        let stored = Stored {
            key_id: wrapped.key_id.clone(),
            mechanism,
            blob: STANDARD.encode(&wrapped.blob),
            iv: wrapped.iv.as_ref().map(|iv| STANDARD.encode(iv)),
        };
        let Response::Unwrapped(SecretText(key)) = self.call(Request::Unwrap(stored)).await? else {
            return Err(unexpected());
        };
        let key = STANDARD.decode(key.expose()).map(SecretBytes::new).ok();
        let key = key.and_then(|key| Key256::from_slice(key.expose()));
        key.ok_or_else(|| wrong_key("the unwrapped key does not have 32 bytes"))
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        match self.call(Request::CurrentKey).await? {
            Response::CurrentKey(id) => Ok(Some(id)),
            _ => Err(unexpected()),
        }
    }

    /// The attempts with its PIN.
    fn counts_attempts(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "pkcs11_tests.rs"]
mod tests;
