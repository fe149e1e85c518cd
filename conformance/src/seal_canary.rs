//! The canary run of the seals: no KEK, share, PIN, key, token or credential is in a log, an audit file, a response, the
//! storage, or the environment of the programs that the server starts; and a stolen storage with its configuration opens
//! nothing without the services of its seals.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::campaign::seals::faults::programs;
use crate::campaign::seals::ways::{all_failed, submit};
use crate::canary::{collect, contained, forms};
use crate::seals::{PIN, SealKind, SealServices, SealedServer, done, permit_transit, random_key};
use crate::servers::Server;
use crate::slow_proxy::SlowProxy;

const TIMING: &str = " timeout = \"3s\"\n health_check_interval = \"2s\"\n health_check_interval_unhealthy = \"1s\"\n";
/// A PIN that the token refuses.
const WRONG_PIN: &str = "canary-wrong-pin-57110";

/// What was checked.
#[derive(Default)]
pub struct Checked {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not, in words.
    pub failures: Vec<String>,
}

impl Checked {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        match holds {
            true => self.passed += 1,
            false => self.failures.push(what()),
        }
    }
}

/// A server with three seals, and all that it has shown.
struct Stage {
    services: SealServices,
    proxy: SlowProxy,
    server: Server,
    static_key: String,
    responses: Vec<(String, Vec<u8>)>,
}

/// Runs seals with known secrets well and with errors, and searches for the secrets.
///
/// # Errors
/// When a server does not work.
pub fn sec_canary_seals() -> Result<Checked> {
    let mut checked = Checked::default();
    let mut stage = Stage::prepare()?;
    stage.work()?;
    stage.check_programs(&mut checked)?;
    stage.fail()?;
    stage.refuse_a_pin()?;
    stage.search(&mut checked)?;
    sec_a_stolen_store_with_its_configuration_opens_nothing(&stage, &mut checked)?;
    Ok(checked)
}

impl Stage {
    fn prepare() -> Result<Self> {
        let SealedServer { services, proxy, server, static_key } = SealedServer::start(TIMING)?;
        Ok(Self { services, proxy, server, static_key, responses: Vec::new() })
    }

    /// Sends a request with the root token, whatever its response.
    fn send(&mut self, method: &str, path: &str, body: &Value) -> Result<()> {
        let body = (!body.is_null()).then_some(body);
        let token = Some(self.server.root.as_str());
        let response = self.server.client()?.call(token, method, path, body)?;
        self.responses.push((format!("{method} {path}"), response.body));
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        for path in ["sys/seals", "sys/seal-status", "sys/seal-backend-status", "sys/metrics", "sys/host-info"] {
            self.send("GET", path, &Value::Null)?;
        }
        self.send("GET", "sys/config/state/sanitized", &Value::Null)?;
        self.send("POST", "sys/rotate/root", &json!({}))?;
        self.check_all()?;
        self.send("POST", "sys/seals/order", &json!({"names": ["pkcs11", "static"]}))?;
        let share = self.server.keys[0].clone();
        self.send("POST", "sys/unseal", &json!({"key": share}))?;
        self.send("POST", "sys/seals/break-glass", &json!({"key": share}))?;
        self.send("POST", "sys/seals/break-glass", &json!({"key": share}))
    }

    fn check_all(&mut self) -> Result<()> {
        for kind in SealKind::ALL {
            self.send("POST", &format!("sys/seals/{}/check", kind.name()), &json!({}))?;
        }
        Ok(())
    }

    /// The environment and the arguments of the programs that the server has started, and that no process dumps core.
    fn check_programs(&self, checked: &mut Checked) -> Result<()> {
        let server = i32::try_from(self.server.pid())?;
        let programs = programs(self.server.pid())?;
        checked.require(!programs.is_empty(), || "the program of pkcs11 does not run".to_owned());
        let secrets = self.secrets()?;
        let all = all_forms(&secrets);
        for pid in &programs {
            for file in ["environ", "cmdline"] {
                let content = std::fs::read(format!("/proc/{pid}/{file}"))?;
                let found = contained(&content, &all);
                checked.require(found.is_empty(), || format!("/proc/{pid}/{file} of a program has {found:?}"));
            }
        }
        for pid in programs.into_iter().chain([server]) {
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
            let line = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
            let words: Vec<&str> = line.split_whitespace().collect();
            checked.require(words.get(4..6) == Some(&["0", "0"]), || format!("process {pid}: {line}"));
        }
        Ok(())
    }

    /// Every service fails while the server runs and when it starts; shares open it.
    fn fail(&mut self) -> Result<()> {
        permit_transit(&self.services.kms, false)?;
        self.check_all()?;
        self.server.terminate()?;
        self.services.write_static_key("k1", &random_key()?)?;
        let aside = self.services.tokens().with_extension("aside");
        std::fs::rename(self.services.tokens(), &aside)?;
        self.server.restart()?;
        all_failed(&self.server, Duration::from_secs(20))?;
        for path in ["sys/seal-status", "sys/seal-backend-status", "sys/health"] {
            self.send("GET", path, &Value::Null)?;
        }
        for share in self.server.keys.clone() {
            self.send("POST", "sys/unseal", &json!({"key": share}))?;
        }
        self.server.wait_until_serving()?;
        self.check_all()?;
        std::fs::rename(&aside, self.services.tokens())?;
        self.services.write_static_key("k1", &self.static_key)?;
        permit_transit(&self.services.kms, true)
    }

