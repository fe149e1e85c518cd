//! Clients of a server while its seals fail: no request fails, and none waits for a seal.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Client;

/// The concurrent clients, and the pause of each between two requests.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);

/// What the clients have seen.
#[derive(Default)]
pub(super) struct Load {
    is_over: AtomicBool,
    pub(super) requests: AtomicU64,
    /// Microseconds.
    slowest: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// The number of acknowledged writes of each client.
    written: [AtomicU64; CLIENTS],
}

impl Load {
    /// Runs clients beside `work`.
    pub(super) fn during<T>(&self, url: &str, root: &str, longest: Duration, work: impl FnOnce() -> T) -> T {
        self.is_over.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.send_requests(url, root, longest, client));
            }
            let result = work();
            self.is_over.store(true, Ordering::SeqCst);
            result
        })
    }

    fn send_requests(&self, url: &str, root: &str, longest: Duration, number: usize) {
        let Ok(mut client) = Client::new(url) else { return };
        while !self.is_over.load(Ordering::SeqCst) {
            let next = self.written[number].load(Ordering::SeqCst);
            let path = format!("kv/load{number}");
            for (method, path, body) in [
                ("PUT", path.as_str(), Some(json!({"n": next + 1}))),
                ("GET", path.as_str(), None),
                ("GET", "auth/token/lookup-self", None),
                ("GET", "sys/seal-status", None),
            ] {
                let started = Instant::now();
                let response = client.call(Some(root), method, path, body.as_ref());
                let took = started.elapsed();
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.slowest.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                let what = match response {
                    Ok(response) if response.status >= 300 => format!("{method} {path}: {}", response.status),
                    Err(error) => format!("{method} {path}: {error:#}"),
                    Ok(_) if took > longest => format!("{method} {path}: took {} ms", took.as_millis()),
                    Ok(_) => continue,
                };
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
            }
            self.written[number].store(next + 1, Ordering::SeqCst);
            std::thread::sleep(PAUSE);
        }
    }

    /// The slowest response.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest.load(Ordering::Relaxed))
    }

    /// The failures since the last call.
    pub(super) fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The paths and the values that the server has at least.
    pub(super) fn written(&self) -> Vec<(String, u64)> {
        let counts = self.written.iter().enumerate();
        counts.map(|(client, count)| (format!("kv/load{client}"), count.load(Ordering::SeqCst))).collect()
    }
}
