//! `operator diagnose`: checks what a start needs, and calls each seal of the configuration. Nothing is created, changed or
//! served.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keepfast_crypto::{compare, random};
use keepfast_framework::Timestamp;
use keepfast_framework::clock::{Clock, SystemClock};
use keepfast_framework::seal::{SealError, SealErrorClass};
use keepfast_storage::{Examined, LocalOptions, examine};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::config::{self, Config, Environment, SealSettings, Storage};
use crate::own_files::own_files;
use crate::preflight::{self, Findings};

/// The least file descriptors without a warning.
const FILE_LIMIT: u64 = 1024;
/// The least free bytes without a warning.
const FREE_BYTES: u64 = 1 << 30;
/// The least free part of the file system without a warning, in percent.
const FREE_PERCENT: u64 = 5;

/// A group of checks that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The listeners.
    Listener,
    /// The data directory.
    Storage,
    /// The calls of seals.
    AutoUnseal,
}

impl Part {
    /// The part of a name of `-skip`.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "listener" => Some(Part::Listener),
            "storage" => Some(Part::Storage),
            "autounseal" => Some(Part::AutoUnseal),
            _ => None,
        }
    }
}

/// The result of a check, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was left out, or there is nothing to check.
    Skipped,
    /// A start needs no change.
    Ok,
    /// A start succeeds, and an operator should look at it.
    Warn,
    /// A start fails, or the server does not unseal.
    Fail,
}

/// A check with its result, and those below it.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// When it ended, in RFC 3339.
    pub time: String,
    /// What is checked.
    pub name: String,
    /// Its result, or the worst one below it.
    pub status: Status,
    /// Its reason, without secrets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do.
    #[serde(rename = "Advice")]
    pub advice: String,
    /// Its time in milliseconds.
    #[serde(skip)]
    pub millis: u128,
    /// Values for a look at the details.
    #[serde(skip)]
    pub details: Vec<String>,
    /// The checks below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Check>,
}

/// The result of all checks.
pub struct Diagnosis {
    /// All checks.
    pub root: Check,
    /// Whether the configuration can be read; nothing else is checked otherwise.
    pub has_configuration: bool,
}

impl Check {
    fn new(name: &str, status: Status, message: impl Into<String>) -> Self {
        Check {
            time: SystemClock.now().rfc3339(),
            name: name.to_owned(),
            status,
            message: message.into(),
            advice: String::new(),
            millis: 0,
            details: Vec::new(),
            children: Vec::new(),
        }
    }

    fn group(name: &str, children: Vec<Check>) -> Self {
        let status = children.iter().map(|child| child.status).max().unwrap_or(Status::Ok);
        Check { children, ..Check::new(name, status, "") }
    }

    fn advised(self, advice: &str) -> Self {
        Check { advice: advice.to_owned(), ..self }
    }

    /// One check for each finding, or a good one.
    fn findings(name: &str, found: Findings, children: Vec<Check>) -> Self {
        let errors = found.errors.into_iter().map(|text| Check::new(name, Status::Fail, text));
        let warnings = found.warnings.into_iter().map(|text| Check::new(name, Status::Warn, text));
        Check::group(name, children.into_iter().chain(errors).chain(warnings).collect())
    }
}

/// Checks a configuration, except for these parts. Needs a Tokio runtime with time and I/O.
pub async fn diagnose(paths: &[PathBuf], environment: &Environment, skipped: &[Part]) -> Diagnosis {
    let began = SystemClock.now();
    let loaded = config::load(paths, environment);
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let parsed = Check::new("Parse Configuration", Status::Fail, error.to_string());
            let root = Check::group("Diagnose", vec![check_system(None), parsed]);
            return Diagnosis { root, has_configuration: false };
        }
    };
    let warnings = warnings.iter().map(|warning| Check::new("Warning", Status::Warn, warning.to_string()));
    let parts = vec![
        check_system(config.storage.path().map(PathBuf::as_path)),
        Check::group("Parse Configuration", warnings.collect()),
        part(skipped, Part::Storage, "Check Storage", || check_storage(&config)),
        part(skipped, Part::Listener, "Check Listeners", || check_listeners(&config, began)),
        check_files(&config, paths),
        match skipped.contains(&Part::AutoUnseal) {
            true => Check::new("Check Autounseal Encryption", Status::Skipped, ""),
            false => check_seals(&config).await,
        },
    ];
    Diagnosis { root: Check::group("Diagnose", parts), has_configuration: true }
}

