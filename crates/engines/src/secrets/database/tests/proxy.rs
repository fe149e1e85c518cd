//! A TCP proxy in front of a server that can lose the response to one command.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const PASS: u8 = 0;
const LOSE: u8 = 1;
const REFUSE: u8 = 2;

/// A proxy on loopback.
pub(super) struct Proxy {
    pub(super) port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Forwards to a port of loopback. `command` is the text in the command whose response can be lost.
    pub(super) fn start(target: u16, command: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let shared = mode.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.load(Ordering::SeqCst) != REFUSE
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", target))
                {
                    forward(client, server, command, &shared);
                }
            }
        });
        Proxy { port, mode }
    }

    /// Forwards everything.
    pub(super) fn pass(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }

    /// Forwards the next such command, loses its response with the connection, and refuses connections from then on.
    pub(super) fn lose_the_next_answer(&self) {
        self.mode.store(LOSE, Ordering::SeqCst);
    }
}

fn forward(client: TcpStream, server: TcpStream, command: &'static str, mode: &Arc<AtomicU8>) {
    let is_lost = Arc::new(AtomicBool::new(false));
    let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (mode, lost) = (mode.clone(), is_lost.clone());
    let has = move |bytes: &[u8]| bytes.windows(command.len()).any(|window| window == command.as_bytes());
    std::thread::spawn(move || {
        copy(&client, &to_server, |bytes| {
            if has(bytes) && mode.compare_exchange(LOSE, REFUSE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                lost.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    std::thread::spawn(move || copy(&server, &to_client, |_| !is_lost.load(Ordering::SeqCst)));
}

/// Copies until the end, or until `forwards` is false for the bytes that were read.
fn copy(mut from: &TcpStream, mut to: &TcpStream, forwards: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !forwards(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
