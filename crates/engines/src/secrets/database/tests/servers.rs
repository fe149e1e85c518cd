//! Real servers on loopback, each in a directory of its own and gone with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A PostgreSQL of Debian's package, reached with SCRAM.
pub(super) struct PostgresServer {
    pub(super) port: u16,
    /// Its self-signed certificate, where it has one.
    pub(super) certificate: String,
    bin: PathBuf,
    directory: tempfile::TempDir,
}

impl PostgresServer {
    pub(super) const ADMIN: &'static str = "vault_admin";
    pub(super) const PASSWORD: &'static str = "admin_password";

    /// Starts one with a table `orders`; `None`, said aloud, where the package is missing.
    pub(super) fn start() -> Option<Self> {
        Self::begin(false)
    }

    /// The same with TLS and a certificate that nobody trusts yet.
    pub(super) fn start_with_tls() -> Option<Self> {
        Self::begin(true)
    }

    fn begin(tls: bool) -> Option<Self> {
        let Some(bin) = (13..30)
            .rev()
            .map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin")))
            .find(|p| p.join("initdb").exists())
        else {
            eprintln!("skipped: the Debian package postgresql is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = PostgresServer { port, certificate: String::new(), bin, directory };
        let file = server.path("password");
        std::fs::write(&file, Self::PASSWORD).unwrap();
        let key = tls.then(|| server.certify());
        server.hand_over();
        let (data, log) = (server.path("data"), server.path("log"));
        let password = format!("--pwfile={}", file.display());
        server
            .tool("initdb", &["-D", data.to_str().unwrap(), "-U", Self::ADMIN, &password, "-A", "scram-sha-256", "-N"]);
        let mut options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off");
        if let Some((certificate, key)) = key {
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

    fn certify(&mut self) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.path("server.crt"), self.path("server.key"));
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=pg",
        ];
        let done = Command::new("openssl")
            .args(arguments)
            .args([
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                certificate.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.certificate = std::fs::read_to_string(&certificate).unwrap();
        (certificate, key)
    }

    /// PostgreSQL refuses to run as root.
    fn hand_over(&self) {
        if is_root() {
            assert!(
                Command::new("chown").args(["-R", "postgres"]).arg(self.directory.path()).status().unwrap().success()
            );
        }
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        let mut command = as_postgres(&self.bin.join(name), self.directory.path());
        let done = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "{name} failed; see {}", self.path("log").display());
    }

    fn psql(&self, statement: &str, user: &str, password: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            user,
            "-d",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
            "-Atqc",
            statement,
        ]);
        command.env("PGPASSWORD", password);
        command
    }

    /// What a statement answers, or what it failed with.
    pub(super) fn sql(&self, statement: &str, user: &str, password: &str) -> Result<String, String> {
        let done = self.psql(statement, user, password).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// The same as the administrator, without failing.
    pub(super) fn admin(&self, statement: &str) -> String {
        self.sql(statement, Self::ADMIN, Self::PASSWORD).unwrap()
    }

    /// A session that stays until somebody ends it.
    pub(super) fn session(&self, user: &str, password: &str) -> Child {
        self.psql("SELECT pg_sleep(600)", user, password).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
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

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}
