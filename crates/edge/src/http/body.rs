//! Receives bodies: with limits on size, time and the memory of the whole server.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use keepfast_framework::{Body, offload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::edge_response::EdgeResponse;
use super::json_limits;
use super::path::decode;
use crate::config::{JsonLimits, Limits};
use crate::connections::{Charge, Peer};
use crate::timeouts::Stopwatch;

/// The length, in bytes, up to which a body does not count against the memory for large bodies.
pub(super) const FREE: usize = 64 << 10;
/// The longest body of a request without a live token, in bytes. Logins are much shorter: a JWT or a signed AWS request
/// takes some KiB, the PGP keys of an initialisation some 10 KiB.
const MAX_UNAUTHENTICATED_BODY: usize = 256 << 10;
/// The divisor of the memory for large bodies that gives the part for such requests on authenticated connections, which
/// are those of proxies.
const UNAUTHENTICATED_PART: usize = 32;
/// The longest body, in bytes, that needs no memory of that part although its token is not looked up.
const MAX_UNCHECKED: usize = 4 << 10;
/// The time before the minimum rate of a body applies.
const GRACE: Duration = Duration::from_secs(5);
/// The minimum rate of a body in bytes per second.
const MIN_RATE: u64 = 2 << 10;

/// The longest form in bytes. JSON is limited by `max_request_size`.
const FORM_LENGTH: usize = 10 << 20;

/// The most parameters of a form.
const FORM_PARAMETERS: usize = 10_000;
/// The memory of a parameter of a form or a query beside its text, in bytes: two strings with their allocations, and an
/// entry in the object and its index, or both twice during the conversion to a map. A field of a JSON object takes no
/// more: its name, its entry, and its entries in the sets that find repeated names.
pub(super) const PARAMETER: usize = 192;

/// The most responses from files at a time: a file is on the disk until its client has received it.
const DOWNLOADS: usize = 2;

/// The memory for large bodies that are received or processed, shared by all listeners. A permit is a byte.
pub struct BodyMemory {
    left: Arc<Semaphore>,
    left_for_unauthenticated: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

/// The part of the server's memory that a body holds, released when dropped.
pub(crate) struct Share {
    memory: Arc<BodyMemory>,
    /// Determines the limits of the body, and the memory of `taken`.
    sender: Sender,
    taken: Option<OwnedSemaphorePermit>,
    /// The bytes that count against the limit of unauthenticated connections.
    charge: Option<Charge>,
}

/// The sender of a request.
pub(crate) enum Sender {
    /// A caller with a live token.
    Authenticated,
    /// A caller with any token and a small body on an authenticated connection. The body has the limits of an
    /// authenticated caller and uses the memory for unauthenticated ones; `_text` is that of a text of more than a few KiB.
    Unchecked { _text: Option<OwnedSemaphorePermit> },
    /// A caller without a live token.
    Unauthenticated,
}

impl BodyMemory {
    /// Creates the memory with this number of bytes for large bodies.
    pub fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Arc::new(BodyMemory {
            left: Arc::new(Semaphore::new(bytes)),
            left_for_unauthenticated: Arc::new(Semaphore::new(bytes / UNAUTHENTICATED_PART)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        })
    }

    /// The permit of a response from a file, to be held until it is sent; `None` when all are taken.
    pub(super) fn download(&self) -> Option<OwnedSemaphorePermit> {
        self.downloads.clone().try_acquire_owned().ok()
    }

    fn of(&self, sender: &Sender) -> &Arc<Semaphore> {
        match sender {
            Sender::Authenticated => &self.left,
            Sender::Unchecked { .. } | Sender::Unauthenticated => &self.left_for_unauthenticated,
        }
    }

