//! A Redis server of Debian's package.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::servers::{assert_running, certify, free_port, program, retried};
use super::suite::{Kit, Session};

/// A server with a value `kept`.
pub(super) struct RedisServer {
    pub(super) port: u16,
    tls_port: Option<u16>,
    pub(super) certificate: String,
    child: Child,
    directory: tempfile::TempDir,
}

const ADMIN: &str = "vault_admin";
const PASSWORD: &str = "admin_password";

impl RedisServer {
    /// Starts a server, with TLS beside the plain port if required; `None`, with a message, if the package is missing
    /// and not required.
    pub(super) fn start(tls: bool) -> Option<Self> {
        let mut server = Self::begin(tls, None)?;
        retried("Redis starts", || {
            assert_running(&mut server.child, "Redis");
            server.ask(ADMIN, PASSWORD, &["SET", "kept", "tea"])
        });
        Some(server)
    }

    /// Starts a server that lacks a command.
    pub(super) fn start_without(command: &str) -> Option<Self> {
        let mut server = Self::begin(false, Some(command))?;
        retried("Redis starts", || {
            assert_running(&mut server.child, "Redis");
            TcpStream::connect(("127.0.0.1", server.port)).map_err(|error| error.to_string())
        });
        Some(server)
    }

    /// Removes a user.
    pub(super) fn remove(&self, name: &str) {
        self.admin(&["ACL", "DELUSER", name]);
    }

    fn begin(tls: bool, without: Option<&str>) -> Option<Self> {
        let server = program("redis-server", "redis-server")?;
        let directory = tempfile::tempdir().unwrap();
        let users = directory.path().join("users.acl");
        let line = format!("user {ADMIN} on >{PASSWORD} ~* &* +@all\nuser default off\n");
        std::fs::write(&users, line).unwrap();
        let port = free_port();
        let mut command = Command::new(server);
        command.args(["--save", "", "--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--aclfile").arg(&users).arg("--dir").arg(directory.path());
        if let Some(command_name) = without {
            command.args(["--rename-command", command_name, ""]);
        }
        let (mut certificate, mut tls_port) = (String::new(), None);
        if tls {
            let [public, key] = certify(directory.path());
            certificate = std::fs::read_to_string(&public).unwrap();
            let other = free_port();
            tls_port = Some(other);
            command.args(["--tls-port", &other.to_string(), "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(&public).arg("--tls-key-file").arg(&key);
            command.arg("--tls-ca-cert-file").arg(&public);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(RedisServer { port, tls_port, certificate, child, directory })
    }

    /// Settings for the port with TLS.
    pub(super) fn encrypted(&self, host: &str) -> Value {
        json!({"host": host, "port": self.tls_port, "username": ADMIN, "password": PASSWORD, "tls": true})
    }

    /// The users that are kept over a restart.
    pub(super) fn saved(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("users.acl")).unwrap()
    }

    fn login(&self, user: &str, password: &str) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        exchange(&stream, &["AUTH", user, password])?;
        Ok(stream)
    }

    /// The lines of a response, one for each value in it.
    fn ask(&self, user: &str, password: &str, words: &[&str]) -> Result<Vec<String>, String> {
        exchange(&self.login(user, password)?, words)
    }

    fn admin(&self, words: &[&str]) -> Vec<String> {
        self.ask(ADMIN, PASSWORD, words).unwrap()
    }
}

/// One command and its response in Redis' protocol.
fn exchange(mut stream: &TcpStream, words: &[&str]) -> Result<Vec<String>, String> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let (mut reader, mut out, mut expected) = (BufReader::new(stream), Vec::new(), 1);
    while expected > 0 {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err("closed".to_owned());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        expected -= 1;
        match kind {
            "-" => return Err(rest.to_owned()),
            "*" => expected += rest.parse::<usize>().unwrap_or(0),
            "$" if rest != "-1" => {
                let mut value = vec![0; rest.parse::<usize>().unwrap() + 2];
                std::io::Read::read_exact(&mut reader, &mut value).map_err(|error| error.to_string())?;
                out.push(String::from_utf8_lossy(&value[..value.len() - 2]).into_owned());
            }
            _ => out.push(rest.to_owned()),
        }
    }
    Ok(out)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Kit for RedisServer {
    fn plugin(&self) -> &'static str {
        "valkey-database-plugin"
    }

    fn settings(&self, is_there: bool) -> Value {
        self.settings_at(if is_there { self.port } else { 1 })
    }

    fn read_nothing(&self, user: &str, password: &str) -> Result<(), String> {
        self.login(user, password).map(drop)
    }

    fn settings_at(&self, port: u16) -> Value {
        json!({"host": "127.0.0.1", "port": port, "username": ADMIN, "persistence_mode": "ACLFILE"})
    }

    fn password(&self) -> &'static str {
        PASSWORD
    }

    fn creation(&self) -> Vec<String> {
        vec!["[\"~kept\", \"+get\", \"+subscribe\", \"&*\"]".to_owned()]
    }

    fn failing_creation(&self) -> Vec<String> {
        vec!["[\"~kept\", \"+get\", \"+nonsense\"]".to_owned()]
    }

    fn read(&self, user: &str, password: &str) -> Result<(), String> {
        self.ask(user, password, &["GET", "kept"]).map(drop)
    }

    fn change(&self, user: &str, password: &str) -> Result<(), String> {
        self.ask(user, password, &["SET", "kept", "coffee"]).map(drop)
    }

    fn make_user(&self, name: &str, password: &str, is_administrator: bool) {
        let password = format!(">{password}");
        let rules: &[&str] = if is_administrator { &["~*", "&*", "+@all"] } else { &[] };
        self.admin(&[&["ACL", "SETUSER", name, "on", &password], rules].concat());
    }

    fn users(&self) -> Vec<String> {
        self.admin(&["ACL", "USERS"])
    }

    fn open_session(&self, user: &str, password: &str) -> Session {
        let stream = self.login(user, password).unwrap();
        exchange(&stream, &["SUBSCRIBE", "nothing"]).unwrap();
        Session::Stream(stream)
    }

    fn sessions(&self, user: &str) -> usize {
        let all = self.admin(&["CLIENT", "LIST"]).join("\n");
        all.lines().filter(|line| line.contains(&format!(" user={user} "))).count()
    }

    fn cut(&self, user: &str) {
        self.admin(&["CLIENT", "KILL", "USER", user]);
    }

    fn is_intact(&self) -> bool {
        self.admin(&["GET", "kept"]) == ["tea"]
    }

    /// Names have no spaces in this format.
    fn accepts_name(&self, name: &str) -> bool {
        !name.contains(' ')
    }
}
