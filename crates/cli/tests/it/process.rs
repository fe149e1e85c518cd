//! The server as a process: notifications to systemd, signals, the log file, and `-dev-json`.

#![allow(clippy::disallowed_methods, reason = "the program uses the system clock")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_keepfast");

/// The timeout of every wait of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A server that is killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// The lines of its log.
    log: Receiver<String>,
}

impl Process {
    pub(crate) fn start(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = channel();
        let read = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || read.map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Process { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The next line of the log that contains `text`.
    pub(crate) fn logged(&self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|error| panic!("{text:?} is not logged: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < end, "the server does not end"),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service manager's end of sd_notify(3).
struct ServiceManager(UnixDatagram);

impl ServiceManager {
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[test]
fn systemd_is_notified_and_signals_do_not_end_the_server() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("notify");
    let manager = ServiceManager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(LIMIT)).unwrap();
    let (config, data, logs) = (home.path().join("c.hcl"), home.path().join("data"), home.path().join("logs"));
    let text = |level: &str| {
        format!(
            "storage \"file\" {{\n  path = \"{}\"\n}}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}}\n\
             disable_mlock = true\nlog_level = \"{level}\"\nlog_file = \"{}/\"\n",
            data.display(),
            logs.display()
        )
    };
    std::fs::write(&config, text("info")).unwrap();
    let arguments = ["server", &format!("-config={}", config.display())];
    let mut server = Process::start(home.path(), &arguments, &[("NOTIFY_SOCKET", socket.to_str().unwrap())]);
    assert!(manager.next().starts_with("READY=1\n"));
    let listening = server.logged("[INFO]  server: listening");
    let address = listening.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    server.logged("[INFO]  server: the server is not initialized");
    let refused = Command::new(PROGRAM)
        .args(["read", "secret/x"])
        .env_clear()
        .env("HOME", home.path())
        .envs([("VAULT_ADDR", format!("http://{address}").as_str()), ("VAULT_TOKEN", "x")])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sealed"), "{refused:?}");
    std::fs::rename(logs.join("keepfast.log"), logs.join("keepfast.log.1")).unwrap();
    server.signal(Signal::HUP);
    let reloading = manager.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading:?}");
    assert!(manager.next().starts_with("READY=1\n"));
    server.signal(Signal::USR1);
    server.logged("SIGUSR1 has no effect");
    // The server may notice later that the client has closed its connection.
    let end = Instant::now() + LIMIT;
    let state = loop {
        server.signal(Signal::USR2);
        let state = server.logged("state of the server");
        if state.contains("connections=0") {
            break state;
        }
        assert!(Instant::now() < end, "a connection stays: {state}");
    };
    for part in ["version=", "uptime_seconds=", "sealed=true", "tasks=", "core.in_flight_requests"] {
        assert!(state.contains(part), "{part}: {state}");
    }
    std::fs::write(&config, text("warn")).unwrap();
    server.signal(Signal::HUP);
    assert!(manager.next().starts_with("RELOADING=1"));
    assert!(manager.next().starts_with("READY=1\n"));
    server.signal(Signal::TERM);
    assert!(manager.next().starts_with("STOPPING=1"));
    assert!(server.end().success());
    let old = std::fs::read_to_string(logs.join("keepfast.log.1")).unwrap();
    let new = std::fs::read_to_string(logs.join("keepfast.log")).unwrap();
    assert!(old.contains("starting") && !old.contains("state of the server"), "{old}");
    assert!(new.contains("state of the server"), "{new}");
    assert!(
        !old.contains("[ERROR]") && !new.contains("[ERROR]"),
        "a request to a sealed server logs no error: {old}{new}"
    );
}

#[test]
fn the_systemd_unit_notifies_and_is_sandboxed() {
    let unit = include_str!("../../../../dist/systemd/keepfast.service");
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "AmbientCapabilities=CAP_IPC_LOCK",
        "CapabilityBoundingSet=CAP_IPC_LOCK",
        "LimitMEMLOCK=infinity",
        "LimitCORE=0",
        "SystemCallFilter=@system-service @memlock",
        "SystemCallArchitectures=native",
        "RestrictNamespaces=yes",
        "MemoryDenyWriteExecute=yes",
        "TimeoutStopSec=30",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    assert!(unit.contains("ExecStartPre=/usr/bin/keepfast server -verify-only -config="));
}

#[test]
fn dev_json_prints_one_line_with_the_bound_port() {
    let home = tempfile::tempdir().unwrap();
    let flags = ["server", "-dev", "-dev-json", "-dev-no-store-token", "-dev-listen-address=127.0.0.1:0"];
    let mut server = Process::start(home.path(), &flags, &[]);
    let mut out = BufReader::new(server.child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (address, token) = (ready["address"].as_str().unwrap(), ready["root_token"].as_str().unwrap());
    assert!(!address.ends_with(":0") && ready["unseal_key"].is_string(), "{ready}");
    let lookup = Command::new(PROGRAM)
        .args(["token", "lookup", "-field=policies"])
        .env_clear()
        .env("HOME", home.path())
        .envs([("VAULT_ADDR", address), ("VAULT_TOKEN", token)])
        .output()
        .unwrap();
    assert!(lookup.status.success() && lookup.stdout.starts_with(b"[root]"), "{lookup:?}");
    server.signal(Signal::INT);
    assert!(server.end().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn verify_only_checks_what_a_start_needs() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("c.hcl");
    let verify = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let flag = format!("-config={}", config.display());
        let done = Command::new(PROGRAM).args(["server", "-verify-only", &flag]).env_clear().output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let listener = "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}\n";
    assert_eq!(verify(&format!("storage \"inmem\" {{}}\n{listener}")), (Some(0), String::new()));
    let (code, text) = verify("storage \"inmem\" {}\nlistner \"tcp\" { tls_disable = true }\n");
    assert!(code == Some(1) && text.contains("did you mean \"listener\"?"), "{text}");
    let shared = home.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    let socket = format!("listener \"unix\" {{\n  address = \"{}/s\"\n}}\n", shared.display());
    let (code, text) = verify(&format!("storage \"inmem\" {{}}\n{socket}"));
    assert!(code == Some(1) && text.contains("can be written by every user"), "{text}");
    let (code, text) = verify(&format!("storage \"inmem\" {{}}\n{listener}pid_file = \"/nonexistent/pid\"\n"));
    assert!(code == Some(1) && text.contains("pid_file: /nonexistent"), "{text}");
}
