//! Reading a body: bounded while it streams, in time, and within what the whole server holds at once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use keepfast_framework::{Body, offload};

use super::answer::Answer;
use super::budget;
use super::path::decode;
use crate::config::{JsonLimits, Limits};
use crate::connections::{Charge, Peer};
use crate::patience::Stopwatch;

/// What a body may hold without being counted against the whole server's budget.
pub(super) const FREE: usize = 64 << 10;
/// The longest body of a request without a token that is alive, in bytes. Logins are much shorter: a JWT or a signed
/// AWS request takes some KiB, the PGP keys of an initialisation some 10 KiB.
const STRANGERS_BODY: usize = 256 << 10;
/// The part of the memory for large bodies that such requests may have on connections of known clients, which are
/// proxies then.
const STRANGERS_PART: usize = 32;
/// The longest body, in bytes, that counts nowhere on such a connection though its token is not looked up.
const UNCHECKED: usize = 4 << 10;
/// How long a body may take before its rate counts.
const GRACE: Duration = Duration::from_secs(5);
/// The least rate of a body after that, in bytes a second.
const LEAST_RATE: u64 = 2 << 10;

/// The longest form in bytes. JSON is bounded by `max_request_size`.
const FORM_LENGTH: usize = 10 << 20;

/// The most parameters of a form.
const FORM_PARAMETERS: usize = 10_000;
/// What a parameter of a form takes in memory beside its text, in bytes: two strings with their allocations, and a place
/// in the object and its index. A field of a JSON object takes no more: its name, its place, and its places in the sets that
/// find repeated names.
const PARAMETER: usize = 192;

/// Memory for large bodies that are being received or worked on, shared by all listeners.
pub struct BodyMemory {
    left: AtomicUsize,
    left_for_strangers: AtomicUsize,
}

/// What a body holds of the server's memory, given back when dropped.
pub(crate) struct Share {
    memory: Arc<BodyMemory>,
    stranger: bool,
    taken: usize,
    /// What counts against the bound of strangers' connections.
    charge: Option<Charge>,
    _unchecked: Option<Unchecked>,
}

/// Who sends a request.
pub(crate) enum Sender {
    /// A caller with a live token, or with any token and a body of a few KiB on a connection that has carried a live one.
    Known,
    /// A caller with any token on such a connection, whose body has its place among those of strangers.
    Unchecked(Unchecked),
    /// A caller without a live token.
    Stranger,
}

/// What a body with a token that is not looked up takes of the memory for bodies of strangers, given back when dropped.
pub(crate) struct Unchecked {
    memory: Arc<BodyMemory>,
    taken: usize,
}

impl Drop for Unchecked {
    fn drop(&mut self) {
        self.memory.left_for_strangers.fetch_add(self.taken, Ordering::AcqRel);
    }
}

impl BodyMemory {
    /// This number of bytes for large bodies.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(BodyMemory {
            left: AtomicUsize::new(bytes),
            left_for_strangers: AtomicUsize::new(bytes / STRANGERS_PART),
        })
    }

    fn of(&self, stranger: bool) -> &AtomicUsize {
        if stranger { &self.left_for_strangers } else { &self.left }
    }

    /// The sender of a body of so many bytes on a known connection, if the body has a place without a look at its token.
    /// `None` for one of unknown length, one that is not small, or when there is no place left.
    pub(super) fn unchecked(self: &Arc<Self>, announced: Option<u64>) -> Option<Sender> {
        let length = usize::try_from(announced?).ok().filter(|length| *length <= FREE)?;
        if length <= UNCHECKED {
            return Some(Sender::Known);
        }
        take(&self.left_for_strangers, length)
            .then(|| Sender::Unchecked(Unchecked { memory: self.clone(), taken: length }))
    }

    fn share(self: &Arc<Self>, sender: Sender, peer: &Arc<Peer>) -> Share {
        let stranger = matches!(sender, Sender::Stranger);
        let charge = (stranger && !peer.is_known()).then(|| Charge::new(peer, 0));
        let unchecked = if let Sender::Unchecked(unchecked) = sender { Some(unchecked) } else { None };
        Share { memory: self.clone(), stranger, taken: 0, charge, _unchecked: unchecked }
    }
}