    /// The sender of a body of the announced length on an authenticated connection, if the body needs no look at its
    /// token. `None` when the length is unknown or not small, or when no memory is left.
    pub(super) fn unchecked(self: &Arc<Self>, announced: Option<u64>) -> Option<Sender> {
        let length = usize::try_from(announced?).ok().filter(|length| *length <= FREE)?;
        match length <= MAX_UNCHECKED {
            true => Some(Sender::Unchecked { _text: None }),
            false => take(&self.left_for_unauthenticated, length).map(|taken| Sender::Unchecked { _text: Some(taken) }),
        }
    }

    fn share(self: &Arc<Self>, sender: Sender, peer: &Arc<Peer>) -> Share {
        let unauthenticated = matches!(sender, Sender::Unauthenticated);
        let charge = (unauthenticated && !peer.is_authenticated()).then(|| Charge::new(peer, 0));
        Share { memory: self.clone(), sender, taken: None, charge }
    }
}

impl Share {
    fn is_unauthenticated(&self) -> bool {
        matches!(self.sender, Sender::Unauthenticated)
    }

    fn is_unchecked(&self) -> bool {
        matches!(self.sender, Sender::Unchecked { .. })
    }

    /// Uses the memory of authenticated callers from now on, after the token was looked up.
    fn set_authenticated(&mut self) {
        self.taken = None;
        self.sender = Sender::Authenticated;
    }

    /// Reserves the memory of a body of `length` bytes in all; false when the server has not enough.
    fn reserve(&mut self, length: usize) -> bool {
        if let Some(charge) = &mut self.charge {
            charge.set(length);
            return true;
        }
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(FREE).saturating_sub(taken);
        if more == 0 {
            return true;
        }
        let Some(more) = take(self.memory.of(&self.sender), more) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

/// Takes bytes, fewer than 4 GiB at once; `None` when not enough are left.
fn take(left: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    left.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// The parameters of receiving a body.
pub(crate) struct Receiving<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) memory: &'a Arc<BodyMemory>,
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) sender: Sender,
    /// Whether the content type is a form.
    pub(crate) form: bool,
    /// Whether the body is bytes, whatever its content type is.
    pub(crate) raw: bool,
}

impl Receiving<'_> {
    /// Receives a body and splits it into fields, form or JSON. The caller keeps the share as long as the body. `body`
    /// is `None` afterwards when it was received to its end. `is_live` looks the token up, if that was not done and the
    /// memory for unauthenticated callers is not sufficient. Returns `None` when the body is longer than allowed without
    /// a live token.
    pub(crate) async fn receive(
        self,
        body: &mut Option<hyper::body::Incoming>,
        is_live: impl Future<Output = bool>,
    ) -> Result<Option<(Body, Share)>, EdgeResponse> {
        let Receiving { limits, memory, peer, sender, form, raw } = self;
        let mut share = memory.share(sender, peer);
        let text = match collect(limits, body, &mut share).await {
            Ok(text) => text,
            Err(BodyError::TooLarge) if limits_unauthenticated(limits, &share) => return Ok(None),
            Err(BodyError::TooLarge) => return Err(too_large()),
            Err(BodyError::Refused(response)) => return Err(response),
        };
        if raw {
            return Ok(Some((Body::of_bytes(text), share)));
        }
        let shape = if form && !looks_like_json(&text) { parse_form } else { parse_json };
        parse(shape, text, limits.json, share, is_live).await.map(Some)
    }
}

/// Splits a text into fields. The text of an unchecked sender is parsed again with the memory of authenticated callers
/// when that for unauthenticated ones is not sufficient and the token is live.
async fn parse(
    shape: fn(Bytes, JsonLimits, &mut Share) -> Result<Body, EdgeResponse>,
    text: Bytes,
    limits: JsonLimits,
    mut share: Share,
    is_live: impl Future<Output = bool>,
) -> Result<(Body, Share), EdgeResponse> {
    let again = share.is_unchecked().then(|| text.clone());
    let parsed = offload::run(text.len(), || shape(text, limits, &mut share)).await;
    match (parsed, again) {
        (Err(response), Some(text)) if is_too_many(&response) && is_live.await => {
            share.set_authenticated();
            let body = offload::run(text.len(), || shape(text, limits, &mut share)).await?;
            Ok((body, share))
        }
        (parsed, _) => Ok((parsed?, share)),
    }
}

