//! The execution of a scenario on a server: its variables, its setup, and its steps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::database::Database;
use crate::http::{Client, Request, Response};
use crate::scenario::{Expect, Scenario, Step};
use crate::totp;

/// OpenBao returns this for a moment after a mount of KV version 2 is created.
const UPGRADING: &str = "Upgrading from non-versioned to versioned data";

/// The time for which a request is sent again, and the pause before.
const RETRIES: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// The variables of a scenario: text, or other captured JSON.
pub type Variables = BTreeMap<String, Value>;

/// A scenario on a server.
pub struct Play<'a> {
    client: &'a mut Client,
    root: String,
    scenario: &'a Scenario,
    /// The current variables.
    pub variables: Variables,
    /// Every token, accessor, secret id and marked secret of requests and responses, for the canary run.
    pub secrets: Vec<String>,
    /// Accessors of secret ids: names of records that give no access.
    pub handles: Vec<String>,
    undo: Vec<(&'static str, String, Option<Value>)>,
    database: Option<Database>,
    /// The requests that were sent again; `None` when none is.
    repeated: Option<usize>,
}

/// A scenario whose head was refused.
pub struct Refused {
    /// The response.
    pub error: anyhow::Error,
    /// The requests that were sent again before it.
    pub repeated: usize,
}

impl From<Refused> for anyhow::Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl<'a> Play<'a> {
    /// Mounts, enables, writes and creates everything in the head of the scenario. With `retries`, a request is sent again
    /// after a response that clients of Vault retry, unless its step expects it.
    ///
    /// # Errors
    /// When a request of the head is refused.
    pub fn begin(
        client: &'a mut Client,
        root: &str,
        scenario: &'a Scenario,
        retries: bool,
    ) -> std::result::Result<Self, Refused> {
        let variables = Variables::from([
            ("id".to_owned(), fresh_id().into()),
            ("root".to_owned(), root.into()),
            ("url".to_owned(), client.url().into()),
        ]);
        let mut play = Self {
            client,
            root: root.to_owned(),
            scenario,
            variables,
            secrets: Vec::new(),
            handles: Vec::new(),
            undo: Vec::new(),
            database: None,
            repeated: retries.then_some(0),
        };
        if let Err(error) = play.set_up() {
            let repeated = play.end();
            return Err(Refused { error: error.context("setting the scenario up"), repeated });
        }
        Ok(play)
    }

    fn set_up(&mut self) -> Result<()> {
        if let Some(kind) = self.scenario.database {
            let database = Database::create(kind, &text(&self.variables["id"]))?;
            self.variables.extend(database.variables());
            self.database = Some(database);
        }
        for name in self.scenario.mounts.keys().chain(self.scenario.auth.keys()).chain(self.scenario.policies.keys()) {
            let unique = format!("{name}-{}", self.variables["id"].as_str().unwrap_or_default());
            self.variables.insert(name.clone(), unique.into());
        }
        for (kind, made) in [("sys/mounts", &self.scenario.mounts), ("sys/auth", &self.scenario.auth)] {
            for (name, body) in made {
                let path = format!("{kind}/{}", text(&self.variables[name]));
                self.require("POST", &path, Some(&self.fill(body)))?;
                self.undo.push(("DELETE", path, None));
                if body.pointer("/options/version").is_some_and(|v| v == "2") {
                    self.wait_for_upgrade(&format!("{}/config", text(&self.variables[name])))?;
                }
            }
        }
        for (name, policy) in &self.scenario.policies {
            let path = format!("sys/policies/acl/{}", text(&self.variables[name]));
            let body = json!({ "policy": self.fill_text(policy) });
            self.require("POST", &path, Some(&body))?;
            self.undo.push(("DELETE", path, None));
        }
        for (name, parameters) in &self.scenario.tokens {
            let response = self.require("POST", "auth/token/create", Some(&self.fill(parameters)))?;
            let auth = response.json().unwrap_or_default()["auth"].clone();
            self.undo.push(("POST", "auth/token/revoke".to_owned(), Some(json!({ "token": auth["client_token"] }))));
            self.variables.insert(name.clone(), auth["client_token"].clone());
            self.variables.insert(format!("{name}_accessor"), auth["accessor"].clone());
        }
        Ok(())
    }