impl Share {
    /// Takes what a body of `length` bytes needs in all; false when the server has no more.
    fn cover(&mut self, length: usize) -> bool {
        if let Some(charge) = &mut self.charge {
            charge.set(length);
            return true;
        }
        let more = length.saturating_sub(FREE).saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let taken = take(self.memory.of(self.stranger), more);
        self.taken += if taken { more } else { 0 };
        taken
    }
}

/// Takes so many bytes; false when there are no more.
fn take(left: &AtomicUsize, bytes: usize) -> bool {
    left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.memory.of(self.stranger).fetch_add(self.taken, Ordering::AcqRel);
        }
    }
}

/// How a body is received.
pub(crate) struct Receiving<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) memory: &'a Arc<BodyMemory>,
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) sender: Sender,
    /// Whether it is declared as a form.
    pub(crate) form: bool,
}

impl Receiving<'_> {
    /// Receives a body and splits it into fields, form or JSON. The share is to be kept as long as the body. `body` is
    /// `None` afterwards when it was received to its end.
    /// `None` when it is longer than a body without a live token may be.
    pub(crate) async fn receive(
        self,
        body: &mut Option<hyper::body::Incoming>,
    ) -> Result<Option<(Body, Share)>, Answer> {
        let Receiving { limits, memory, peer, sender, form } = self;
        let mut share = memory.share(sender, peer);
        let text = match collect(limits, body, &mut share).await {
            Ok(text) => text,
            Err(Unreceived::TooLarge) if is_strangers(limits, &share) => return Ok(None),
            Err(Unreceived::TooLarge) => return Err(too_large()),
            Err(Unreceived::Refused(answer)) => return Err(answer),
        };
        let is_form = form && !looks_like_json(&text);
        let json = limits.json;
        offload::run(text.len(), move || {
            if is_form { parse_form(text, json, &mut share) } else { parse_json(text, &json, &mut share) }
                .map(|body| Some((body, share)))
        })
        .await
    }
}

/// Whether the bound of strangers is the one that counts.
fn is_strangers(limits: &Limits, share: &Share) -> bool {
    share.stranger && STRANGERS_BODY < limits.body
}

