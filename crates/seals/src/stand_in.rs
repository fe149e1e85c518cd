//! An HTTP server in the place of a service, for tests: a function returns the responses, and faults can be switched on.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request that a stand-in received.
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// A header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field of a form in the body.
    pub(crate) fn form(&self, name: &str) -> String {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let value = body.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        let value = value.map(|(_, value)| value.replace('+', " ")).unwrap_or_default();
        percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned()
    }
}

/// What a stand-in does instead of calling its function.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Responds with a status, headers and a body.
    Reply(u16, &'static str, String),
    /// Never responds.
    Hang,
    /// Closes the connection.
    Close,
}

/// The function of the responses: status and body.
pub(crate) type Answer = Arc<dyn Fn(&Received) -> (u16, String) + Send + Sync>;

/// A running stand-in; ends when dropped.
pub(crate) struct StandIn {
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    answer: Answer,
    fault: Mutex<Option<Fault>>,
    /// Paths with this part have no fault.
    spared: Mutex<Option<&'static str>>,
    calls: Mutex<Vec<String>>,
}

impl StandIn {
    /// Starts a stand-in on a free port.
    pub(crate) async fn start(answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Answer = Arc::new(answer);
        let shared = Shared { answer, fault: Mutex::default(), spared: Mutex::default(), calls: Mutex::default() };
        let shared = Arc::new(shared);
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        StandIn { url, shared, task }
    }

    /// From now on it does this; `None` ends the fault.
    pub(crate) fn fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock() = fault;
    }

    /// Paths with this part have no faults: the source of credentials.
    pub(crate) fn spare(&self, part: &'static str) {
        *self.shared.spared.lock() = Some(part);
    }

    /// The methods and paths of the requests so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    while let Some(received) = receive(&mut stream).await {
        shared.calls.lock().push(format!("{} {}", received.method, received.uri));
        let is_spared = shared.spared.lock().is_some_and(|part| received.uri.path().contains(part));
        let fault = shared.fault.lock().clone().filter(|_| !is_spared);
        let (status, headers, body) = match fault {
            Some(Fault::Close) => return,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Reply(status, headers, body)) => (status, headers, body),
            None => {
                let (status, body) = (shared.answer)(&received);
                (status, "", body)
            }
        };
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    let mut words = first.split_whitespace();
    let method = words.next()?.parse().ok()?;
    let uri = words.next()?.parse().ok()?;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { method, uri, headers, body })
}
