//! Reading a body: bounded while it streams, in time, and within what the whole server holds at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use keepfast_framework::Body;

use super::answer::Answer;
use super::path::decode;
use super::{budget, headers};
use crate::config::Limits;

/// What a body may hold without being counted against the whole server's budget.
const FREE: usize = 64 << 10;

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

/// Receives a body and splits it into fields, form or JSON. The share is to be kept as long as the body.
pub(crate) async fn receive(
    body: hyper::body::Incoming,
    head: &HeaderMap,
    limits: &Limits,
    memory: &Arc<BodyMemory>,
) -> Result<(Body, Share), Answer> {
    let mut share = memory.share();
    let text = match tokio::time::timeout(limits.read_timeout, collect(body, limits.body, &mut share)).await {
        Ok(text) => text?,
        Err(_) => return Err(late(limits.read_timeout)),
    };
    let text = if headers::is_form(head) && !looks_like_json(&text) { form_as_json(&text)? } else { text };
    budget::check(&text, &limits.json)?;
    Ok((Body::parse(text)?, share))
}

/// All bytes of the body, refusing as soon as it is too long. A body of one frame is not copied.
async fn collect(mut body: hyper::body::Incoming, longest: usize, share: &mut Share) -> Result<Bytes, Answer> {
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
            return Err(Answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many large request bodies at once"));
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
    Ok(joined.map_or(first, BytesMut::freeze))
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

/// A real form as a JSON object: a name given twice becomes a list.
fn form_as_json(text: &[u8]) -> Result<Bytes, Answer> {
    let refused = || Answer::error(StatusCode::BAD_REQUEST, "error parsing form data");
    let text = std::str::from_utf8(text).map_err(|_| refused())?;
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
