//! Checks the resources that a start needs beyond the text of the configuration: files, directories, certificates,
//! addresses. Used by `operator validate-config` and `server -verify-only`, without creating, changing or serving
//! anything.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use keepfast_core::audit::AllowedTargets;
use keepfast_core::audit::{self, OwnFiles};
use keepfast_edge::{Tls, candidates, check_directory, group_id, user_id};
use keepfast_framework::Timestamp;
use rustix::fs::Access;
use tokio::net::TcpSocket;

use crate::config::{self, Bind, Config, ListenerConfig};
use crate::log_file::LogFile;

/// The longest path of a unix socket in bytes (unix(7)): 108 with the final zero.
const MAX_SOCKET_PATH: usize = 107;

/// The results of the check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The reasons why the server would not start.
    pub(crate) errors: Vec<String>,
    /// Problems that do not prevent the start.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    fn note(&mut self, what: &str, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.errors.push(format!("{what}: {reason}"));
        }
    }
}

/// Checks everything, so that one run reports all errors.
pub(crate) fn check(config: &Config, own_files: OwnFiles, now: Timestamp) -> Findings {
    let mut findings = Findings::default();
    check_listeners(config, now, &mut findings);
    check_storage(config, &mut findings);
    check_files(config, own_files, &mut findings);
    findings
}

/// Checks addresses, sockets and certificates.
pub(crate) fn check_listeners(config: &Config, now: Timestamp, findings: &mut Findings) {
    let mut seen = HashSet::new();
    for listener in &config.listeners {
        let address = listener.address();
        let what = format!("listener {} {address:?}", listener.kind());
        if !seen.insert(address.clone()) && !address.ends_with(":0") {
            findings.errors.push(format!("{what}: another listener has the same address"));
        }
        match &listener.bind {
            Bind::Tcp(address) => check_tcp(&what, address, findings),
            Bind::Unix { path, user, group, .. } => {
                findings.note(&what, check_unix(path, user.as_deref(), group.as_deref()));
            }
        }
        check_certificate(&what, listener, now, findings);
    }
    for address in config.cluster_bind_addresses() {
        let what = format!("cluster_address {address:?}");
        if !seen.insert(address.clone()) && !address.ends_with(":0") {
            findings.errors.push(format!("{what}: a listener has the same address"));
        }
        check_tcp(&what, &address, findings);
    }
}

/// Checks that the directory of the data can be used or created.
pub(crate) fn check_storage(config: &Config, findings: &mut Findings) {
    if let Some(path) = config.storage.path() {
        findings.note("storage path", is_creatable_directory(path));
    }
}

/// Checks the other files and directories, the audit devices, and what the `initialize` stanzas need.
pub(crate) fn check_files(config: &Config, own_files: OwnFiles, findings: &mut Findings) {
    if let Some(snapshots) = &config.snapshots {
        findings.note("snapshots directory", is_creatable_directory(&snapshots.directory));
    }
    if let Some(log_file) = &config.log_file {
        findings.note("log_file", is_writable_file(&LogFile::path(log_file), true));
    }
    if let Some(pid_file) = &config.pid_file {
        findings.note("pid_file", is_writable_file(pid_file, false));
    }
    let allowed = AllowedTargets::declared(&Arc::new(own_files));
    for device in &config.audit {
        findings.errors.extend(audit::target::check(device, &allowed).err().map(|error| error.to_string()));
    }
    check_self_init(config, findings);
}

/// What the `initialize` stanzas need. It is needed at the first start only, so nothing of it is an error.
fn check_self_init(config: &Config, findings: &mut Findings) {
    if config.self_init.is_empty() {
        return;
    }
    if !config::initializes_itself(config) {
        findings.warnings.push("initialize has no effect on a node with retry_join: it joins".to_owned());
        return;
    }
    let missing = config.self_init.missing();
    findings.warnings.extend(missing.into_iter().map(|what| format!("initialize: {what}; the first start needs it")));
}

fn check_tcp(what: &str, address: &str, findings: &mut Findings) {
    let found = match candidates(address) {
        Ok(found) => found,
        Err(error) => {
            findings.errors.push(format!("{what}: the host cannot be resolved: {error}"));
            return;
        }
    };
    let bind = |address: &std::net::SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(*address)
    };
    let mut last = None;
    for candidate in &found {
        match bind(candidate) {
            Ok(()) => return,
            Err(error) => last = Some(error),
        }
    }
    match last {
        // The new configuration of a running server is checked before its restart.
        Some(error) if error.kind() == io::ErrorKind::AddrInUse => {
            findings.warnings.push(format!("{what}: the address is in use, perhaps by the running server"));
        }
        Some(error) => findings.errors.push(format!("{what}: {error}")),
        None => findings.errors.push(format!("{what}: the host has no address")),
    }
}

