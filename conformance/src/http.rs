//! A small blocking HTTP/1.1 client: it sends exactly the bytes it is told to (any method, any path, any header),
//! which the usual clients refuse to do, and keeps its connection open between requests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long one answer may take before the run gives up on the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One server, reached over plain HTTP.
pub struct Client {
    authority: String,
    connection: Option<BufReader<TcpStream>>,
}

/// A request as it goes over the wire; `path` is sent as it is.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method, also one of Vault's own such as `LIST`.
    pub method: String,
    /// The path with its query, beginning with `/`.
    pub path: String,
    /// The headers besides `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body; `None` sends none at all.
    pub body: Option<Vec<u8>>,
}

/// What the server answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Client {
    /// A client for a base URL such as `http://127.0.0.1:8200`.
    pub fn new(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else { bail!("only http:// URLs can be tested, not {url}") };
        Ok(Self { authority: rest.trim_end_matches('/').to_owned(), connection: None })
    }

    /// Sends a request; a connection that the server closed meanwhile is opened again once.
    pub fn send(&mut self, request: &Request) -> Result<Answer> {
        let reused = self.connection.is_some();
        match self.exchange(request) {
            Err(_) if reused => self.exchange(request),
            other => other,
        }
        .with_context(|| format!("{} {} at {}", request.method, request.path, self.authority))
    }

    /// A JSON call with a token, for setting things up: method, path below `/v1/`, body.
    pub fn call(&mut self, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
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

    fn exchange(&mut self, request: &Request) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.authority)?,
        };
        connection.get_mut().write_all(&encode(request, &self.authority))?;
        let answer = read_answer(&mut connection, request.method == "HEAD")?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

fn connect(authority: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
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

/// Reads one answer; `headless` is for `HEAD`, whose answer carries a length and no body.
pub fn read_answer(connection: &mut impl BufRead, headless: bool) -> Result<Answer> {
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
        return read_answer(connection, headless);
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if headless || status == 204 || status == 304 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        answer.body = read_chunks(connection)?;
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().context("bad content-length")?];
        connection.read_exact(&mut answer.body)?;
    } else {
        connection.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
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
    fn reads_a_chunked_answer() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(read_answer(&mut &wire[..], false).unwrap().body, b"abcde");
    }

    #[test]
    fn skips_an_interim_answer() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        let answer = read_answer(&mut &wire[..], false).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b"{}"[..]));
    }
}
