//! kill -9 under concurrent writes: whatever was acknowledged is there after the restart, and the store always opens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Found, Options};
use crate::dice::Dice;
use crate::http::Client;
use crate::servers::{Server, Storage};

/// What one writer knows.
#[derive(Default)]
struct Diary {
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
    /// Answers that were neither 2xx nor cut off.
    refused: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<Found> {
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
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
    let mut diaries: Vec<Diary> = (0..options.connections).map(|_| Diary::default()).collect();
    let mut found = Found { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut slowest = Duration::ZERO;
    for round in 0..options.count {
        let mut dice = Dice::of(options.seed, round);
        write_until_killed(&mut server, &mut diaries, round, Duration::from_millis(20 + dice.below(280) as u64))?;
        let begun = Instant::now();
        server.restart().with_context(|| format!("round {round}: it does not start again"))?;
        server.unseal().with_context(|| format!("round {round}: it does not open again"))?;
        slowest = slowest.max(begun.elapsed());
        // Everything of the last rounds each time; everything of all rounds at the end.
        let everything = round + 1 == options.count;
        check(&server, &diaries, round, everything, &mut found)?;
    }
    let acknowledged: usize = diaries.iter().map(|d| d.written.len() + d.deleted.len() + d.tokens.len()).sum();
    let counters: u64 = diaries.iter().map(|d| d.counter.0).sum();
    found.numbers = format!(
        "{} kills, {} writers, {acknowledged} records and {counters} counter steps acknowledged, {} checks, open again after at most {} ms",
        options.count,
        options.connections,
        found.passed,
        slowest.as_millis()
    );
    Ok(found)
}

/// All writers write until the server is gone.
fn write_until_killed(server: &mut Server, diaries: &mut [Diary], round: u64, life: Duration) -> Result<()> {
    let over = AtomicBool::new(false);
    let (url, root) = (server.url.clone(), server.root.clone());
    std::thread::scope(|scope| -> Result<()> {
        for (writer, diary) in diaries.iter_mut().enumerate() {
            let (url, root, over) = (&url, &root, &over);
            scope.spawn(move || {
                let mut step = 0;
                while !over.load(Ordering::Relaxed) && write(url, root, writer, round, step, diary).is_ok() {
                    step += 1;
                }
            });
        }
        std::thread::sleep(life);
        server.kill()?;
        over.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// One step of a writer, noted when it was acknowledged; an error when the connection is cut.
fn write(url: &str, root: &str, writer: usize, round: u64, step: u64, diary: &mut Diary) -> Result<()> {
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
            diary.refused.push(format!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
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
fn check(server: &Server, diaries: &[Diary], round: u64, everything: bool, found: &mut Found) -> Result<()> {
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
        for refused in &diary.refused {
            judge(false, format!("refused: {refused}"));
        }
    }
    Ok(())
}