fn part(skipped: &[Part], part: Part, name: &str, check: impl FnOnce() -> Check) -> Check {
    if skipped.contains(&part) { Check::new(name, Status::Skipped, "") } else { check() }
}

fn check_system(data: Option<&Path>) -> Check {
    let files = getrlimit(Resource::Nofile).maximum;
    let text = files.map_or("no limit".to_owned(), |limit| format!("at most {limit}"));
    let files = match files {
        Some(limit) if limit < FILE_LIMIT => Check::new("Check Open File Limits", Status::Warn, text)
            .advised("Raise the limit of open files: each connection needs one."),
        _ => Check::new("Check Open File Limits", Status::Ok, text),
    };
    Check::group("Check Operating System", std::iter::once(files).chain(data.map(check_space)).collect())
}

/// The free space where the data is, or will be.
fn check_space(data: &Path) -> Check {
    let name = "Check Disk Usage";
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let disk = match rustix::fs::statvfs(existing) {
        Ok(disk) => disk,
        Err(error) => return Check::new(name, Status::Warn, format!("{}: {error}", existing.display())),
    };
    let (free, total) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    let percent = free.saturating_mul(100).checked_div(total).unwrap_or(0);
    let text = format!("{}: {} MiB free, {percent} %", existing.display(), free >> 20);
    // The storage refuses to write with less.
    let reserve = LocalOptions::default().reserve_bytes.min(total / 4);
    match () {
        () if free < reserve => {
            Check::new(name, Status::Fail, text).advised("Free space: the storage refuses to write.")
        }
        () if free < FREE_BYTES || percent < FREE_PERCENT => Check::new(name, Status::Warn, text),
        () => Check::new(name, Status::Ok, text),
    }
}

fn check_storage(config: &Config) -> Check {
    let name = "Check Storage";
    let (path, node_id) = match &config.storage {
        Storage::InMemory => {
            return Check::new(name, Status::Warn, "the data is in memory only: it is lost when the server stops");
        }
        Storage::Raft { path, node_id } => (path, Some(node_id.as_str()).filter(|id| !id.is_empty())),
        Storage::File { path } => (path, None),
    };
    let mut found = Findings::default();
    preflight::check_storage(config, &mut found);
    if !found.errors.is_empty() {
        return Check::findings(name, found, Vec::new());
    }
    Check::group(name, vec![check_permissions(path), open_storage(path, node_id)])
}

fn check_permissions(path: &Path) -> Check {
    let name = "Check Folder Permissions";
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::new(name, Status::Ok, format!("{}: the first start creates it", path.display()));
        }
        Err(error) => return Check::new(name, Status::Fail, format!("{}: {error}", path.display())),
    };
    let (mode, own) = (metadata.permissions().mode() & 0o777, rustix::process::geteuid());
    let text = format!("{}: mode {mode:04o}, of user {}", path.display(), metadata.uid());
    if metadata.uid() != own.as_raw() {
        return Check::new(name, Status::Warn, text)
            .advised("Run this command as the user of the server, and let that user own the folder.");
    }
    match mode & 0o077 {
        0 => Check::new(name, Status::Ok, text),
        _ => Check::new(name, Status::Warn, format!("too many permissions: {text}"))
            .advised("Set the mode to 0700; the server does so when it starts."),
    }
}

fn open_storage(path: &Path, node_id: Option<&str>) -> Check {
    let name = "Open Storage";
    match examine(path, node_id) {
        Ok(Examined::New) => Check::new(name, Status::Ok, "it is empty: the first start creates it"),
        Ok(Examined::Closed) => Check::new(name, Status::Ok, "it can be opened"),
        Ok(Examined::NotClosed) => Check::new(name, Status::Ok, "the next start finishes what a stop has left"),
        Ok(Examined::InUse) => Check::new(name, Status::Warn, "a running server uses it, and it was not opened"),
        Ok(Examined::Earlier) => Check::new(name, Status::Warn, "the next start upgrades it, for good")
            .advised("Save a snapshot before, or see \"operator storage downgrade\"."),
        Err(error) => Check::new(name, Status::Fail, error.to_string()),
    }
}

