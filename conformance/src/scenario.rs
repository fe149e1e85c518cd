//! The format of a scenario file: its setup, its requests, its expected responses. `README.md` describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// One file under `scenarios/`: steps that run in order on a server of any kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in one sentence.
    pub about: String,
    /// The server that it needs; most scenarios need no special one.
    #[serde(default)]
    pub needs: Needs,
    /// A real database for this scenario, which defines variables.
    pub database: Option<Database>,
    /// Secrets engines to mount, by the variable for the mount path.
    #[serde(default)]
    pub mounts: BTreeMap<String, Value>,
    /// Auth methods to enable, by the variable for the mount path (without `auth/`).
    #[serde(default)]
    pub auth: BTreeMap<String, Value>,
    /// Policies to write, by the variable for the policy name.
    #[serde(default)]
    pub policies: BTreeMap<String, String>,
    /// Tokens to create, by the variable for the token; `NAME_accessor` is its accessor.
    #[serde(default)]
    pub tokens: BTreeMap<String, Value>,
    /// Paths to `DELETE` at the end, also after a failure.
    #[serde(default)]
    pub cleanup: Vec<String>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// The server that a scenario needs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// Any unsealed server: the scenario leaves no data.
    #[default]
    Shared,
    /// Its own unsealed server, because it changes global state.
    Own,
    /// Its own server that is not initialized.
    Uninitialized,
    /// The same with a configuration that permits `sys/rekey`, `sys/generate-root` and `sys/in-flight-req` without a
    /// token, and with `introspection_endpoint`.
    Open,
    /// The same with a `static` seal.
    Static,
}

/// The database that a scenario needs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// A database and an administrator in a PostgreSQL: `pg_url`, `pg_admin`, `pg_password` and more.
    Postgres,
    /// The same in a MariaDB: `mysql_url`, `mysql_admin`, `mysql_password` and more.
    Mariadb,
    /// An administrator and a key in a Redis: `redis_port`, `redis_admin`, `redis_password`, `redis_key` and more.
    Redis,
}

/// The credentials of a database statement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// One request and its expected response.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What the step shows, where the request does not make it clear.
    pub note: Option<String>,
    /// The path of a GET, below `/v1/` unless it begins with `/`; the other methods likewise.
    pub get: Option<String>,
    /// Path of a POST.
    pub post: Option<String>,
    /// Path of a PUT.
    pub put: Option<String>,
    /// Path of a PATCH (sent as a merge patch).
    pub patch: Option<String>,
    /// Path of a DELETE.
    pub delete: Option<String>,
    /// Path of a LIST.
    pub list: Option<String>,
    /// Path of a SCAN.
    pub scan: Option<String>,
    /// Path of a HEAD.
    pub head: Option<String>,
    /// Path of an OPTIONS.
    pub options: Option<String>,
    /// A statement for the scenario's database: 200 with the rows as text, or 400 with the error.
    pub sql: Option<String>,
    /// A command for the scenario's Redis, words separated by spaces: 200 with one value per line, or 400 with the
    /// error.
    pub redis: Option<String>,
    /// The user of the statement; default: the administrator.
    pub login: Option<Login>,
    /// The variable of the token, `none`, or absent for the root token.
    #[serde(rename = "as")]
    pub caller: Option<String>,
    /// Additional headers; null removes a default header.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// The body as JSON.
    pub body: Option<Value>,
    /// The body as text, sent unchanged.
    pub raw: Option<String>,
    /// The expected response; missing only while a scenario is recorded.
    pub expect: Option<Expect>,
    /// Where Keepfast deliberately differs: `expect` is then for Keepfast, this is for OpenBao.
    pub differs: Option<Differs>,
    /// Variables with TOTP codes, computed before the step: name to the URL of the secret, with `+1` or `-1` for the code of
    /// the next or the former period.
    #[serde(default)]
    pub totp: BTreeMap<String, String>,
    /// Variables to capture from the response: name to dotted path (`data.keys.0`).
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// For asynchronous effects: repeat the step until the expectation holds, at most this number of seconds.
    #[serde(default)]
    pub within: u64,
}

