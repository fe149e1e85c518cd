//! Real servers on loopback, each in a directory of its own that the test removes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::suite::{Kit, Session};

/// A program of a Debian package; `None`, with a message, if it is missing and not required: `cargo xtask test`
/// installs the packages and requires them.
pub(super) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    let more = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    let found = folders.iter().chain(&more).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.or_else(|| missing(package))
}

fn missing<T>(package: &str) -> Option<T> {
    assert!(std::env::var_os("KEEPFAST_SERVERS").is_none(), "the Debian package {package} is not installed");
    eprintln!("skipped: the Debian package {package} is not installed");
    None
}

/// A free port of loopback. It is below the range of ports for outgoing connections, and each call in a process returns
/// another one.
pub(super) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let next = || FIRST + start.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let mut ports = (0..COUNT).filter_map(|_| u16::try_from(next()).ok());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no port is free")
}

/// Retries until the result is `Ok`; panics with the last error after a minute.
#[allow(clippy::disallowed_methods, reason = "it waits for another program")]
pub(super) fn retried<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "{what}: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Waits until a condition holds; panics after a minute.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    retried(what, || if holds() { Ok(()) } else { Err("not within a minute".to_owned()) });
}

/// Panics if a program has ended, for example because its port was taken.
pub(super) fn assert_running(child: &mut Child, name: &str) {
    if let Some(status) = child.try_wait().unwrap() {
        panic!("{name} ended with {status}");
    }
}

/// Changes the owner of a directory to the user of a server that refuses to run as root.
pub(super) fn hand_over(directory: &Path, user: &str) {
    if is_root() {
        assert!(Command::new("chown").args(["-R", user]).arg(directory).status().unwrap().success());
    }
}

pub(super) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// A self-signed certificate for 127.0.0.1 that is not trusted yet, and its key, as files.
pub(in crate::secrets::database) fn certify(directory: &Path) -> [PathBuf; 2] {
    let [certificate, key] = ["server.crt", "server.key"].map(|name| directory.join(name));
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1"];
    let done = Command::new("openssl")
        .args(kind)
        .args(names)
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    [certificate, key]
}

