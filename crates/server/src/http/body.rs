//! Reading a body: bounded while it streams, in time, and within what the whole server holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use keepfast_framework::{Body, offload};

use super::answer::Answer;
use super::path::decode;
use super::{budget, headers};
use crate::config::{JsonLimits, Limits};

/// What a body may hold without being counted against the whole server's budget.
const FREE: usize = 64 << 10;

/// The longest form in bytes. JSON is bounded by `max_request_size`.
const FORM_LENGTH: usize = 10 << 20;

/// The most parameters of a form.
const FORM_PARAMETERS: usize = 10_000;

/// Memory for large bodies that are being received or worked on, shared by all listeners.
pub(crate) struct BodyMemory {
    left: AtomicUsize,
}

/// A share of [`BodyMemory`], given back when dropped.
pub(crate) struct Share {
    memory: Arc<BodyMemory>,
    taken: usize,
}

impl BodyMemory {
    /// So many bytes for large bodies.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(BodyMemory { left: AtomicUsize::new(bytes) })
    }

    fn share(self: &Arc<Self>) -> Share {
        Share { memory: self.clone(), taken: 0 }
    }
}

impl Share {
    /// Takes what a body of `length` bytes needs in all; false when the server has no more.
    fn cover(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(FREE).saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let taken = self.memory.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(more));
        self.taken += taken.map_or(0, |_| more);
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.memory.left.fetch_add(self.taken, Ordering::AcqRel);
        }
    }
}

/// Receives a body and splits it into fields, form or JSON. The share is to be kept as long as the body. `body` is `None`
/// afterwards when it was received to its end.
pub(crate) async fn receive(
    body: &mut Option<hyper::body::Incoming>,
    head: &HeaderMap,
    limits: &Limits,
    memory: &Arc<BodyMemory>,
) -> Result<(Body, Share), Answer> {
    let mut share = memory.share();
    let text = match tokio::time::timeout(limits.read_timeout, collect(body, limits.body, &mut share)).await {
        Ok(text) => text?,
        Err(_) => return Err(late(limits.read_timeout)),
    };
    let is_form = headers::is_form(head) && !looks_like_json(&text);
    let json = limits.json;
    let body = offload::run(text.len(), move || {
        if is_form { parse_form(text, json, &mut share) } else { parse_json(text, &json, &mut share) }
            .map(|body| (body, share))
    })
    .await?;
    Ok(body)
}

/// Counts what a JSON text costs, then splits it into fields.
fn parse_json(text: Bytes, limits: &JsonLimits, share: &mut Share) -> Result<Body, Answer> {
    budget::check(&text, limits)?;
    Ok(Body::parse(as_utf8(text, share)?)?)
}

/// The text with a replacement character for each sequence of bytes that is not UTF-8, as OpenBao reads it. One byte can
/// become three, so the longer text is counted before it is built.
fn as_utf8(text: Bytes, share: &mut Share) -> Result<Bytes, Answer> {
    if std::str::from_utf8(&text).is_ok() {
        return Ok(text);
    }
    let replacement = |chunk: &std::str::Utf8Chunk<'_>| if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
    let length = text.utf8_chunks().map(|chunk| chunk.valid().len() + replacement(&chunk).len()).sum();
    if !share.cover(text.len() + length) {
        return Err(too_many());
    }
    let mut replaced = String::with_capacity(length);
    for chunk in text.utf8_chunks() {
        replaced.push_str(chunk.valid());
        replaced.push_str(replacement(&chunk));
    }
    Ok(replaced.into())
}

/// A form as the JSON object that it stands for. OpenBao applies the limits on strings and entries to JSON only.
fn parse_form(text: Bytes, limits: JsonLimits, share: &mut Share) -> Result<Body, Answer> {
    let json = form_as_json(&text)?;
    if !share.cover(text.len() + json.len()) {
        return Err(too_many());
    }
    drop(text);
    let names = 2 * FORM_PARAMETERS;
    budget::check(&json, &JsonLimits { strings: names, object_entries: names, ..limits })?;
    Ok(Body::parse(json)?)
}