/// Whether the limit for unauthenticated callers is the one that applies.
fn limits_unauthenticated(limits: &Limits, share: &Share) -> bool {
    share.is_unauthenticated() && MAX_UNAUTHENTICATED_BODY < limits.body
}

/// Receives all bytes of the body, and refuses as soon as it is too long or too slow. A body of one frame is not
/// copied.
async fn collect(
    limits: &Limits,
    incoming: &mut Option<hyper::body::Incoming>,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    let Some(body) = incoming else { return Ok(Bytes::new()) };
    let longest = if limits_unauthenticated(limits, share) { MAX_UNAUTHENTICATED_BODY } else { limits.body };
    let announced = body.size_hint().lower();
    if announced > longest as u64 {
        return Err(BodyError::TooLarge);
    }
    let stopwatch = Stopwatch::start();
    let mut first = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    loop {
        let before = first.len() + joined.as_ref().map_or(0, BytesMut::len);
        let deadline = stopwatch.after(time_for(before, limits.read_timeout));
        let Ok(frame) = tokio::time::timeout_at(deadline, body.frame()).await else {
            return Err(timed_out(limits));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| refused(StatusCode::BAD_REQUEST, "the request body could not be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = before + data.len();
        if length > longest {
            return Err(BodyError::TooLarge);
        }
        if !share.reserve(length) {
            return Err(BodyError::Refused(too_many()));
        }
        match &mut joined {
            Some(joined) => joined.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                // Memory follows the received bytes; an announced length reserves at most the free part.
                let room = usize::try_from(announced).unwrap_or(FREE).min(FREE).max(length);
                let mut buffer = BytesMut::with_capacity(if share.is_unauthenticated() { length } else { room });
                buffer.extend_from_slice(&std::mem::take(&mut first));
                buffer.extend_from_slice(&data);
                joined = Some(buffer);
            }
        }
        if body.is_end_stream() {
            break;
        }
    }
    *incoming = None;
    Ok(joined.map_or(first, BytesMut::freeze))
}

fn timed_out(limits: &Limits) -> BodyError {
    let within = limits.read_timeout.as_secs();
    refused(StatusCode::REQUEST_TIMEOUT, format!("the request body came too slowly or not within {within} seconds"))
}

/// The time for the next bytes of a body of which `length` bytes are received.
fn time_for(length: usize, longest: Duration) -> Duration {
    longest.min(GRACE + Duration::from_secs(length as u64 / MIN_RATE))
}

/// Why a body is not received.
enum BodyError {
    TooLarge,
    Refused(EdgeResponse),
}

fn refused(status: StatusCode, text: impl Into<Cow<'static, str>>) -> BodyError {
    BodyError::Refused(EdgeResponse::error(status, text))
}

fn too_many() -> EdgeResponse {
    EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, "too many large request bodies at once")
}

/// Whether the response is [`too_many`]: a body itself is never a reason for its status.
fn is_too_many(response: &EdgeResponse) -> bool {
    response.status == StatusCode::SERVICE_UNAVAILABLE
}

