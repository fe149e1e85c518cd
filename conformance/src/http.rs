//! A small blocking HTTP/1.1 client. It sends exactly the given bytes (any method, path and header), which other
//! clients refuse, and keeps its connection open between requests.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The timeout of one response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one server over plain HTTP.
pub struct Client {
    authority: String,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

/// A request; `path` is sent unchanged.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method, including Vault's own such as `LIST`.
    pub method: String,
    /// The path with its query, beginning with `/`.
    pub path: String,
    /// The headers besides `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body; `None` sends no body.
    pub body: Option<Vec<u8>>,
}

/// A response of the server.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as bytes.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The first header with this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Client {
    /// Creates a client for a base URL such as `http://127.0.0.1:8200`.
    pub fn new(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else { bail!("only http:// URLs can be tested, not {url}") };
        let authority = rest.trim_end_matches('/').to_owned();
        Ok(Self { authority, timeout: RESPONSE_TIMEOUT, connection: None })
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// The client with another timeout of one response, after which its connection is closed.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends a request; opens the connection again once when the server has closed it.
    pub fn send(&mut self, request: &Request) -> Result<Response> {
        let reused = self.connection.is_some();
        match self.exchange(request) {
            Err(error) if reused && !is_timeout(&error) => self.exchange(request),
            other => other,
        }
        .with_context(|| format!("{} {} at {}", request.method, request.path, self.authority))
    }

    /// Sends the same request `count` times without waiting for responses, and calls `each` with the status and the body
    /// of every response. It reads only the headers that bound the body, since the clients of a campaign share the
    /// processor with the servers.
    ///
    /// # Errors
    /// When the connection fails, or a body has no length; earlier responses were passed to `each`.
    pub fn pipeline(&mut self, request: &Request, count: usize, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.authority, self.timeout)?,
        };
        connection.get_mut().write_all(&encode(request, &self.authority).repeat(count))?;
        let (mut line, mut body) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let status = read_bounded(&mut connection, &mut line, &mut body)?;
            each(status, &body);
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Sends a JSON request with a token, to prepare a test: method, path below `/v1/`, body.
    pub fn call(&mut self, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let mut headers = Vec::new();
        if let Some(token) = token {
            headers.push(("X-Vault-Token".to_owned(), token.to_owned()));
        }
        if body.is_some() {
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        let body = body.map(|b| b.to_string().into_bytes());
        self.send(&Request { method: method.to_owned(), path: format!("/v1/{path}"), headers, body })
    }

    fn exchange(&mut self, request: &Request) -> Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.authority, self.timeout)?,
        };
        connection.get_mut().write_all(&encode(request, &self.authority))?;
        let response = read_response(&mut connection, request.method == "HEAD")?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }
}

/// Whether no response came in time: the server may still handle the request.
fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

fn connect(authority: &str, timeout: Duration) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// The bytes of a request.
pub fn encode(request: &Request, authority: &str) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.1\r\nHost: {authority}\r\n", request.method, request.path).into_bytes();
    for (name, value) in &request.headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = &request.body {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(request.body.as_deref().unwrap_or_default());
    out
}

/// Reads one response; `headless` is for `HEAD`, whose response has a length and no body.
pub fn read_response(connection: &mut impl BufRead, headless: bool) -> Result<Response> {
    let line = read_line(connection)?;
    let status: u16 = line.split(' ').nth(1).context("no status line")?.parse().context("bad status line")?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if (100..200).contains(&status) {
        return read_response(connection, headless);
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if headless || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        response.body = read_chunks(connection)?;
    } else if let Some(length) = response.header("content-length") {
        response.body = vec![0; length.parse().context("bad content-length")?];
        connection.read_exact(&mut response.body)?;
    } else {
        connection.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

/// Reads a response whose body has a length, into buffers that are used again. Returns its status.
fn read_bounded(connection: &mut impl BufRead, line: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<u16> {
    const LENGTH: &[u8] = b"content-length:";
    let mut next = |line: &mut Vec<u8>| -> Result<()> {
        line.clear();
        if connection.read_until(b'\n', line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    };
    next(line)?;
    let status = line.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|text| text.parse().ok());
    let status: u16 = status.context("bad status line")?;
    let mut length = if status == 204 { Some(0) } else { None };
    loop {
        next(line)?;
        if line.as_slice() == b"\r\n" {
            break;
        }
        if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
            length = Some(std::str::from_utf8(&line[LENGTH.len()..])?.trim().parse().context("bad content-length")?);
        }
    }
    body.resize(length.context("a response without a length")?, 0);
    connection.read_exact(body)?;
    Ok(status)
}

fn read_line(connection: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    if connection.read_until(b'\n', &mut line)? == 0 {
        bail!("the server closed the connection");
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn read_chunks(connection: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(connection)?;
        let size =
            usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).context("bad chunk size")?;
        let start = body.len();
        body.resize(start + size, 0);
        connection.read_exact(&mut body[start..])?;
        read_line(connection)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_chunked_response() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(read_response(&mut &wire[..], false).unwrap().body, b"abcde");
    }

    #[test]
    fn reads_responses_that_follow_each_other() {
        let wire = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n\
                     HTTP/1.1 503 Unavailable\r\ncontent-length: 1\r\n\r\nd";
        let (mut rest, mut line, mut body) = (&wire[..], Vec::new(), Vec::new());
        let mut next = || read_bounded(&mut rest, &mut line, &mut body).map(|status| (status, body.clone()));
        assert_eq!(next().unwrap(), (200, b"abc".to_vec()));
        assert_eq!(next().unwrap(), (204, Vec::new()));
        assert_eq!(next().unwrap(), (503, b"d".to_vec()));
        assert!(next().is_err());
    }

    #[test]
    fn skips_an_interim_response() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        let response = read_response(&mut &wire[..], false).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (404, &b"{}"[..]));
    }
}