/// All bytes of the body, refusing as soon as it is too long. A body of one frame is not copied.
async fn collect(
    incoming: &mut Option<hyper::body::Incoming>,
    longest: usize,
    share: &mut Share,
) -> Result<Bytes, Answer> {
    let Some(body) = incoming else { return Ok(Bytes::new()) };
    let announced = body.size_hint().lower();
    if announced > longest as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Answer::error(StatusCode::BAD_REQUEST, "the request body could not be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + joined.as_ref().map_or(0, BytesMut::len) + data.len();
        if length > longest {
            return Err(too_large());
        }
        if !share.cover(length) {
            return Err(too_many());
        }
        match &mut joined {
            Some(joined) => joined.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                // Announced lengths are only trusted as far as a body is free: memory follows what really came.
                let room = usize::try_from(announced).unwrap_or(FREE).min(FREE).max(length);
                let mut buffer = BytesMut::with_capacity(room);
                buffer.extend_from_slice(&std::mem::take(&mut first));
                buffer.extend_from_slice(&data);
                joined = Some(buffer);
            }
        }
    }
    *incoming = None;
    Ok(joined.map_or(first, BytesMut::freeze))
}

fn too_many() -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many large request bodies at once")
}

fn too_large() -> Answer {
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large")
}

fn late(bound: Duration) -> Answer {
    Answer::error(
        StatusCode::REQUEST_TIMEOUT,
        format!("the request body did not arrive within {} seconds", bound.as_secs()),
    )
}

/// `curl -d '{…}'` declares a form and sends JSON.
fn looks_like_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// A real form as a JSON object: a name given twice becomes a list. The bounds are those of OpenBao.
fn form_as_json(text: &[u8]) -> Result<Bytes, Answer> {
    let refused = || Answer::error(StatusCode::BAD_REQUEST, "error parsing form data");
    let text = std::str::from_utf8(text).map_err(|_| refused())?;
    if text.len() > FORM_LENGTH || text.bytes().filter(|b| *b == b'&').count() >= FORM_PARAMETERS {
        return Err(refused());
    }
    let mut object = serde_json::Map::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        if pair.contains(';') {
            return Err(refused());
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(&name.replace('+', " ")).map_err(|_| refused())?;
        let value = decode(&value.replace('+', " ")).map_err(|_| refused())?;
        match object.get_mut(&name) {
            // A repeated name is a list with commas, as lists are written in texts.
            Some(serde_json::Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => drop(object.insert(name, value.into())),
        }
    }
    if object.is_empty() {
        return Ok(Bytes::new());
    }
    Ok(serde_json::Value::Object(object).to_string().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_form_becomes_an_object_and_a_malformed_one_is_refused() {
        let json = |text: &str| {
            form_as_json(text.as_bytes()).map(|b| String::from_utf8(b.to_vec()).unwrap()).map_err(|a| a.status.as_u16())
        };
        assert_eq!(json("a=b&c=d+e%21&a=f&x"), Ok("{\"a\":\"b,f\",\"c\":\"d e!\",\"x\":\"\"}".into()));
        assert_eq!(json(""), Ok(String::new()));
        for bad in ["a=b;c=d", "%zz=1", "a=%ff"] {
            assert_eq!(json(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn sec_ds02_a_form_has_bounds_before_anything_is_built() {
        let status = |text: &str| form_as_json(text.as_bytes()).map(drop).map_err(|a| a.status.as_u16());
        let distinct = |n: usize| (0..n).map(|at| format!("{at}=")).collect::<Vec<_>>().join("&");
        assert_eq!((status(&distinct(10_000)), status(&distinct(10_001))), (Ok(()), Err(400)));
        assert_eq!((status(&vec!["a="; 10_000].join("&")), status(&vec!["a="; 10_001].join("&"))), (Ok(()), Err(400)));
        let long = |n: usize| format!("a={}", "x".repeat(n - 2));
        assert_eq!((status(&long(10 << 20)), status(&long((10 << 20) + 1))), (Ok(()), Err(400)));
    }

    #[test]
    fn sec_ds02_bytes_that_are_no_text_count_as_what_replaces_them() {
        let text = || Bytes::from([b"{\"a\":\"".to_vec(), vec![0xff; FREE], b"\"}".to_vec()].concat());
        let body = parse_json(text(), &JsonLimits::default(), &mut BodyMemory::new(1 << 20).share()).unwrap();
        assert_eq!(body.raw().len(), 3 * FREE + 8);
        let refusal = parse_json(text(), &JsonLimits::default(), &mut BodyMemory::new(2 * FREE).share()).err().unwrap();
        assert_eq!(refusal.status, 503);
    }

    #[test]
    fn sec_ds02_large_bodies_share_one_budget_and_give_it_back() {
        let memory = BodyMemory::new(1 << 20);
        let (mut a, mut b) = (memory.share(), memory.share());
        assert!(a.cover(FREE) && a.cover(FREE + 700_000) && a.cover(FREE + 700_000));
        assert!(b.cover(FREE) && !b.cover(FREE + 700_000));
        drop(a);
        assert!(b.cover(FREE + 700_000));
        drop(b);
        assert_eq!(memory.left.load(Ordering::Acquire), 1 << 20);
    }
}