pub(super) fn too_large_without_token() -> EdgeResponse {
    let text =
        format!("http: request body too large: without a valid token it may have {MAX_UNAUTHENTICATED_BODY} bytes");
    EdgeResponse::error(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn too_large() -> EdgeResponse {
    EdgeResponse::error(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large (max_request_size)")
}

/// Counts the memory of a JSON text and of its fields, then splits it into fields.
fn parse_json(text: Bytes, limits: JsonLimits, share: &mut Share) -> Result<Body, EdgeResponse> {
    let fields = json_limits::check(&text, &limits)? * PARAMETER;
    if !share.reserve(text.len() + fields) {
        return Err(too_many());
    }
    Ok(Body::parse(as_utf8(text, fields, share)?)?)
}

/// Replaces each sequence of bytes that is not UTF-8 by a replacement character, like OpenBao. One byte can become
/// three, so the longer text is counted before it is built, in addition to its `fields`.
fn as_utf8(text: Bytes, fields: usize, share: &mut Share) -> Result<Bytes, EdgeResponse> {
    if std::str::from_utf8(&text).is_ok() {
        return Ok(text);
    }
    let replacement = |chunk: &std::str::Utf8Chunk<'_>| if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
    let length = text.utf8_chunks().map(|chunk| chunk.valid().len() + replacement(&chunk).len()).sum();
    if !share.reserve(text.len() + length + fields) {
        return Err(too_many());
    }
    let mut replaced = String::with_capacity(length);
    for chunk in text.utf8_chunks() {
        replaced.push_str(chunk.valid());
        replaced.push_str(replacement(&chunk));
    }
    Ok(replaced.into())
}

/// Converts a form to a JSON object. OpenBao applies the limits on strings and entries to JSON only; here they also
/// limit forms of unauthenticated callers. The memory of the object is counted before it is built.
fn parse_form(text: Bytes, limits: JsonLimits, share: &mut Share) -> Result<Body, EdgeResponse> {
    let parameters = bounded_parameters(&text)?;
    let strings = 2 * FORM_PARAMETERS;
    let limits =
        if share.is_unauthenticated() { limits } else { JsonLimits { strings, object_entries: strings, ..limits } };
    if share.is_unauthenticated() {
        json_limits::check_form(parameters, &limits)?;
    }
    let object_length = text.len() + parameters * PARAMETER;
    if !share.reserve(text.len() + object_length) {
        return Err(too_many());
    }
    let object = form_object(&text)?;
    drop(text);
    if object.is_empty() {
        return Ok(Body::default());
    }
    if !share.reserve(object_length + json_length(&object)) {
        return Err(too_many());
    }
    let json = Bytes::from(serde_json::Value::Object(object).to_string());
    json_limits::check(&json, &limits)?;
    Ok(Body::parse(json)?)
}

/// `curl -d '{…}'` declares a form and sends JSON.
fn looks_like_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// An upper bound of the number of parameters of a form. The limits are those of OpenBao.
fn bounded_parameters(text: &[u8]) -> Result<usize, EdgeResponse> {
    let separators = text.iter().filter(|byte| **byte == b'&').count();
    if text.len() > FORM_LENGTH || separators >= FORM_PARAMETERS { Err(no_form()) } else { Ok(separators + 1) }
}

fn no_form() -> EdgeResponse {
    EdgeResponse::error(StatusCode::BAD_REQUEST, "error parsing form data")
}

/// Parses a form to a JSON object: a repeated name becomes a list.
fn form_object(text: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, EdgeResponse> {
    let text = std::str::from_utf8(text).map_err(|_| no_form())?;
    let mut object = serde_json::Map::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        if pair.contains(';') {
            return Err(no_form());
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(&name.replace('+', " ")).map_err(|_| no_form())?;
        let value = decode(&value.replace('+', " ")).map_err(|_| no_form())?;
        match object.get_mut(&name) {
            // A repeated name becomes a list with commas, which is the syntax of lists in texts.
            Some(serde_json::Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => drop(object.insert(name, value.into())),
        }
    }
    Ok(object)
}

/// The length of an object of strings as JSON text, in bytes.
fn json_length(object: &serde_json::Map<String, serde_json::Value>) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    let string = |text: &str| 2 + text.bytes().map(escaped).sum::<usize>();
    object.iter().map(|(name, value)| 2 + string(name) + string(value.as_str().unwrap_or_default())).sum::<usize>() + 1
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
