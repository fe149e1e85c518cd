//! A MariaDB server of Debian's package.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::servers::{answer, assert_running, free_port, hand_over, is_root, program, retried};
use super::suite::{Kit, Session};

/// A server with a database `shop`.
pub(super) struct MariaDbServer {
    pub(super) port: u16,
    pub(super) certificate: String,
    child: Child,
    directory: tempfile::TempDir,
}

const ADMIN: &str = "vault_admin";
const PASSWORD: &str = "admin_password";
/// The CA of users that log in with certificates.
const AUTHORITY: &str = "authority.crt";
const DATA: &str = "CREATE DATABASE shop; CREATE TABLE shop.orders (id int PRIMARY KEY, item text); INSERT INTO shop.orders VALUES (1, 'tea');";

impl MariaDbServer {
    /// Starts a server; `None`, with a message, if the package is missing and not required.
    pub(super) fn start() -> Option<Self> {
        Self::begin(None)
    }

    /// The same with a certificate for 127.0.0.1 that is not trusted yet.
    pub(super) fn start_with_tls() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let made = super::servers::certify(directory.path());
        Self::begin(Some((directory, made)))
    }

    /// The same with a trusted CA for certificates of users.
    pub(super) fn start_with_authority(authority: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let made = super::servers::certify(directory.path());
        std::fs::copy(authority, directory.path().join(AUTHORITY)).unwrap();
        Self::begin(Some((directory, made)))
    }

    fn begin(tls: Option<(tempfile::TempDir, [PathBuf; 2])>) -> Option<Self> {
        let server = program("mariadbd", "mariadb-server")?;
        let install = program("mariadb-install-db", "mariadb-server")?;
        let (directory, pair) = match tls {
            Some((directory, pair)) => (directory, Some(pair)),
            None => (tempfile::tempdir().unwrap(), None),
        };
        let path = |name: &str| directory.path().join(name).display().to_string();
        let init = format!(
            "CREATE USER {ADMIN}@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {ADMIN}@'%' WITH GRANT OPTION; {DATA}"
        );
        std::fs::write(path("init.sql"), init.replace("; ", ";\n")).unwrap();
        // Servers with a common directory of temporary files remove each other's files.
        std::fs::create_dir(path("tmp")).unwrap();
        let temporary = format!("--tmpdir={}", path("tmp"));
        hand_over(directory.path(), "mysql");
        let user: &[&str] = if is_root() { &["--user=mysql"] } else { &[] };
        let data = format!("--datadir={}", path("data"));
        let small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0"];
        let made = Command::new(install)
            .args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db", &temporary])
            .args(user)
            .args(small)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        let port = free_port();
        let mut command = Command::new(server);
        command
            .args(["--no-defaults", &data, "--bind-address=127.0.0.1", "--skip-name-resolve", &temporary])
            .args(user)
            .args(small);
        command.arg(format!("--port={port}")).arg(format!("--socket={}", path("sock")));
        command.arg(format!("--init-file={}", path("init.sql")));
        let mut certificate = String::new();
        if let Some([public, key]) = &pair {
            command.arg(format!("--ssl-cert={}", public.display())).arg(format!("--ssl-key={}", key.display()));
            certificate = std::fs::read_to_string(public).unwrap();
            if directory.path().join(AUTHORITY).exists() {
                command.arg(format!("--ssl-ca={}", path(AUTHORITY)));
            }
        }
        let log = std::fs::File::create(path("log")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = MariaDbServer { port, certificate, child, directory };
        retried("MariaDB starts", || {
            assert_running(&mut server.child, "MariaDB");
            let log = || std::fs::read_to_string(server.directory.path().join("log")).unwrap_or_default();
            server.sql("SELECT 1", ADMIN, PASSWORD).map_err(|error| format!("{error}\n{}", log()))
        });
        Some(server)
    }

    fn client(&self, statement: &str, user: &str, password: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--skip-ssl", "-h127.0.0.1", "-N", "-B", "--default-character-set=utf8mb4"]);
        command.arg(format!("--port={}", self.port)).arg(format!("--user={user}")).args(["-e", statement]);
        command.env("MYSQL_PWD", password);
        command
    }

    fn sql(&self, statement: &str, user: &str, password: &str) -> Result<String, String> {
        let done = self.client(statement, user, password).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// The result of a statement after a login with a certificate, `NAME.crt` and `NAME.key` in a directory.
    pub(super) fn sql_with(&self, statement: &str, user: &str, login: (&Path, &str)) -> Result<String, String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-h127.0.0.1", "-N", "-B", "-e", statement, "--ssl"]);
        command.arg(format!("--port={}", self.port)).arg(format!("--user={user}"));
        for (option, ending) in [("cert", "crt"), ("key", "key")] {
            command.arg(format!("--ssl-{option}={}", login.0.join(format!("{}.{ending}", login.1)).display()));
        }
        answer(&mut command)
    }

    /// The directory of the server with its socket.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The result of a statement as the administrator.
    pub(super) fn admin(&self, statement: &str) -> String {
        self.sql(statement, ADMIN, PASSWORD).unwrap()
    }
}

impl Drop for MariaDbServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Kit for MariaDbServer {
    fn plugin(&self) -> &'static str {
        "mysql-database-plugin"
    }

    fn settings(&self, is_there: bool) -> Value {
        self.settings_at(if is_there { self.port } else { 1 })
    }

    fn read_nothing(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("SELECT 1", user, password).map(drop)
    }

    fn settings_at(&self, port: u16) -> Value {
        json!({"connection_url": format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{port})/"), "username": ADMIN})
    }

    fn password(&self) -> &'static str {
        PASSWORD
    }

    fn creation(&self) -> Vec<String> {
        vec![
            "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON shop.* TO '{{username}}'@'%';"
                .to_owned(),
        ]
    }

    fn failing_creation(&self) -> Vec<String> {
        vec!["CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; CREATE NONSENSE".to_owned()]
    }

    fn read(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("SELECT item FROM shop.orders", user, password).map(drop)
    }

    fn change(&self, user: &str, password: &str) -> Result<(), String> {
        self.sql("DELETE FROM shop.orders", user, password).map(drop)
    }

    fn make_user(&self, name: &str, password: &str, is_administrator: bool) {
        let account = format!("{}@'%'", literal(name));
        self.admin(&format!("CREATE USER {account} IDENTIFIED BY {}", literal(password)));
        if is_administrator {
            self.admin(&format!("GRANT ALL ON *.* TO {account} WITH GRANT OPTION"));
        }
    }

    fn users(&self) -> Vec<String> {
        // As bytes, since the client escapes special characters.
        let names = self.admin("SELECT HEX(CONVERT(User USING utf8mb4)) FROM mysql.user");
        names.lines().map(|hex| String::from_utf8(hex::decode(hex).unwrap()).unwrap()).collect()
    }

    fn open_session(&self, user: &str, password: &str) -> Session {
        let mut command = self.client("SELECT SLEEP(600)", user, password);
        Session::Program(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn sessions(&self, user: &str) -> usize {
        let count = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = {}", literal(user));
        self.admin(&count).parse().unwrap()
    }

    fn cut(&self, user: &str) {
        self.admin(&format!("KILL CONNECTION USER {}", literal(user)));
    }

    fn is_intact(&self) -> bool {
        self.admin("SELECT item FROM shop.orders") == "tea"
    }
}