    /// A token that refuses its PIN.
    fn refuse_a_pin(&mut self) -> Result<()> {
        self.server.terminate()?;
        let stanzas = self.services.stanzas(TIMING).replace(PIN, WRONG_PIN);
        let data = self.server.directory().join("data");
        let mut other = self.services.serve(Some(&data), &stanzas, Vec::new())?;
        other.root.clone_from(&self.server.root);
        other.keys.clone_from(&self.server.keys);
        other.wait_until_serving()?;
        self.server = other;
        self.send("POST", "sys/seals/pkcs11/check", &json!({}))?;
        self.send("GET", "sys/seals", &Value::Null)?;
        self.server.terminate()
    }

    /// Each secret with its name.
    fn secrets(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut secrets = vec![
            ("the PIN".to_owned(), PIN.as_bytes().to_vec()),
            ("the wrong PIN".to_owned(), WRONG_PIN.as_bytes().to_vec()),
            ("the transit token".to_owned(), self.services.transit_token.clone().into_bytes()),
            ("the root token".to_owned(), self.server.root.clone().into_bytes()),
            ("the static key as text".to_owned(), self.static_key.clone().into_bytes()),
            ("the static key".to_owned(), of_hex(&self.static_key)),
        ];
        for share in &self.server.keys {
            secrets.push(("a share as text".to_owned(), share.clone().into_bytes()));
            secrets.push(("a share".to_owned(), of_base64(share)));
        }
        let sent = String::from_utf8_lossy(&self.proxy.sent()).into_owned();
        let keks = sent.split("\"plaintext\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        for kek in keks {
            secrets.push(("a KEK as text".to_owned(), kek.as_bytes().to_vec()));
            secrets.push(("a KEK".to_owned(), of_base64(kek)));
        }
        Ok(secrets)
    }

    /// Searches all responses and all files of both servers but their configuration.
    fn search(&self, checked: &mut Checked) -> Result<()> {
        let secrets = self.secrets()?;
        let keks = secrets.iter().filter(|(name, _)| name == "a KEK").count();
        checked.require(keks >= 2, || format!("{keks} KEKs were seen"));
        let all = all_forms(&secrets);
        // The search finds what is there.
        let configuration = std::fs::read(self.server.directory().join("config.hcl"))?;
        let named = contained(&configuration, &all);
        checked.require(named.contains(&"the transit token"), || format!("of the configuration: {named:?}"));
        for (request, body) in &self.responses {
            let found = contained(body, &all);
            checked.require(found.is_empty(), || format!("the response to {request} has {found:?}"));
        }
        for server in [&self.server, &self.services.kms] {
            let mut files = Vec::new();
            collect(server.directory(), &mut files)?;
            for file in files.iter().filter(|file| !file.ends_with("config.hcl")) {
                let found = contained(&std::fs::read(file)?, &all);
                checked.require(found.is_empty(), || format!("{} has {found:?}", file.display()));
            }
        }
        Ok(())
    }
}

/// The forms of secrets, by their names.
fn all_forms(secrets: &[(String, Vec<u8>)]) -> Vec<(Vec<u8>, &str)> {
    secrets.iter().flat_map(|(name, secret)| forms(secret).map(|form| (form, name.as_str()))).collect()
}

/// The storage and the configuration without the key file, the token of the HSM, and with a revoked token of the KMS.
fn sec_a_stolen_store_with_its_configuration_opens_nothing(stage: &Stage, checked: &mut Checked) -> Result<()> {
    let services = &stage.services;
    let data = stage.server.directory().join("data");
    let revoke = json!({"token": services.transit_token});
    done(&mut services.kms.client()?, &services.kms.root, "POST", "auth/token/revoke", &revoke)?;
    std::fs::remove_file(services.static_key("k1"))?;
    std::fs::remove_dir_all(services.tokens())?;
    let server = services.serve(Some(&data), &services.stanzas(TIMING), Vec::new())?;
    let failed = all_failed(&server, Duration::from_secs(20))?;
    checked.require(failed, || "a dead seal counts as healthy".to_owned());
    let status = done(&mut server.client()?, "", "GET", "sys/seal-status", &Value::Null)?;
    checked.require(status["sealed"] == true, || format!("it opens: {status}"));
    let one_share = &stage.server.keys[..1];
    checked.require(!submit(&server, one_share, false)?, || "one share opens".to_owned());
    checked.require(!submit(&server, &["ab".repeat(33)], false)?, || "a wrong share opens".to_owned());
    Ok(())
}

fn of_hex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map_while(pair).collect()
}

fn of_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for next in text.bytes().map_while(value) {
        (bits, held) = (bits << 6 | next, held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_decoded() {
        assert_eq!(of_base64("aHZzLkNB"), b"hvs.CA");
        assert_eq!(of_base64("aHY="), b"hv");
        assert_eq!(of_hex("00ff7f"), [0, 255, 127]);
    }
}
