//! A TCP proxy in front of one server, which can delay all bytes, and keeps the bytes that clients send.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// The most bytes that are kept.
const KEPT: usize = 16 << 20;

/// The proxy; its threads end with the process.
pub struct SlowProxy {
    /// Its base URL.
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Milliseconds.
    delay: AtomicU64,
    sent: Mutex<Vec<u8>>,
}

impl SlowProxy {
    /// Opens a proxy on a free port in front of this URL.
    ///
    /// # Errors
    /// When no port is free.
    pub fn open(target: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let (target, held) = (target.trim_start_matches("http://").to_owned(), shared.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, shared) = (target.clone(), held.clone());
                std::thread::spawn(move || shared.forward(&client, &target));
            }
        });
        Ok(Self { url, shared })
    }

    /// Delays each block of bytes by this time.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The bytes that clients have sent.
    pub fn sent(&self) -> Vec<u8> {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    /// Forwards both directions of a connection until one ends.
    fn forward(self: &Arc<Self>, client: &TcpStream, target: &str) {
        let Ok(server) = TcpStream::connect(target) else { return };
        let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
        let shared = self.clone();
        std::thread::spawn(move || shared.pump(from, to, true));
        let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else { return };
        self.pump(from, to, false);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, keeps: bool) {
        let mut block = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut block) {
            if keeps {
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                let rest = KEPT.saturating_sub(sent.len());
                sent.extend_from_slice(&block[..length.min(rest)]);
            }
            let delay = self.delay.load(Ordering::Relaxed);
            if delay > 0 {
                std::thread::sleep(Duration::from_millis(delay));
            }
            if to.write_all(&block[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