fn check_unix(path: &Path, user: Option<&str>, group: Option<&str>) -> Result<(), String> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(format!("the path is longer than {MAX_SOCKET_PATH} bytes"));
    }
    user.map(user_id).transpose().map_err(|error| format!("socket_user: {error}"))?;
    group.map(group_id).transpose().map_err(|error| format!("socket_group: {error}"))?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err("there is something else than a socket".into()),
        _ => {
            is_writable_directory(parent(path))?;
            check_directory(parent(path)).map_err(|error| error.to_string())
        }
    }
}

fn check_certificate(what: &str, listener: &ListenerConfig, now: Timestamp, findings: &mut Findings) {
    let Some(files) = &listener.tls else { return };
    match Tls::load(files) {
        Ok(tls) => findings.warnings.extend(tls.date_warning(now).map(|warning| format!("{what}: {warning}"))),
        Err(error) => findings.errors.push(format!("{what}: {error}")),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_writable_directory(path: &Path) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| at(&error))?;
    if !metadata.is_dir() {
        return Err(at(&"not a directory"));
    }
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| at(&io::Error::from(error)))
}

/// An existing directory, or one that the server can create with its missing parents.
fn is_creatable_directory(path: &Path) -> Result<(), String> {
    match path.ancestors().find(|ancestor| ancestor.as_os_str().is_empty() || ancestor.exists()) {
        Some(existing) if !existing.as_os_str().is_empty() => is_writable_directory(existing),
        _ => is_writable_directory(Path::new(".")),
    }
}

