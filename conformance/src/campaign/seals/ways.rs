//! The ways to the root key, each tried alone on a copy of the storage.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::seals::{STATIC_KEYS, SealKind, SealServices, done};
use crate::servers::Server;

/// How long a seal may take to open or to refuse.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The stanza of a seal that changes no slot by itself.
pub(super) const QUIET: &str = " enroll = \"manual\"\n health_check_enabled = \"false\"\n timeout = \"10s\"\n";

/// A way to the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// The seal `static` with its first key.
    Static,
    /// The seal `static` with its second key.
    NextStatic,
    Transit,
    Pkcs11,
    Shares,
    /// The shares of a rotation.
    NextShares,
}

/// A set of ways.
pub(super) type Ways = BTreeSet<Way>;

/// What callers know of a storage.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The root token; empty if its response was lost.
    pub(super) root: String,
    pub(super) shares: Vec<String>,
    pub(super) next_shares: Vec<String>,
    /// The paths of records whose writing was acknowledged.
    pub(super) written: Vec<String>,
}

impl Way {
    /// The ways of all keys of seals.
    pub(super) const OF_SEALS: [Self; 4] = [Self::Static, Self::NextStatic, Self::Transit, Self::Pkcs11];

    /// The way of a seal.
    pub(super) fn of(kind: SealKind) -> Self {
        match kind {
            SealKind::Static => Self::Static,
            SealKind::Transit => Self::Transit,
            SealKind::Pkcs11 => Self::Pkcs11,
        }
    }

    /// The stanza with which this is the only way; empty for shares.
    fn stanza(self, services: &SealServices) -> String {
        match self {
            Self::Static => services.stanza(SealKind::Static, QUIET),
            Self::NextStatic => services.static_stanza(STATIC_KEYS[1], None, QUIET),
            Self::Transit => services.stanza(SealKind::Transit, QUIET),
            Self::Pkcs11 => services.stanza(SealKind::Pkcs11, QUIET),
            Self::Shares | Self::NextShares => String::new(),
        }
    }

    fn shares(self, known: &Known) -> Option<&[String]> {
        match self {
            Self::Shares => Some(&known.shares),
            Self::NextShares => Some(&known.next_shares),
            _ => None,
        }
    }
}

/// Tries a way alone on a copy of `data`; the unsealed server, if it opens.
pub(super) fn open_alone(services: &SealServices, data: &Path, way: Way, known: &Known) -> Result<Option<Server>> {
    let mut server = services.serve(Some(data), &way.stanza(services), Vec::new())?;
    let is_open = match way.shares(known) {
        Some(shares) => submit(&server, shares, false)?,
        None => settled(&server)?.0,
    };
    if !is_open {
        return Ok(None);
    }
    server.root.clone_from(&known.root);
    if !known.root.is_empty() {
        server.wait_until_serving()?;
    }
    Ok(Some(server))
}

/// Submits shares until the server is unsealed; whether it is. A refusal of the last share is none.
pub(crate) fn submit(server: &Server, shares: &[String], migrate: bool) -> Result<bool> {
    let mut client = server.client()?;
    for share in shares {
        let body = json!({"key": share, "migrate": migrate});
        let response = client.call(None, "PUT", "sys/unseal", Some(&body))?;
        let body = response.json().unwrap_or_default();
        match response.status {
            200 if body["sealed"] == false => return Ok(true),
            200 | 400 | 503 => {}
            other => bail!("sys/unseal: {other} {body}"),
        }
    }
    Ok(false)
}

/// Whether the seals have unsealed the server, once they have or cannot; and the status.
pub(super) fn settled(server: &Server) -> Result<(bool, Value)> {
    let mut client = server.client()?;
    let end = Instant::now() + TIMEOUT;
    loop {
        let status = done(&mut client, "", "GET", "sys/seal-status", &Value::Null)?;
        let reason = status["sealed_reason"].as_str().unwrap_or_default();
        let is_over =
            ["uninitialized", "shares", "misconfigured", "wrong_key", "denied", "migration"].contains(&reason);
        if status["sealed"] == false || is_over {
            return Ok((status["sealed"] == false, status));
        }
        if Instant::now() > end {
            bail!("the seals neither open nor refuse: {status}; the log: {}", server.log());
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Whether a server shows within this time that each of its seals fails.
pub(crate) fn all_failed(server: &Server, within: Duration) -> Result<bool> {
    let end = Instant::now() + within;
    loop {
        let status = done(&mut server.client()?, "", "GET", "sys/seal-backend-status", &Value::Null)?;
        let backends = status["backends"].as_array().cloned().unwrap_or_default();
        if backends.len() == SealKind::ALL.len() && backends.iter().all(|backend| backend["healthy"] == false) {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The ways that the record of an unsealed server lists. Shares count as [`Way::Shares`].
pub(super) fn listed(server: &Server) -> Result<Ways> {
    let body = done(&mut server.client()?, &server.root, "GET", "sys/seals", &Value::Null)?;
    let data = &body["data"];
    let seals = data["seals"].as_array().context("no seals")?;
    let enrolled = seals.iter().filter(|seal| seal["enrolled"] == true);
    let mut ways = Ways::new();
    for seal in enrolled {
        ways.insert(match (seal["name"].as_str(), seal["key_id"].as_str()) {
            (Some("static"), Some(key)) if key == STATIC_KEYS[0] => Way::Static,
            (Some("static"), Some(key)) if key == STATIC_KEYS[1] => Way::NextStatic,
            (Some("transit"), _) => Way::Transit,
            (Some("pkcs11"), _) => Way::Pkcs11,
            _ => bail!("an unknown slot: {seal}"),
        });
    }
    let has_recovery = data["recovery_shares"].as_u64().unwrap_or_default() > 0 && data["break_glass"] == "on";
    if ways.is_empty() || has_recovery {
        ways.insert(Way::Shares);
    }
    Ok(ways)
}

/// The ways with the shares of a rotation as [`Way::Shares`].
pub(super) fn normalized(ways: &Ways) -> Ways {
    ways.iter().map(|way| if *way == Way::NextShares { Way::Shares } else { *way }).collect()
}

/// The records that are missing on an unsealed server.
pub(super) fn missing(server: &Server, known: &Known) -> Result<Vec<String>> {
    let mut client = server.client()?;
    let mut missing = Vec::new();
    for path in &known.written {
        let response = client.call(Some(&server.root), "GET", path, None)?;
        if response.status != 200 || response.json().is_none_or(|body| body["data"]["path"] != json!(path)) {
            missing.push(format!("{path} ({})", response.status));
        }
    }
    Ok(missing)
}
