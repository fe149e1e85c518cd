//! Malformed requests over raw TCP: the server responds with a status below 500 or closes the connection, and keeps
//! running.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::mutation;
use super::{Findings, Options};
use crate::http::read_response;
use crate::rng::Rng;
use crate::servers::{Server, Storage};

/// How long to wait for a response before the sending side is closed.
const FIRST_TIMEOUT: Duration = Duration::from_millis(100);
/// The timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, u64>,
    failures: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut server = Server::start_unsealed(options.on, Storage::Memory)?;
    prepare(&server)?;
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..options.connections {
            scope.spawn(|| work(&server, options, &next, &tally));
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !server.is_running() {
        tally.failures.push(format!("the server has exited; its log: {}", server.log()));
    } else if server.client()?.call(Some(&server.root), "GET", "auth/token/lookup-self", None)?.status != 200 {
        tally.failures.push("the server no longer responds to a valid request".to_owned());
    }
    let seconds = started.elapsed().as_secs_f64();
    let statuses: Vec<String> = tally.statuses.iter().map(|(status, count)| format!("{status}x{count}")).collect();
    let numbers = format!("{} in {seconds:.0} s (0: closed without a response)", statuses.join(" "));
    let passed = options.count.saturating_sub(tally.failures.len() as u64);
    Ok(Findings { passed, failures: tally.failures, numbers })
}

/// Creates the data that the requests use.
fn prepare(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    let mut call = |path: &str, body: serde_json::Value| -> Result<()> {
        let response = client.call(Some(&server.root), "POST", path, Some(&body))?;
        if response.status >= 300 {
            bail!("{path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
        }
        Ok(())
    };
    call("sys/mounts/kv", json!({"type": "kv"}))?;
    call("sys/mounts/kv2", json!({"type": "kv", "options": {"version": "2"}}))?;
    call("sys/auth/ar", json!({"type": "approle"}))?;
    call("auth/ar/role/r", json!({}))?;
    call("kv/app", json!({"v": 1}))
}

fn work(server: &Server, options: &Options, next: &AtomicU64, tally: &Mutex<Tally>) {
    loop {
        let item = next.fetch_add(1, Ordering::Relaxed);
        if item >= options.count {
            return;
        }
        let bytes = mutation::request(&mut Rng::of(options.seed, item), &server.root);
        let outcome = exchange(&server.url, &bytes);
        let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match outcome {
            Ok(status) => {
                *tally.statuses.entry(status).or_default() += 1;
                if status >= 500 {
                    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
                    tally.failures.push(format!("item {item}: {status} to {shown:?}"));
                }
            }
            Err(error) => tally.failures.push(format!("item {item}: {error:#}")),
        }
        if tally.failures.len() > 100 {
            return;
        }
    }
}

/// Sends the bytes. Returns the status of the first response, or 0 when the server closed the connection without one.
fn exchange(url: &str, bytes: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    // A server may close before it has read everything.
    let _ = stream.write_all(bytes);
    // Closing at once would discard many responses.
    stream.set_read_timeout(Some(FIRST_TIMEOUT))?;
    if stream.peek(&mut [0]).is_err() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    let started = Instant::now();
    match read_response(&mut BufReader::new(stream), bytes.starts_with(b"HEAD ")) {
        Ok(response) => Ok(response.status),
        Err(_) if started.elapsed() < TIMEOUT => Ok(0),
        Err(error) => Err(error.context("no response and no end of the connection")),
    }
}
