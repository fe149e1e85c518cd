//! What writers of a campaign noted, so that a store can be held against it: what was acknowledged is there, what was refused or cut off
//! may be or not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Found;
use crate::http::Client;
use crate::servers::Server;

/// What one writer knows.
#[derive(Default)]
pub(super) struct Diary {
    /// Keys that were written once and acknowledged: their value.
    written: BTreeMap<String, u64>,
    /// Keys whose deletion was acknowledged.
    deleted: Vec<String>,
    /// Keys whose deletion was sent and not acknowledged: either is right.
    uncertain: BTreeSet<String>,
    /// Tokens whose creation was acknowledged.
    tokens: Vec<String>,
    /// The version 2 counter: the last value acknowledged, and the last one sent.
    counter: (u64, u64),
    /// Answers that were neither 2xx nor cut off: their status, and what they were about.
    pub(super) refused: Vec<(u16, String)>,
}

/// Mounts what the writers write to.
pub(super) fn prepare(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    for (path, body) in [
        ("sys/mounts/kv", json!({"type": "kv"})),
        ("sys/mounts/kv2", json!({"type": "kv", "options": {"version": "2"}})),
    ] {
        let answer = client.call(Some(&server.root), "POST", path, Some(&body))?;
        if answer.status >= 300 {
            bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
    }
    Ok(())
}

/// How many records, and steps of counters, were acknowledged.
pub(super) fn acknowledged(diaries: &[Diary]) -> (usize, u64) {
    let records = diaries.iter().map(|d| d.written.len() + d.deleted.len() + d.tokens.len()).sum();
    (records, diaries.iter().map(|d| d.counter.0).sum())
}

/// One step of a writer, noted when it was acknowledged; an error when the connection is cut.
pub(super) fn write(url: &str, root: &str, writer: usize, round: u64, step: u64, diary: &mut Diary) -> Result<()> {
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
                diary.counter.1 += 1;
                ("POST", format!("kv2/data/counter{writer}"), Some(json!({"data": {"n": diary.counter.1}})))
            }
        };
        if method == "DELETE" {
            diary.uncertain.insert(path.clone());
        }
        let answer = client.call(Some(root), method, &path, body.as_ref())?;
        if answer.status >= 300 {
            let what = format!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
            diary.refused.push((answer.status, what));
            return Ok(());
        }
        match step % 5 {
            0 | 1 => drop(diary.written.insert(key, step)),
            2 => {
                diary.written.remove(&path);
                diary.uncertain.remove(&path);
                diary.deleted.push(path);
            }
            3 => diary.tokens.extend(answer.json().and_then(|b| b["auth"]["client_token"].as_str().map(str::to_owned))),
            _ => diary.counter.0 = diary.counter.1,
        }
        Ok(())
    })
}

/// Holds the diaries against the store.
pub(super) fn check(server: &Server, diaries: &[Diary], round: u64, everything: bool, found: &mut Found) -> Result<()> {
    let mut client = server.client()?;
    let mut read = |token: &str, path: &str| -> Result<(u16, Value)> {
        let answer = client.call(Some(token), "GET", path, None)?;
        Ok((answer.status, answer.json().unwrap_or_default()))
    };
    let mut judge = |ok: bool, what: String| match ok {
        true => found.passed += 1,
        false => found.failures.push(format!("round {round}: {what}")),
    };
    let recent = |key: &str| everything || (round.saturating_sub(1)..=round).any(|r| key.contains(&format!("/r{r}-")));
    for (writer, diary) in diaries.iter().enumerate() {
        for (key, value) in diary.written.iter().filter(|(key, _)| recent(key)) {
            let (status, body) = read(&server.root, key)?;
            let either = status == 404 && diary.uncertain.contains(key);
            judge(body["data"]["v"] == json!(value) || either, format!("{key} was {value} and is {status} {body}"));
        }
        for key in diary.deleted.iter().filter(|key| recent(key)) {
            let (status, _) = read(&server.root, key)?;
            judge(status == 404, format!("{key} was deleted and is {status}"));
        }
        let tokens =
            if everything { &diary.tokens[..] } else { &diary.tokens[diary.tokens.len().saturating_sub(20)..] };
        for token in tokens {
            let (status, _) = read(token, "auth/token/lookup-self")?;
            judge(status == 200, format!("a token of writer {writer} is {status}"));
        }
        if diary.counter.0 > 0 {
            let (status, body) = read(&server.root, &format!("kv2/data/counter{writer}"))?;
            let n = body["data"]["data"]["n"].as_u64().unwrap_or(0);
            let fits = (diary.counter.0..=diary.counter.1).contains(&n);
            judge(
                fits,
                format!("counter {writer} is {status} {n}, acknowledged {} sent {}", diary.counter.0, diary.counter.1),
            );
        }
    }
    Ok(())
}