/// The output of a program, or its error.
pub(super) fn answer(command: &mut Command) -> Result<String, String> {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// A PostgreSQL server of Debian's package, with SCRAM.
pub(super) struct PostgresServer {
    pub(super) port: u16,
    /// Its self-signed certificate, if it has one.
    pub(super) certificate: String,
    bin: PathBuf,
    directory: tempfile::TempDir,
}

impl PostgresServer {
    pub(super) const ADMIN: &'static str = "vault_admin";
    pub(super) const PASSWORD: &'static str = "admin_password";

    /// Starts a server with a table `orders`; `None`, with a message, if the package is missing and not required.
    pub(super) fn start() -> Option<Self> {
        Self::begin(false)
    }

    /// The same with TLS and a certificate that is not trusted yet.
    pub(super) fn start_with_tls() -> Option<Self> {
        Self::begin(true)
    }

    fn begin(tls: bool) -> Option<Self> {
        let versions = (13..30).rev().map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin")));
        let bin = versions.into_iter().find(|p| p.join("initdb").exists()).or_else(|| missing("postgresql"))?;
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut server = PostgresServer { port, certificate: String::new(), bin, directory };
        let file = server.path("password");
        std::fs::write(&file, Self::PASSWORD).unwrap();
        let pair = tls.then(|| certify(server.directory.path()));
        hand_over(server.directory.path(), "postgres");
        let (data, log) = (server.path("data"), server.path("log"));
        let password = format!("--pwfile={}", file.display());
        server
            .tool("initdb", &["-D", data.to_str().unwrap(), "-U", Self::ADMIN, &password, "-A", "scram-sha-256", "-N"]);
        let mut options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off");
        if let Some([certificate, key]) = pair {
            server.certificate = std::fs::read_to_string(&certificate).unwrap();
            options +=
                &format!(" -c ssl=on -c ssl_cert_file={} -c ssl_key_file={}", certificate.display(), key.display());
        }
        server.tool(
            "pg_ctl",
            &["-D", data.to_str().unwrap(), "-o", &options, "-l", log.to_str().unwrap(), "-w", "start"],
        );
        server.admin("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea')");
        Some(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        let mut command = as_postgres(&self.bin.join(name), self.directory.path());
        let done = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "{name} failed; see {}", self.path("log").display());
    }

    fn psql(&self, statement: &str, user: &str, password: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-Atqc", statement]);
        command.env("PGUSER", user).env("PGPASSWORD", password).env("PGCLIENTENCODING", "UTF8");
        command
    }

    /// The result of a statement, or its error.
    pub(super) fn sql(&self, statement: &str, user: &str, password: &str) -> Result<String, String> {
        answer(&mut self.psql(statement, user, password))
    }

    /// The same as the administrator; panics on errors.
    pub(super) fn admin(&self, statement: &str) -> String {
        self.sql(statement, Self::ADMIN, Self::PASSWORD).unwrap()
    }

    /// Trusts a CA: all users but the administrator must log in with a certificate of it.
    pub(super) fn ask_for_certificates(&self, authority: &Path) {
        let trusted = self.path("authority.crt");
        std::fs::copy(authority, &trusted).unwrap();
        hand_over(&trusted, "postgres");
        let administrator = format!("host all {} 127.0.0.1/32 scram-sha-256", Self::ADMIN);
        std::fs::write(self.path("data/pg_hba.conf"), format!("{administrator}\nhostssl all all 127.0.0.1/32 cert\n"))
            .unwrap();
        self.admin(&format!("ALTER SYSTEM SET ssl_ca_file = {}", literal(trusted.to_str().unwrap())));
        self.admin("SELECT pg_reload_conf()");
        wait_until("the authority is loaded", || !self.admin("SHOW ssl_ca_file").is_empty());
    }

    /// Lets a user log in with any password.
    pub(super) fn trust(&self, user: &str) {
        self.prepend_rule(&format!("host all {user} 127.0.0.1/32 trust"));
        retried("the user is trusted", || self.sql("SELECT 1", user, "not-the-password"));
    }

    /// Refuses logins of a user.
    pub(super) fn reject(&self, user: &str) {
        self.prepend_rule(&format!("host all {user} 127.0.0.1/32 reject"));
        self.wait_for_rejection(user);
    }

    /// Lets all users log in with their passwords.
    pub(super) fn accept_all(&self) {
        self.prepend_rule("host all all 127.0.0.1/32 scram-sha-256");
        self.prepend_rule("host all probe 127.0.0.1/32 trust");
        // A rule without a role: the error changes with the reload.
        self.wait_for_rejection("probe");
    }

    /// Waits until a login fails for a reason other than its password.
    fn wait_for_rejection(&self, user: &str) {
        let refused = || self.sql("SELECT 1", user, "").expect_err("the user cannot log in");
        wait_until("the rules are loaded", || !refused().contains("password"));
    }

    fn prepend_rule(&self, rule: &str) {
        let path = self.path("data/pg_hba.conf");
        let rules = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{rule}\n{rules}")).unwrap();
        self.admin("SELECT pg_reload_conf()");
    }

    /// The result of a statement after a login with a certificate, `NAME.crt` and `NAME.key` in a directory.
    pub(super) fn sql_with(&self, statement: &str, user: &str, login: (&Path, &str)) -> Result<String, String> {
        let mut command = self.psql(statement, user, "");
        let file = |ending: &str| login.0.join(format!("{}.{ending}", login.1));
        command.env("PGSSLMODE", "require").env("PGSSLCERT", file("crt")).env("PGSSLKEY", file("key"));
        answer(&mut command)
    }

    /// A session that lasts until it is terminated.
    pub(super) fn session(&self, user: &str, password: &str) -> Child {
        self.psql("SELECT pg_sleep(600)", user, password).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The server's log.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap()).into_owned()
    }
}

fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Kit for PostgresServer {
    fn plugin(&self) -> &'static str {
        "postgresql-database-plugin"
    }

    fn settings(&self, is_there: bool) -> Value {
        self.settings_at(if is_there { self.port } else { 1 })
    }

    fn read_nothing(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("SELECT 1", user, password).map(drop)
    }

    fn settings_at(&self, port: u16) -> Value {
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable");
        json!({"connection_url": url, "username": Self::ADMIN})
    }

    fn password(&self) -> &'static str {
        Self::PASSWORD
    }

    fn creation(&self) -> Vec<String> {
        let make = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
        vec![make.to_owned(), "GRANT SELECT ON orders TO \"{{username}}\";".to_owned()]
    }

    fn failing_creation(&self) -> Vec<String> {
        vec!["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}'; CREATE NONSENSE".to_owned()]
    }

    fn read(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("SELECT item FROM orders", user, password).map(drop)
    }

    fn change(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("DELETE FROM orders", user, password).map(drop)
    }

    fn make_user(&self, name: &str, password: &str, is_administrator: bool) {
        let rights = if is_administrator { "SUPERUSER" } else { "" };
        self.admin(&format!("CREATE ROLE {} LOGIN {rights} PASSWORD {}", identifier(name), literal(password)));
    }

    fn users(&self) -> Vec<String> {
        self.admin("SELECT rolname FROM pg_roles").lines().map(str::to_owned).collect()
    }

    fn open_session(&self, user: &str, password: &str) -> Session {
        Session::Program(self.session(user, password))
    }

    fn sessions(&self, user: &str) -> usize {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = {}", literal(user));
        self.admin(&count).parse().unwrap()
    }

    fn cut(&self, user: &str) {
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}", literal(user));
        self.admin(&all);
        wait_until("the sessions have ended", || self.sessions(user) == 0);
    }

    fn is_intact(&self) -> bool {
        self.admin("SELECT item FROM orders") == "tea"
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let data = self.path("data");
        let mut command = as_postgres(&self.bin.join("pg_ctl"), self.directory.path());
        let _ = command
            .args(["-D", data.to_str().unwrap_or_default(), "-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn as_postgres(program: &Path, directory: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(directory);
    command
}
