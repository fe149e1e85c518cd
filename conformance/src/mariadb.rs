//! A MariaDB server (Debian's package) on loopback, in a temporary directory, with TLS and plain connections.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::postgres::is_root;
use crate::servers::free_port;

/// The user with all privileges.
const SUPERUSER: &str = "overseer";
/// Its password.
const PASSWORD: &str = "overseer_password";
/// Small files for a fast start; no data has to outlive the run.
const SMALL: [&str; 3] =
    ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0"];

/// A MariaDB server, stopped when dropped.
pub struct MariaDb {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its self-signed certificate for 127.0.0.1.
    pub certificate: String,
    child: Child,
    _directory: TempDir,
}

impl MariaDb {
    /// Starts a server.
    ///
    /// # Errors
    /// When the package is missing or the server does not start.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mariadb-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let [certificate, key] = certify(directory.path())?;
        let init = format!(
            "CREATE USER {SUPERUSER}@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO {SUPERUSER}@'%' WITH GRANT OPTION;\n"
        );
        std::fs::write(path("init.sql"), init)?;
        // Servers with a common directory of temporary files remove each other's files.
        std::fs::create_dir(path("tmp"))?;
        let mut common = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", path("data").display()),
            format!("--tmpdir={}", path("tmp").display()),
        ];
        common.extend(SMALL.map(str::to_owned));
        if is_root()? {
            common.push("--user=mysql".to_owned());
            let owned = Command::new("chown").args(["-R", "mysql"]).arg(directory.path()).status()?;
            anyhow::ensure!(owned.success(), "chown failed");
        }
        let made = Command::new("mariadb-install-db")
            .args(&common)
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .output()
            .context("the Debian package mariadb-server is not installed")?;
        anyhow::ensure!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port()?;
        let log = std::fs::File::create(path("log"))?;
        let child =
            Command::new(if Path::new("/usr/sbin/mariadbd").exists() { "/usr/sbin/mariadbd" } else { "mariadbd" })
                .args(&common)
                .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
                .arg(format!("--port={port}"))
                .arg(format!("--socket={}", path("sock").display()))
                .arg(format!("--init-file={}", path("init.sql").display()))
                .arg(format!("--ssl-cert={}", certificate.display()))
                .arg(format!("--ssl-key={}", key.display()))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
        let certificate = std::fs::read_to_string(certificate)?;
        let server = MariaDb { port, certificate, child, _directory: directory };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<()> {
        for _ in 0..600 {
            if self.sql("SELECT 1").is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("MariaDB does not respond")
    }

    /// The result of a statement of the superuser.
    ///
    /// # Errors
    /// The error of the statement.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let done = self.ask(statement, "", SUPERUSER, PASSWORD)?;
        if !done.status.success() {
            bail!("{statement}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Runs a statement in a database, as a user.
    ///
    /// # Errors
    /// When the client cannot be run; the error of the statement is in its output.
    pub fn ask(&self, statement: &str, database: &str, user: &str, password: &str) -> Result<Output> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--skip-ssl", "-h127.0.0.1", "-N", "-B", "--default-character-set=utf8mb4"]);
        command.arg(format!("--port={}", self.port)).arg(format!("--user={user}"));
        command.arg(format!("--database={database}")).args(["-e", statement]).env("MYSQL_PWD", password);
        Ok(command.output()?)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed certificate for 127.0.0.1 and its key, as files.
///
/// # Errors
/// When `openssl` fails.
pub(crate) fn certify(directory: &Path) -> Result<[PathBuf; 2]> {
    let [certificate, key] = ["server.crt", "server.key"].map(|name| directory.join(name));
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1", "-addext"])
        .arg("basicConstraints=critical,CA:FALSE")
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("openssl is not installed")?;
    anyhow::ensure!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stderr));
    Ok([certificate, key])
}