/// A file that can be appended to or created; with its directories where the server creates those.
fn is_writable_file(path: &Path, creates_directories: bool) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(at(&"is a directory")),
        Ok(_) => rustix::fs::access(path, Access::WRITE_OK).map_err(|error| at(&io::Error::from(error))),
        Err(_) if creates_directories => is_creatable_directory(parent(path)),
        Err(_) => is_writable_directory(parent(path)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use keepfast_core::settings::AuditSettings;

    use crate::config::{ClientCertificates, Storage, TlsConfig};
    use crate::own_files::own_files;
    use keepfast_edge::development;

    const NOW: Timestamp = Timestamp::from_unix(1_796_000_000);

    fn findings(change: impl FnOnce(&mut Config)) -> Findings {
        let mut config = Config { listeners: vec![ListenerConfig::plain("127.0.0.1:0")], ..Config::default() };
        change(&mut config);
        check(&config, own_files(&config, &[]), NOW)
    }

    fn one_error(change: impl FnOnce(&mut Config)) -> String {
        let found = findings(change);
        assert_eq!(found.errors.len(), 1, "{found:?}");
        found.errors[0].clone()
    }

    fn with_tls(cert_file: PathBuf, key_file: PathBuf) -> ListenerConfig {
        let clients = ClientCertificates::Requested;
        let tls = TlsConfig { cert_file, key_file, tls12: true, tls13: true, clients };
        ListenerConfig { tls: Some(tls), ..ListenerConfig::plain("127.0.0.1:0") }
    }

    #[test]
    fn certificate_and_key_must_exist_and_match_and_dates_warn() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = development::write(one.path(), vec!["localhost".into()]).map(|f| (f, one)).unwrap();
        let other = development::write(other.path(), vec!["localhost".into()]).map(|f| (f, other)).unwrap();
        let good = with_tls(one.0.cert.clone(), one.0.key.clone());
        assert_eq!(findings(|c| c.listeners = vec![good.clone()]), Findings::default());
        let swapped = with_tls(one.0.cert.clone(), other.0.key.clone());
        assert!(one_error(|c| c.listeners = vec![swapped]).contains("vault-cert.pem"));
        let missing = with_tls("/nonexistent/cert.pem".into(), one.0.key.clone());
        assert!(one_error(|c| c.listeners = vec![missing]).contains("/nonexistent/cert.pem"));
        let no_key = with_tls(one.0.cert.clone(), one.0.cert.clone());
        assert!(one_error(|c| c.listeners = vec![no_key]).contains("no private key"));
        let mut dated = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        (dated.not_before, dated.not_after) = (rcgen::date_time_ymd(2024, 1, 1), rcgen::date_time_ymd(2025, 1, 1));
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&one.0.cert, dated.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&one.0.key, key.serialize_pem()).unwrap();
        let config = Config { listeners: vec![good], ..Config::default() };
        let warning =
            |now: &str| check(&config, OwnFiles::default(), Timestamp::parse_rfc3339(now).unwrap()).warnings.join(" ");
        assert!(warning("2025-06-01T00:00:00Z").ends_with("vault-cert.pem expired at 2025-01-01T00:00:00Z"));
        assert!(warning("2023-06-01T00:00:00Z").ends_with("is not valid before 2024-01-01T00:00:00Z"));
        assert_eq!(warning("2024-06-01T00:00:00Z"), "");
    }

    #[test]
    fn directories_and_files_must_be_writable_or_creatable() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let below = |name: &str| dir.path().join(name);
        let clean = findings(|c| {
            c.storage = Storage::File { path: below("new/data") };
            c.log_file = Some(below("logs/"));
            c.pid_file = Some(below("pid"));
        });
        assert_eq!(clean, Findings::default());
        assert!(!below("new").exists() && !below("logs").exists() && !below("pid").exists(), "nothing is created");
        assert!(one_error(|c| c.storage = Storage::File { path: below("file") }).contains("storage path: "));
        assert!(one_error(|c| c.storage = Storage::File { path: below("file/data") }).contains("not a directory"));
        assert!(one_error(|c| c.log_file = Some(below("file/x.log"))).contains("log_file: "));
        assert!(one_error(|c| c.pid_file = Some(below("missing/pid"))).contains("pid_file: "));
        assert!(one_error(|c| c.pid_file = Some(dir.path().to_owned())).contains("is a directory"));
    }

    #[test]
    fn sec_kf45_an_audit_device_on_a_file_of_the_server_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let below = |name: &str| dir.path().join(name);
        let device = |path: PathBuf| AuditSettings {
            device: "file".into(),
            name: "log".into(),
            description: String::new(),
            options: [("file_path".to_owned(), path.display().to_string())].into(),
        };
        for (path, what) in
            [("data/log", "storage"), ("pid", "pid_file"), ("keepfast.log", "log_file"), ("s", "listener")]
        {
            let bind = Bind::Unix { path: below("s"), mode: None, user: None, group: None };
            let error = one_error(|c| {
                c.listeners = vec![ListenerConfig { bind, ..ListenerConfig::plain("") }];
                c.storage = Storage::File { path: below("data") };
                c.pid_file = Some(below("pid"));
                c.log_file = Some(below("keepfast.log"));
                c.audit = vec![device(below(path))];
            });
            assert!(error.contains(what), "{path}: {error}");
        }
    }

    #[test]
    fn addresses_must_be_bindable_and_a_used_one_warns() {
        let tcp = |address: &str| vec![ListenerConfig::plain(address)];
        // No interface has this scope, so no machine can bind the address, whatever its routes and `ip_nonlocal_bind`
        // are.
        let unbindable = one_error(|c| c.listeners = tcp("[fe80::1%4294967294]:8200"));
        assert!(unbindable.contains("os error"), "{unbindable}");
        // A label has at most 63 bytes, so the resolver refuses the name without a query to a name server.
        let long = format!("{}.invalid:8200", "x".repeat(64));
        assert!(one_error(|c| c.listeners = tcp(&long)).contains("cannot be resolved"));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let used = findings(|c| c.listeners = tcp(&address));
        assert!(used.errors.is_empty() && used.warnings[0].contains("is in use"), "{used:?}");
        drop(taken);
        let twice = [tcp(&address), tcp(&address)].concat();
        let of_cluster = one_error(|c| {
            c.storage = Storage::Raft { path: std::env::temp_dir().join("none"), node_id: String::new() };
            c.listeners = tcp("127.0.0.1:0");
            c.cluster_addresses = vec![Some("[fe80::1%4294967294]:8201".to_owned())];
        });
        assert!(of_cluster.starts_with("cluster_address") && of_cluster.contains("os error"), "{of_cluster}");
        assert!(one_error(|c| c.listeners = twice).contains("another listener has the same address"));
    }

    #[test]
    fn sockets_need_a_directory_a_short_path_and_known_owners() {
        let dir = tempfile::tempdir().unwrap();
        let unix = |path: PathBuf, user: Option<&str>| {
            let bind = Bind::Unix { path, mode: None, user: user.map(str::to_owned), group: None };
            vec![ListenerConfig { bind, ..ListenerConfig::plain("") }]
        };
        assert_eq!(findings(|c| c.listeners = unix(dir.path().join("s"), Some("root"))), Findings::default());
        assert!(one_error(|c| c.listeners = unix(dir.path().join("no/s"), None)).contains("No such file"));
        assert!(one_error(|c| c.listeners = unix(dir.path().join("x".repeat(120)), None)).contains("longer than 107"));
        assert!(one_error(|c| c.listeners = unix(dir.path().join("s"), Some("no-such-user"))).contains("socket_user"));
        std::fs::write(dir.path().join("s"), "").unwrap();
        assert!(one_error(|c| c.listeners = unix(dir.path().join("s"), None)).contains("something else"));
    }

    #[test]
    fn sec_kf28_the_check_of_a_socket_directory_equals_that_of_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        let unix = || {
            let bind = Bind::Unix { path: shared.join("s"), mode: None, user: None, group: None };
            vec![ListenerConfig { bind, ..ListenerConfig::plain("") }]
        };
        let set_mode = |mode| std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
        set_mode(0o777);
        assert!(one_error(|c| c.listeners = unix()).contains("can be written by every user"));
        for mode in [0o1777, 0o770] {
            set_mode(mode);
            assert_eq!(findings(|c| c.listeners = unix()), Findings::default(), "{mode:o}");
        }
    }
}