fn check_listeners(config: &Config, now: Timestamp) -> Check {
    let mut found = Findings::default();
    preflight::check_listeners(config, now, &mut found);
    let tls = config.listeners.iter().map(|listener| {
        let (name, address) = ("Check Listener TLS", listener.address());
        match (&listener.tls, listener.kind()) {
            (Some(tls), _) => Check::new(name, Status::Ok, format!("{address}: {}", tls.cert_file.display())),
            (None, "unix") => Check::new(name, Status::Ok, format!("{address}: a unix socket without TLS")),
            (None, _) => Check::new(name, Status::Warn, format!("{address}: TLS is disabled")),
        }
    });
    let tls = tls.collect();
    let mut listeners = Check::findings("Check Listeners", found, tls);
    if !listeners.children.iter().any(|check| check.status == Status::Fail) {
        listeners.children.push(Check::new("Create Listeners", Status::Ok, "the addresses can be bound"));
    }
    listeners
}

fn check_files(config: &Config, paths: &[PathBuf]) -> Check {
    let mut found = Findings::default();
    preflight::check_files(config, own_files(config, paths), &mut found);
    Check::findings("Check Files and Audit Devices", found, Vec::new())
}

/// Wraps and unwraps a random key with each seal.
async fn check_seals(config: &Config) -> Check {
    let name = "Check Autounseal Encryption";
    if config.seals.is_empty() {
        return Check::new(name, Status::Skipped, "there is no seal: the unseal keys unseal");
    }
    let checks = futures_util::future::join_all(config.seals.iter().map(check_seal)).await;
    // One seal that works unseals.
    let mut all = Check::group(name, checks);
    if all.children.iter().any(|check| check.status == Status::Ok) && all.status == Status::Fail {
        all.status = Status::Warn;
        for check in all.children.iter_mut().filter(|check| check.status == Status::Fail) {
            check.status = Status::Warn;
        }
    }
    all
}

async fn check_seal(seal: &SealSettings) -> Check {
    let name = format!("Check Seal {:?} ({})", seal.name, seal.seal.kind());
    let details = seal.seal.description().into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let began = SystemClock.now();
    let called = tokio::time::timeout(seal.timing.timeout.saturating_mul(2), wrap_and_unwrap(seal)).await;
    let millis = SystemClock.now().since(began).as_millis();
    let slow = || SealError::new(SealErrorClass::Unreachable, "the calls took too long");
    let check = match called.unwrap_or_else(|_| Err(slow())) {
        Ok(key) if seal.disabled => Check::new(&name, Status::Ok, format!("it is disabled; it wraps under {key}")),
        Ok(key) => Check::new(&name, Status::Ok, format!("it wraps under {key}")),
        // A disabled seal only unwraps: that it may not wrap is no fault.
        Err(error) => {
            let status = if seal.disabled { Status::Warn } else { Status::Fail };
            Check::new(&name, status, error.to_string()).advised(advice(error.class))
        }
    };
    Check { millis, details, ..check }
}

async fn wrap_and_unwrap(seal: &SealSettings) -> Result<String, SealError> {
    let key = random::key();
    let wrapped = seal.seal.wrap(&key).await?;
    let read = seal.seal.unwrap(&wrapped).await?;
    if !compare::equal(read.expose(), key.expose()) {
        return Err(SealError::new(SealErrorClass::WrongKey, "the wrapped key does not unwrap to the same key"));
    }
    Ok(wrapped.key_id)
}

fn advice(class: SealErrorClass) -> &'static str {
    match class {
        SealErrorClass::Unreachable => {
            "Check the address, the network, name resolution and TLS, or the file of the key."
        }
        SealErrorClass::Throttled(_) => "The service limits requests: try again later.",
        SealErrorClass::Denied => "Check the credentials, and that they may wrap and unwrap.",
        SealErrorClass::WrongKey => "Check that the key exists and is enabled.",
        SealErrorClass::Misconfigured => "Check the stanza.",
        SealErrorClass::Crashed => "Check the library of the HSM.",
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
