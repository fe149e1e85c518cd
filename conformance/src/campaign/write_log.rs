//! The acknowledged writes of a campaign, to compare with the store: acknowledged writes must be there, refused and
//! interrupted ones may be.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Findings;
use crate::http::Client;
use crate::servers::Server;

/// The writes of one writer.
#[derive(Default)]
pub(super) struct WriteLog {
    /// Keys that were written once and acknowledged, with their value.
    written: BTreeMap<String, u64>,
    /// Keys whose deletion was acknowledged.
    deleted: Vec<String>,
    /// Keys whose deletion was sent and not acknowledged: both results are correct.
    uncertain: BTreeSet<String>,
    /// Tokens whose creation was acknowledged.
    tokens: Vec<String>,
    /// The counter in KV version 2: the last acknowledged value and the last one sent.
    counter: (u64, u64),
    /// Error responses: their status and request.
    pub(super) refused: Vec<(u16, String)>,
}

/// Mounts the engines that the writers use.
pub(super) fn prepare(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    for (path, body) in [
        ("sys/mounts/kv", json!({"type": "kv"})),
        ("sys/mounts/kv2", json!({"type": "kv", "options": {"version": "2"}})),
    ] {
        let response = client.call(Some(&server.root), "POST", path, Some(&body))?;
        if response.status >= 300 {
            bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
        }
    }
    Ok(())
}

/// The numbers of acknowledged records and counter steps.
pub(super) fn acknowledged(logs: &[WriteLog]) -> (usize, u64) {
    let records = logs.iter().map(|d| d.written.len() + d.deleted.len() + d.tokens.len()).sum();
    (records, logs.iter().map(|d| d.counter.0).sum())
}

/// One write, recorded when it is acknowledged; an error when the connection breaks.
pub(super) fn write(url: &str, root: &str, writer: usize, round: u64, step: u64, log: &mut WriteLog) -> Result<()> {
    thread_local!(static CLIENT: std::cell::RefCell<Option<Client>> = const { std::cell::RefCell::new(None) });
    CLIENT.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Client::new(url)?);
        }
        let client = slot.as_mut().context("no client")?;
        let key = format!("kv/w{writer}/r{round}-{step}");
        let (method, path, body) = match step % 5 {
            0 | 1 => ("PUT", key.clone(), Some(json!({"v": step}))),
            2 => ("DELETE", format!("kv/w{writer}/r{round}-{}", step - 1), None),
            3 => ("POST", "auth/token/create".to_owned(), Some(json!({"policies": ["default"], "ttl": "10h"}))),
            _ => {
                log.counter.1 += 1;
                ("POST", format!("kv2/data/counter{writer}"), Some(json!({"data": {"n": log.counter.1}})))
            }
        };
        if method == "DELETE" {
            log.uncertain.insert(path.clone());
        }
        let response = client.call(Some(root), method, &path, body.as_ref())?;
        if response.status >= 300 {
            let what = format!("{method} {path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
            log.refused.push((response.status, what));
            return Ok(());
        }
        match step % 5 {
            0 | 1 => drop(log.written.insert(key, step)),
            2 => {
                log.written.remove(&path);
                log.uncertain.remove(&path);
                log.deleted.push(path);
            }
            3 => log.tokens.extend(response.json().and_then(|b| b["auth"]["client_token"].as_str().map(str::to_owned))),
            _ => log.counter.0 = log.counter.1,
        }
        Ok(())
    })
}

/// Compares the logs with the store.
pub(super) fn check(
    server: &Server,
    logs: &[WriteLog],
    round: u64,
    everything: bool,
    found: &mut Findings,
) -> Result<()> {
    let mut client = server.client()?;
    let mut read = |token: &str, path: &str| -> Result<(u16, Value)> {
        let response = client.call(Some(token), "GET", path, None)?;
        Ok((response.status, response.json().unwrap_or_default()))
    };
    let mut require = |ok: bool, what: String| match ok {
        true => found.passed += 1,
        false => found.failures.push(format!("round {round}: {what}")),
    };
    let recent = |key: &str| everything || (round.saturating_sub(1)..=round).any(|r| key.contains(&format!("/r{r}-")));
    for (writer, log) in logs.iter().enumerate() {
        for (key, value) in log.written.iter().filter(|(key, _)| recent(key)) {
            let (status, body) = read(&server.root, key)?;
            let either = status == 404 && log.uncertain.contains(key);
            require(body["data"]["v"] == json!(value) || either, format!("{key} was {value} and is {status} {body}"));
        }
        for key in log.deleted.iter().filter(|key| recent(key)) {
            let (status, _) = read(&server.root, key)?;
            require(status == 404, format!("{key} was deleted and is {status}"));
        }
        let tokens = if everything { &log.tokens[..] } else { &log.tokens[log.tokens.len().saturating_sub(20)..] };
        for token in tokens {
            let (status, _) = read(token, "auth/token/lookup-self")?;
            require(status == 200, format!("a token of writer {writer} is {status}"));
        }
        if log.counter.0 > 0 {
            let (status, body) = read(&server.root, &format!("kv2/data/counter{writer}"))?;
            let n = body["data"]["data"]["n"].as_u64().unwrap_or(0);
            let fits = (log.counter.0..=log.counter.1).contains(&n);
            require(
                fits,
                format!("counter {writer} is {status} {n}, acknowledged {} sent {}", log.counter.0, log.counter.1),
            );
        }
    }
    Ok(())
}
