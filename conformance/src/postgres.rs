//! A PostgreSQL server (Debian's package) on loopback, in a temporary directory, that can be started, stopped in the
//! middle of its work, frozen and queried.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::servers::free_port;

/// The superuser, whose password never changes.
pub const SUPERUSER: &str = "overseer";
/// Its password.
pub const PASSWORD: &str = "overseer_password";

/// A PostgreSQL server with SCRAM authentication, stopped when dropped.
pub struct Postgres {
    /// Its port on 127.0.0.1.
    pub port: u16,
    bin: PathBuf,
    settings: String,
    directory: TempDir,
}

impl Postgres {
    /// Starts a server; `settings` are additional `-c name=value` options.
    ///
    /// # Errors
    /// When the package is missing or the server does not start.
    pub fn start(settings: &str) -> Result<Self> {
        let versions = (13..30).rev().map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin")));
        let bin = versions
            .into_iter()
            .find(|bin| bin.join("initdb").exists())
            .context("the Debian package postgresql is not installed")?;
        let directory = tempfile::Builder::new().prefix("postgres-").tempdir()?;
        let postgres = Postgres { port: free_port()?, bin, settings: settings.to_owned(), directory };
        let password = postgres.path("password");
        std::fs::write(&password, PASSWORD)?;
        if is_root()? {
            // PostgreSQL refuses to run as root.
            let owned = Command::new("chown").args(["-R", "postgres"]).arg(postgres.directory.path()).status()?;
            anyhow::ensure!(owned.success(), "chown failed");
        }
        let password = format!("--pwfile={}", password.display());
        postgres.tool("initdb", &["-U", SUPERUSER, &password, "-A", "scram-sha-256", "-N"])?;
        postgres.resume()?;
        Ok(postgres)
    }

    /// Restarts the server after [`Postgres::stop`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&self) -> Result<()> {
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= {}", self.port, self.settings);
        let log = self.path("log").display().to_string();
        self.tool("pg_ctl", &["-o", &options, "-l", &log, "-w", "start"])
    }

    /// Stops the server immediately without notifying its clients: uncommitted data is lost.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop(&self) -> Result<()> {
        self.tool("pg_ctl", &["-m", "immediate", "-w", "stop"])
    }

    /// Freezes all its processes: connections stay open without responses.
    ///
    /// # Errors
    /// When a signal cannot be sent.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues all its processes.
    ///
    /// # Errors
    /// As [`Postgres::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The result of a statement of the superuser.
    ///
    /// # Errors
    /// The error of the statement.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let done = self.psql(statement, "postgres", SUPERUSER, PASSWORD)?;
        if !done.status.success() {
            bail!("{statement}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Whether a user can log in with this password.
    ///
    /// # Errors
    /// When `psql` cannot be run.
    pub fn accepts(&self, user: &str, password: &str) -> Result<bool> {
        Ok(self.psql("SELECT 1", "postgres", user, password)?.status.success())
    }

    /// Runs a statement in a database, as a user.
    ///
    /// # Errors
    /// When `psql` cannot be run; the error of the statement is in its output.
    pub fn psql(&self, statement: &str, database: &str, user: &str, password: &str) -> Result<Output> {
        let target = format!("host=127.0.0.1 port={} dbname={database} user={user} connect_timeout=10", self.port);
        let mut command = Command::new(self.bin.join("psql"));
        command.args([&target, "-v", "ON_ERROR_STOP=1", "-XAtqc", statement]).env("PGPASSWORD", password);
        Ok(command.output()?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let program = self.bin.join(name);
        let mut command = if is_root()? {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(self.path("data")).args(arguments).current_dir(self.directory.path());
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        anyhow::ensure!(done.success(), "{name} failed: {}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().rev().take(8).collect::<Vec<_>>().join(" / ")
    }

    /// Sends a signal to the postmaster and to all its processes.
    fn signal(&self, signal: Signal) -> Result<()> {
        let file = std::fs::read_to_string(self.path("data/postmaster.pid")).context("it does not run")?;
        let postmaster = file.lines().next().context("no process id")?.trim().to_owned();
        let children = Path::new("/proc").join(&postmaster).join("task").join(&postmaster).join("children");
        let children = std::fs::read_to_string(children)?;
        for process in std::iter::once(postmaster.as_str()).chain(children.split_whitespace()) {
            match kill_process(Pid::from_raw(process.parse()?).context("no process id")?, signal) {
                // A process that has exited in the meantime is not an error.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("the signal cannot be sent"),
            }
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.thaw();
        let _ = self.stop();
    }
}

/// Whether the process is root, so that servers need another user to run as.
pub(crate) fn is_root() -> Result<bool> {
    Ok(Command::new("id").arg("-u").output()?.stdout.trim_ascii() == b"0")
}
