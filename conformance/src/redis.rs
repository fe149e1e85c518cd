//! A Redis server (Debian's package) on loopback, in a temporary directory, with TLS on a second port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::mariadb::certify;
use crate::servers::free_port;

/// The user with all privileges.
const SUPERUSER: &str = "overseer";
/// Its password.
const PASSWORD: &str = "overseer_password";

/// A Redis server, stopped when dropped.
pub struct Redis {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its TLS port on 127.0.0.1.
    pub tls_port: u16,
    /// Its self-signed certificate for 127.0.0.1.
    pub certificate: String,
    child: Child,
    _directory: TempDir,
}

impl Redis {
    /// Starts a server. It has a configuration file and an ACL file, so that clients can write both.
    ///
    /// # Errors
    /// When the package is missing or the server does not start.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("redis-").tempdir()?;
        let [certificate, key] = certify(directory.path())?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let users = directory.path().join("users.acl");
        std::fs::write(&users, format!("user {SUPERUSER} on >{PASSWORD} ~* &* +@all\nuser default off\n"))?;
        let file = directory.path().join("redis.conf");
        let settings = [
            "bind 127.0.0.1".to_owned(),
            "save \"\"".to_owned(),
            format!("port {port}\ntls-port {tls_port}\ntls-auth-clients no"),
            format!("aclfile {}", users.display()),
            format!("dir {}", directory.path().display()),
            format!("tls-cert-file {}\ntls-key-file {}", certificate.display(), key.display()),
            format!("tls-ca-cert-file {}\n", certificate.display()),
        ];
        std::fs::write(&file, settings.join("\n"))?;
        let child = Command::new("redis-server")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the Debian package redis-server is not installed")?;
        let certificate = std::fs::read_to_string(certificate)?;
        let server = Redis { port, tls_port, certificate, child, _directory: directory };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<()> {
        for _ in 0..600 {
            if matches!(self.ask(&["PING"], None), Ok(Ok(_))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("Redis does not respond")
    }

    /// The result of a command, one line per value, or the error of the server; as the superuser unless `login` (user,
    /// password) is set.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn ask<S: AsRef<str>>(&self, words: &[S], login: Option<(&str, &str)>) -> Result<Result<Vec<String>, String>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let (user, password) = login.unwrap_or((SUPERUSER, PASSWORD));
        if let Err(refused) = exchange(&stream, &["AUTH", user, password])? {
            return Ok(Err(refused));
        }
        exchange(&stream, words)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one command and reads its result in Redis' protocol.
fn exchange<S: AsRef<str>>(mut stream: &TcpStream, words: &[S]) -> Result<Result<Vec<String>, String>> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words.iter().map(AsRef::as_ref) {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(text.as_bytes())?;
    let (mut reader, mut values, mut expected) = (BufReader::new(stream), Vec::new(), 1);
    while expected > 0 {
        let mut line = String::new();
        // This happens to a user who is deleted between two commands.
        if !reader.read_line(&mut line).is_ok_and(|length| length > 0) {
            return Ok(Err("the connection was closed".to_owned()));
        }
        let (kind, rest) = line.trim_end().split_at(1);
        expected -= 1;
        match kind {
            "-" => return Ok(Err(rest.to_owned())),
            "*" => expected += rest.parse::<usize>().unwrap_or(0),
            "$" if rest != "-1" => {
                let mut value = vec![0; rest.parse::<usize>()? + 2];
                reader.read_exact(&mut value)?;
                values.push(String::from_utf8_lossy(&value[..value.len() - 2]).into_owned());
            }
            _ => values.push(rest.to_owned()),
        }
    }
    Ok(Ok(values))
}