/// The response of OpenBao where Keepfast deliberately differs, and the reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// Why Keepfast differs.
    pub reason: String,
    /// The response of OpenBao.
    #[serde(rename = "peer")]
    pub openbao: Expect,
}

/// An expected response. Exactly one form of the body is present: `data`/`auth`/`wrap_info`/`warnings` (Vault's
/// envelope), `errors`, `body`, `text`, or `empty`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The status code, or its class as `4xx`.
    pub status: Status,
    /// `data` of the envelope; the other members are then null, empty, or as specified here.
    pub data: Option<Value>,
    /// `auth` of the envelope.
    pub auth: Option<Value>,
    /// `wrap_info` of the envelope.
    pub wrap_info: Option<Value>,
    /// `warnings` of the envelope.
    pub warnings: Option<Value>,
    /// `lease_id` of the envelope when it is not empty.
    pub lease_id: Option<Value>,
    /// `lease_duration` of the envelope when it is not 0.
    pub lease_duration: Option<Value>,
    /// `renewable` of the envelope when it is not false.
    pub renewable: Option<Value>,
    /// Whether the members of `data` must also be at the top level, as on old paths of `sys/`.
    #[serde(default)]
    pub mirrored: bool,
    /// The body is `{"errors": […]}` with these messages.
    pub errors: Option<Value>,
    /// The complete JSON body.
    pub body: Option<Value>,
    /// The complete body as text.
    pub text: Option<String>,
    /// There is no body.
    #[serde(default)]
    pub empty: bool,
    /// Headers, by name in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
}

/// An expected status.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Status {
    /// This status.
    Code(u16),
    /// Any status of a class, such as `4xx`.
    Class(String),
}

impl Default for Status {
    fn default() -> Self {
        Self::Code(200)
    }
}

impl Status {
    /// Whether a status is as expected.
    pub fn holds(&self, status: u16) -> bool {
        match self {
            Self::Code(code) => *code == status,
            Self::Class(class) => class.strip_suffix("xx") == Some(&(status / 100).to_string()),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Class(class) => class.fmt(f),
        }
    }
}

impl Step {
    /// The method and the path of the step.
    pub fn target(&self) -> Result<(&'static str, &str)> {
        let all = [
            ("GET", &self.get),
            ("POST", &self.post),
            ("PUT", &self.put),
            ("PATCH", &self.patch),
            ("DELETE", &self.delete),
            ("LIST", &self.list),
            ("SCAN", &self.scan),
            ("HEAD", &self.head),
            ("OPTIONS", &self.options),
            ("SQL", &self.sql),
            ("REDIS", &self.redis),
        ];
        let mut given = all.iter().filter_map(|(method, path)| path.as_deref().map(|path| (*method, path)));
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            _ => bail!(
                "a step names exactly one of get, post, put, patch, delete, list, scan, head, options, sql, redis"
            ),
        }
    }
}

/// A scenario and its file.
pub struct Loaded {
    /// The file.
    pub file: PathBuf,
    /// Its name below `scenarios/`, without the extension: `kv2/data`.
    pub name: String,
    /// Its content.
    pub scenario: Scenario,
}

/// Reads every `.yaml` file below `root` whose name contains one of `only` (all files when it is empty), sorted.
pub fn load(root: &Path, only: &[String]) -> Result<Vec<Loaded>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut scenarios = Vec::new();
    for file in files {
        let name = file.strip_prefix(root)?.with_extension("").to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let scenario = serde_saphyr::from_str(&text).with_context(|| format!("in scenario {name}"))?;
        scenarios.push(Loaded { file, name, scenario });
    }
    Ok(scenarios)
}

/// The parts of names in `pending.txt`: scenarios that Keepfast does not support yet.
pub fn pending(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| match line.split_once(char::is_whitespace) {
            Some((part, reason)) if !reason.trim().is_empty() => Ok(part.to_owned()),
            _ => bail!("{}: no reason for {line}", file.display()),
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}
