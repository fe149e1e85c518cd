//! `login` and `write` of a login with MFA.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use keepfast_crypto::keys::digest::Hash;

use crate::server::{Server, unique};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepfast");

/// A user of a userpass mount whose logins need MFA.
struct Site {
    server: Server,
    path: String,
    method: String,
    url: String,
}

impl Site {
    fn new() -> Self {
        let server = Server::find();
        let path = unique("userpass");
        server.ok(&["auth", "enable", &format!("-path={path}"), "userpass"]);
        server.ok(&["write", &format!("auth/{path}/users/bob"), "password=pw"]);
        let login = server.ok(&["write", "-format=json", &format!("auth/{path}/login/bob"), "password=pw"]);
        let login: serde_json::Value = serde_json::from_str(&login).unwrap();
        let entity = login["auth"]["entity_id"].as_str().unwrap();
        let method = server.ok(&["write", "-field=method_id", "identity/mfa/method/totp", "issuer=Test"]);
        let generate = "identity/mfa/method/totp/admin-generate";
        let (of, id) = (format!("entity_id={entity}"), format!("method_id={method}"));
        let url = server.ok(&["write", "-field=url", generate, &id, &of]);
        let accessor = server.ok(&["read", "-field=accessor", &format!("sys/auth/{path}")]);
        let (methods, accessors) = (format!("mfa_method_ids={method}"), format!("auth_method_accessors={accessor}"));
        server.ok(&["write", &format!("identity/mfa/login-enforcement/{path}"), &methods, &accessors]);
        Self { server, path, method, url }
    }

    /// The code of a period now or after it.
    #[allow(clippy::disallowed_methods, reason = "an authenticator has a clock")]
    fn code(&self, offset: u64) -> String {
        let secret = self.url.rsplit_once('=').unwrap().1;
        let digit = |digit: char| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(digit).unwrap();
        let bits: String = secret.chars().map(|c| format!("{:05b}", digit(c))).collect();
        let key: Vec<u8> =
            (0..bits.len() / 8).map(|at| u8::from_str_radix(&bits[8 * at..8 * at + 8], 2).unwrap()).collect();
        let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30 + offset;
        let mac = Hash::Sha1.hmac(&key, &step.to_be_bytes());
        let at = usize::from(mac[19] & 15);
        let number = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }

    /// Runs a command on a pseudo-terminal, where a user types this line.
    fn on_a_terminal(&self, arguments: &str, line: &str) -> (i32, String) {
        let mut child = Command::new("script")
            .args(["-q", "-e", "-c", &format!("{PROGRAM} {arguments}"), "/dev/null"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.server.home())
            .env("VAULT_ADDR", self.server.address())
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux (Debian: bsdutils) is needed");
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{line}").unwrap();
        let done = child.wait_with_output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    }
}

#[test]
fn a_login_asks_for_the_code_of_its_only_method() {
    let site = Site::new();
    let login = format!("login -method=userpass -path={} username=bob password=pw", site.path);
    let (code, shown) = site.on_a_terminal(&login, "12345");
    assert!(code == 2 && shown.contains("MFA credentials not supplied or incorrect"), "{code} {shown}");
    let (code, shown) = site.on_a_terminal(&login, &site.code(0));
    let prompt = format!("Enter the passphrase for methodID \"{}\" of type \"totp\"", site.method);
    assert!(code == 0 && shown.contains(&prompt) && shown.contains("You are now authenticated"), "{code} {shown}");
    assert!(site.server.home().join(".vault-token").exists());
    let write = format!("write auth/{}/login/bob password=pw", site.path);
    let (code, shown) = site.on_a_terminal(&write, &site.code(1));
    assert!(code == 0 && shown.contains("token_meta_username"), "{code} {shown}");
}

#[test]
fn a_login_without_a_terminal_prints_what_it_needs() {
    let site = Site::new();
    let path = format!("-path={}", site.path);
    let done = site.server.run_with(&["login", "-method=userpass", &path, "username=bob", "password=pw"], &[], "");
    assert_eq!(done.code, 0, "{done:?}");
    let prefix = format!("mfa_constraint_{}_totp", site.path);
    for part in
        ["mfa_request_id  ", &format!("{prefix}_id  "), &format!("{prefix}_uses_passcode    true"), &site.method]
    {
        assert!(done.stdout.contains(part), "{part}: {done:?}");
    }
    assert!(done.stderr.contains("sys/mfa/validate") && !done.stdout.contains("token"), "{done:?}");
    assert!(!site.server.home().join(".vault-token").exists());
    let json = ["login", "-format=json", "-method=userpass", &path, "username=bob", "password=pw"];
    let pending: serde_json::Value = serde_json::from_str(&site.server.run_with(&json, &[], "").stdout).unwrap();
    let id = pending["auth"]["mfa_requirement"]["mfa_request_id"].as_str().unwrap();
    let body =
        format!("{{\"mfa_request_id\":\"{id}\",\"mfa_payload\":{{\"{}\":[\"{}\"]}}}}", site.method, site.code(0));
    let done = site.server.run_with(&["write", "-field=token_policies", "sys/mfa/validate", "-"], &[], &body);
    assert_eq!((done.code, done.stdout.as_str()), (0, "[default]"), "{done:?}");
    // Both factors in one request.
    let factor = format!("-mfa={}:{}", site.method, site.code(1));
    let one = ["login", &factor, "-method=userpass", &path, "-token-only", "username=bob", "password=pw"];
    let done = site.server.run_with(&one, &[], "");
    assert!(done.code == 0 && done.stdout.starts_with("hvs."), "{done:?}");
}
