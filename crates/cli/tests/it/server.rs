//! A server for tests, and runs of the command line against it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepfast");
const OWN_TOKEN: &str = "test-root";
const ANY_PORT: &str = "-dev-listen-address=127.0.0.1:0";

/// A server and a home directory, both removed when dropped (except a server of the environment).
pub(crate) struct Server {
    address: String,
    token: String,
    home: tempfile::TempDir,
    child: Option<Child>,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Server {
    /// The server of the environment, else a new development server.
    pub(crate) fn find() -> Self {
        let home = tempfile::tempdir().unwrap();
        let variable = |name: &str| std::env::var(name).ok();
        if let Some(address) = variable("KEEPFAST_TEST_SERVER_ADDR") {
            let token = variable("KEEPFAST_TEST_SERVER_TOKEN")
                .expect("KEEPFAST_TEST_SERVER_TOKEN goes with KEEPFAST_TEST_SERVER_ADDR");
            return Self { address, token, home, child: None };
        }
        Self::start(home)
    }

    /// An uninitialized Keepfast server with storage on disk; never the server of the environment.
    pub(crate) fn fresh() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.hcl");
        let storage = format!("storage \"file\" {{\n  path = \"{}\"\n}}\n", home.path().join("data").display());
        let listener = "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}\n";
        std::fs::write(&config, storage + listener + "disable_mlock = true\n").unwrap();
        let flag = format!("-config={}", config.display());
        let (child, address) = spawn(&home, &["server", &flag], "==> Keepfast server started!");
        Self { address, token: String::new(), home, child: Some(child) }
    }

    /// A Keepfast development server with TLS, and the path of its CA certificate; never the server of the environment.
    pub(crate) fn with_tls() -> (Self, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("tls");
        std::fs::create_dir(&directory).unwrap();
        let flags = [
            "server".to_owned(),
            "-dev-tls".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-root-token-id={OWN_TOKEN}"),
            ANY_PORT.to_owned(),
            format!("-dev-tls-cert-dir={}", directory.display()),
        ];
        let (child, address) = spawn(&home, &flags.each_ref().map(String::as_str), "Root Token:");
        let authority = directory.join("vault-ca.pem");
        (Self { address, token: OWN_TOKEN.to_owned(), home, child: Some(child) }, authority)
    }

    /// Any server at an address, with its own home directory.
    pub(crate) fn at(address: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { address: address.to_owned(), token: OWN_TOKEN.to_owned(), home, child: None }
    }

    fn start(home: tempfile::TempDir) -> Self {
        let token = format!("-dev-root-token-id={OWN_TOKEN}");
        let (child, address) =
            spawn(&home, &["server", "-dev", "-dev-no-store-token", &token, ANY_PORT], "Root Token:");
        Self { address, token: OWN_TOKEN.to_owned(), home, child: Some(child) }
    }

    /// Whether this is the server of the environment, which may be OpenBao.
    pub(crate) fn is_given(&self) -> bool {
        self.child.is_none()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a command with the root token.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, &[("VAULT_TOKEN", &self.token)], "")
    }

    /// Runs a command that must succeed, and returns its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done.stdout
    }

    /// Runs a command that must fail with this exit code and this text on stderr.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32, text: &str) {
        let done = self.run(arguments);
        assert!(
            done.code == code && done.stderr.contains(text),
            "{arguments:?} should fail with {code} and {text:?}: {done:?}"
        );
    }

    /// Runs a command with these variables and this stdin.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)], stdin: &str) -> Done {
        self.run_program(Path::new(PROGRAM), arguments, variables, stdin)
    }

    /// A link to the program with the name `vault`.
    pub(crate) fn named_vault(&self) -> PathBuf {
        let path = self.home().join("vault");
        symlink(PROGRAM, &path).unwrap();
        path
    }

    pub(crate) fn run_program(
        &self,
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        stdin: &str,
    ) -> Done {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home())
            .env("VAULT_ADDR", &self.address)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its stdin closes it, which is not an error here.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// A new KV engine of a version, at a unique path.
    pub(crate) fn kv(&self, version: u8) -> String {
        let path = unique("kv");
        self.ok(&["secrets", "enable", &format!("-path={path}"), &format!("-version={version}"), "kv"]);
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the program and waits for the line `ready`. Also returns its URL from the banner.
fn spawn(home: &tempfile::TempDir, arguments: &[&str], ready: &str) -> (Child, String) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env("HOME", home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut banner = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut address) = (String::new(), None);
    while !line.starts_with(ready) {
        line.clear();
        assert_ne!(banner.read_line(&mut line).unwrap(), 0, "the server ended before it was ready");
        address = line.trim().strip_prefix("Api Address: ").map(str::to_owned).or(address);
    }
    std::thread::spawn(move || std::io::copy(&mut banner, &mut std::io::sink()));
    (child, address.expect("the banner shows the address"))
}

/// A name that no other test and no other run uses.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("it-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The text with its times replaced, so that all of it can be compared.
pub(crate) fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("20") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = from.find(|c: char| !c.is_ascii_digit() && !"-:.TZ".contains(c)).unwrap_or(from.len());
        if end >= "2026-01-01T00:00:00Z".len() && from[..end].ends_with('Z') {
            out.push_str("<time>");
            rest = &from[end..];
        } else {
            out.push_str("20");
            rest = &from[2..];
        }
    }
    out + rest
}