    fn require(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let end = Instant::now() + RETRIES;
        let response = loop {
            let response = self.client.call(Some(&self.root), method, path, body)?;
            if !self.is_repeated(&response, end) {
                break response;
            }
        };
        if response.status >= 300 {
            bail!("{method} {path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
        }
        Ok(response)
    }

    /// Whether a request is sent again, after a pause.
    fn is_repeated(&mut self, response: &Response, end: Instant) -> bool {
        let Some(repeated) = &mut self.repeated else { return false };
        let is_retryable = response.status == 412 || response.status >= 500;
        if !is_retryable || Instant::now() >= end {
            return false;
        }
        *repeated += 1;
        std::thread::sleep(PAUSE);
        true
    }

    fn wait_for_upgrade(&mut self, path: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while self.client.call(Some(&self.root), "GET", path, None)?.status == 400 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a step. A step with `within` is repeated until `satisfied` returns true or its time is over.
    pub fn send(&mut self, step: &Step, satisfied: impl Fn(&Variables, &Response) -> bool) -> Result<Response> {
        if step.sql.is_some() || step.redis.is_some() {
            return self.send_statement(step, satisfied);
        }
        for (name, url) in &step.totp {
            let code = totp::code(&self.fill_text(url))?;
            self.variables.insert(name.clone(), code.into());
        }
        let request = self.request(step)?;
        collect_marked(&request, &mut self.secrets);
        let started = Instant::now();
        let end = started + Duration::from_secs(step.within);
        let mut upgrades = 300;
        loop {
            let response = self.client.send(&request)?;
            self.collect("", &response.json().unwrap_or_default());
            let upgrading = response.status == 400 && String::from_utf8_lossy(&response.body).contains(UPGRADING);
            if upgrading && upgrades > 0 {
                upgrades -= 1;
            } else if !satisfied(&self.variables, &response) && self.is_repeated(&response, started + RETRIES) {
                continue;
            } else if Instant::now() >= end || satisfied(&self.variables, &response) {
                return Ok(response);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send_statement(&self, step: &Step, satisfied: impl Fn(&Variables, &Response) -> bool) -> Result<Response> {
        let database = self.database.as_ref().context("a scenario with `sql` or `redis` steps needs a `database`")?;
        let (_, statement) = step.target()?;
        let statement = self.fill_text(statement);
        let login = step.login.as_ref().map(|l| (self.fill_text(&l.user), self.fill_text(&l.password)));
        let end = Instant::now() + Duration::from_secs(step.within);
        loop {
            let response = database.ask(&statement, login.as_ref().map(|(u, p)| (u.as_str(), p.as_str())))?;
            if Instant::now() >= end || satisfied(&self.variables, &response) {
                return Ok(response);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Collects the secrets of a response.
    fn collect(&mut self, key: &str, value: &Value) {
        const SECRET: [&str; 12] = [
            "client_token",
            "accessor",
            "secret_id",
            "token",
            "root_token",
            "keys_base64",
            "plaintext",
            "password",
            "client_secret",
            "access_token",
            "id_token",
            "code",
        ];
        match value {
            Value::String(text) if key == "secret_id_accessor" => self.handles.push(text.clone()),
            // Short texts could occur by chance, and accessors of mounts (`kv_12345678`) are not secret.
            Value::String(text) if SECRET.contains(&key) && text.len() >= 16 && !names_a_mount(key, text) => {
                self.secrets.push(text.clone());
            }
            Value::String(text) if text.starts_with("otpauth://") => {
                let secret = text.rsplit_once("secret=").map(|(_, secret)| secret.to_owned());
                self.secrets.extend(secret);
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(key, item)),
            Value::Object(members) => members.iter().for_each(|(key, value)| self.collect(key, value)),
            _ => {}
        }
    }

    fn request(&self, step: &Step) -> Result<Request> {
        let (method, path) = step.target()?;
        let path = self.fill_text(path);
        let path = if path.starts_with('/') { path } else { format!("/v1/{path}") };
        let mut headers = BTreeMap::new();
        let token = match step.caller.as_deref() {
            None => Some(self.root.clone()),
            Some("none") => None,
            Some(name) => Some(text(self.variables.get(name).with_context(|| format!("no variable {name}"))?)),
        };
        if let Some(token) = token {
            headers.insert("X-Vault-Token".to_owned(), token);
        }
        let body = match (&step.raw, &step.body) {
            (Some(raw), None) => Some(self.fill_text(raw).into_bytes()),
            (None, Some(body)) => Some(self.fill(body).to_string().into_bytes()),
            (None, None) => None,
            (Some(_), Some(_)) => bail!("a step has either raw or body"),
        };
        if body.is_some() {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            headers.insert("Content-Type".to_owned(), kind.to_owned());
        }
        for (name, value) in &step.headers {
            match value {
                Some(value) => drop(headers.insert(name.clone(), self.fill_text(value))),
                None => drop(headers.remove(name)),
            }
        }
        Ok(Request { method: method.to_owned(), path, headers: headers.into_iter().collect(), body })
    }

    /// Captures the variables of a step.
    pub fn capture(&mut self, step: &Step, response: &Response) -> Result<()> {
        let body = response.json().unwrap_or_default();
        for (name, path) in &step.capture {
            let pointer = format!("/{}", path.replace('.', "/"));
            let value = body.pointer(&pointer).with_context(|| format!("nothing at {path} to capture"))?;
            self.variables.insert(name.clone(), value.clone());
        }
        Ok(())
    }

    /// Removes the setup; errors are ignored, since a step may have removed a part of it. Returns the number of requests
    /// that were sent again.
    pub fn end(mut self) -> usize {
        let cleanup: Vec<_> = self.scenario.cleanup.iter().map(|path| ("DELETE", self.fill_text(path), None)).collect();
        for (method, path, body) in cleanup.into_iter().chain(std::mem::take(&mut self.undo).into_iter().rev()) {
            let _ = self.client.call(Some(&self.root), method, &path, body.as_ref());
        }
        self.repeated.unwrap_or_default()
    }

    fn fill_text(&self, template: &str) -> String {
        fill_text(&self.variables, template)
    }

    fn fill(&self, value: &Value) -> Value {
        fill(&self.variables, value)
    }
}

fn names_a_mount(key: &str, text: &str) -> bool {
    key == "accessor" && text.rsplit_once('_').is_some_and(|(_, id)| id.len() == 8)
}

/// Collects the words of a request that begin with `canary-`.
fn collect_marked(request: &Request, secrets: &mut Vec<String>) {
    let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default()).into_owned();
    let headers = request.headers.iter().map(|(_, value)| value.as_str());
    let texts = headers.chain(std::iter::once(body.as_str()));
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    secrets.extend(words.filter(|word| word.starts_with("canary-")).map(str::to_owned));
}

/// Replaces the variables in an expectation.
pub fn fill_expect(variables: &Variables, expect: &Expect) -> Expect {
    let part = |value: &Option<Value>| value.as_ref().map(|v| fill(variables, v));
    Expect {
        data: part(&expect.data),
        auth: part(&expect.auth),
        wrap_info: part(&expect.wrap_info),
        warnings: part(&expect.warnings),
        lease_id: part(&expect.lease_id),
        errors: part(&expect.errors),
        body: part(&expect.body),
        text: expect.text.as_ref().map(|t| fill_text(variables, t)),
        ..expect.clone()
    }
}

/// Replaces `{{name}}` in every string, including keys; a string of only one variable takes its type.
fn fill(variables: &Variables, value: &Value) -> Value {
    match value {
        Value::String(template) => {
            let whole = template.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
            match whole.and_then(|name| variables.get(name)) {
                Some(value) => value.clone(),
                None => fill_text(variables, template).into(),
            }
        }
        Value::Array(items) => items.iter().map(|item| fill(variables, item)).collect(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (fill_text(variables, key), fill(variables, value))).collect()
        }
        other => other.clone(),
    }
}

/// Replaces `{{name}}` of known variables; other braces (Vault's own templates) are unchanged.
fn fill_text(variables: &Variables, template: &str) -> String {
    let mut out = template.to_owned();
    if !out.contains("{{") {
        return out;
    }
    for (name, value) in variables {
        out = out.replace(&format!("{{{{{name}}}}}"), &text(value));
    }
    out
}

/// A variable as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Eight hexadecimal digits that are unique among all scenarios and runs.
fn fresh_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let mixed = (time ^ (COUNT.fetch_add(1, Ordering::Relaxed) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}", mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_known_variables_and_no_other_braces() {
        let variables = Variables::from([("kv".to_owned(), "kv-1".into()), ("n".to_owned(), 3.into())]);
        assert_eq!(fill(&variables, &json!("{{kv}}/{{identity.entity.id}}")), json!("kv-1/{{identity.entity.id}}"));
        assert_eq!(fill(&variables, &json!({"{{kv}}/": "{{n}}"})), json!({"kv-1/": 3}));
    }
}