/// All bytes of the body, refusing as soon as it is too long or too slow. A body of one frame is not copied.
async fn collect(
    limits: &Limits,
    incoming: &mut Option<hyper::body::Incoming>,
    share: &mut Share,
) -> Result<Bytes, Unreceived> {
    let Some(body) = incoming else { return Ok(Bytes::new()) };
    let longest = if is_strangers(limits, share) { STRANGERS_BODY } else { limits.body };
    let announced = body.size_hint().lower();
    if announced > longest as u64 {
        return Err(Unreceived::TooLarge);
    }
    let stopwatch = Stopwatch::start();
    let mut first = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    loop {
        let before = first.len() + joined.as_ref().map_or(0, BytesMut::len);
        let deadline = stopwatch.after(time_for(before, limits.read_timeout));
        let Ok(frame) = tokio::time::timeout_at(deadline, body.frame()).await else {
            return Err(late(limits));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| refused(StatusCode::BAD_REQUEST, "the request body could not be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = before + data.len();
        if length > longest {
            return Err(Unreceived::TooLarge);
        }
        if !share.cover(length) {
            return Err(Unreceived::Refused(too_many()));
        }
        match &mut joined {
            Some(joined) => joined.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                // Announced lengths are only trusted as far as a body is free: memory follows what really came.
                let room = usize::try_from(announced).unwrap_or(FREE).min(FREE).max(length);
                let mut buffer = BytesMut::with_capacity(if share.stranger { length } else { room });
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

fn late(limits: &Limits) -> Unreceived {
    let within = limits.read_timeout.as_secs();
    refused(StatusCode::REQUEST_TIMEOUT, format!("the request body came too slowly or not within {within} seconds"))
}

/// How long more of a body may take after so many bytes of it.
fn time_for(length: usize, longest: Duration) -> Duration {
    longest.min(GRACE + Duration::from_secs(length as u64 / LEAST_RATE))
}

/// Why a body is not received.
enum Unreceived {
    TooLarge,
    Refused(Answer),
}

fn refused(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Unreceived {
    Unreceived::Refused(Answer::error(status, text))
}

fn too_many() -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many large request bodies at once")
}

pub(super) fn too_large_without_token() -> Answer {
    let text = format!("http: request body too large: without a valid token it may have {STRANGERS_BODY} bytes");
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn too_large() -> Answer {
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large (max_request_size)")
}

/// Counts what a JSON text costs, then splits it into fields. What the fields take is counted before.
fn parse_json(text: Bytes, limits: &JsonLimits, share: &mut Share) -> Result<Body, Answer> {
    let fields = budget::check(&text, limits)? * PARAMETER;
    if !share.cover(text.len() + fields) {
        return Err(too_many());
    }
    Ok(Body::parse(as_utf8(text, fields, share)?)?)
}

/// The text with a replacement character for each sequence of bytes that is not UTF-8, as OpenBao reads it. One byte can
/// become three, so the longer text is counted before it is built, beside what its `fields` take.
fn as_utf8(text: Bytes, fields: usize, share: &mut Share) -> Result<Bytes, Answer> {
    if std::str::from_utf8(&text).is_ok() {
        return Ok(text);
    }
    let replacement = |chunk: &std::str::Utf8Chunk<'_>| if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
    let length = text.utf8_chunks().map(|chunk| chunk.valid().len() + replacement(&chunk).len()).sum();
    if !share.cover(text.len() + length + fields) {
        return Err(too_many());
    }
    let mut replaced = String::with_capacity(length);
    for chunk in text.utf8_chunks() {
        replaced.push_str(chunk.valid());
        replaced.push_str(replacement(&chunk));
    }
    Ok(replaced.into())
}

/// A form as the JSON object that it stands for. OpenBao applies the limits on strings and entries to JSON only; here they
/// bound the forms of strangers, too. What is built of a form is counted before it is built.
fn parse_form(text: Bytes, limits: JsonLimits, share: &mut Share) -> Result<Body, Answer> {
    let parameters = bounded_parameters(&text)?;
    let strings = 2 * FORM_PARAMETERS;
    let limits = if share.stranger { limits } else { JsonLimits { strings, object_entries: strings, ..limits } };
    if share.stranger {
        budget::check_form(parameters, &limits)?;
    }
    let object_length = text.len() + parameters * PARAMETER;
    if !share.cover(text.len() + object_length) {
        return Err(too_many());
    }
    let object = form_object(&text)?;
    drop(text);
    if object.is_empty() {
        return Ok(Body::default());
    }
    if !share.cover(object_length + json_length(&object)) {
        return Err(too_many());
    }
    let json = Bytes::from(serde_json::Value::Object(object).to_string());
    budget::check(&json, &limits)?;
    Ok(Body::parse(json)?)
}

/// `curl -d '{…}'` declares a form and sends JSON.
fn looks_like_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// How many parameters a form has, at most. The bounds are those of OpenBao.
fn bounded_parameters(text: &[u8]) -> Result<usize, Answer> {
    let separators = text.iter().filter(|byte| **byte == b'&').count();
    if text.len() > FORM_LENGTH || separators >= FORM_PARAMETERS { Err(no_form()) } else { Ok(separators + 1) }
}

fn no_form() -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, "error parsing form data")
}

/// A real form as a JSON object: a name given twice becomes a list.
fn form_object(text: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, Answer> {
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
            // A repeated name is a list with commas, as lists are written in texts.
            Some(serde_json::Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => drop(object.insert(name, value.into())),
        }
    }
    Ok(object)
}

/// The length of an object of strings as JSON text.
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
