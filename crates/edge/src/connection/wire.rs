//! Checks the bytes of a connection before hyper parses them, because hyper accepts dangerous ones.
//!
//! * HTTP/1: a line of a head that ends in a bare LF, a folded header line, `Transfer-Encoding` beside
//!   `Content-Length`, either of them twice, and any transfer coding except `chunked` (RFC 9112 sections 2.2, 5.2, 6.1).
//!   A lenient proxy in front could see other requests than hyper.
//! * HTTP/2: floods of frames that carry neither a request nor data (PRIORITY, PING, SETTINGS, WINDOW_UPDATE,
//!   RST_STREAM, unknown types, empty DATA and CONTINUATION; CVE-2019-9511 to 9518), and header lists of very many
//!   fields. They cost credit, which requests, data in both directions and time return. A request that is reset returns
//!   none (CVE-2023-44487).
//!
//! The framing of HTTP/1 bodies is parsed only to find the next head. A framing that cannot be parsed is refused, so
//! that this parser and hyper never disagree about a served request.

mod fields;

use self::fields::Fields;

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes that are kept of a line: enough for the headers that decide where a body ends.
const KEPT: usize = 64;

/// The most bytes of one read of a connection that takes turns.
pub(super) const READ: usize = 512;

/// The verdict on received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The bytes can be parsed.
    Pass,
    /// Part of an ambiguous head.
    Malformed,
    /// A flood of frames: the connection is to be closed.
    Flood,
}

/// The state of the check of a connection.
pub(crate) struct Wire {
    state: State,
}

enum State {
    /// The number of received bytes of the preface.
    Preface(usize),
    Http1(Http1),
    Http2(Frames),
}

impl Default for Wire {
    fn default() -> Self {
        Wire { state: State::Preface(0) }
    }
}

impl Wire {
    /// Checks received bytes in order, and stops after the first `most` requests: in HTTP/1 after their bodies, in
    /// HTTP/2 after their HEADERS frames. Also returns the number of checked bytes; the bytes after them were not
    /// examined. `ticks` is the number of ticks of the connection's timer.
    pub(crate) fn received(&mut self, bytes: &[u8], ticks: u32, most: u32) -> (Verdict, usize) {
        let mut rest = bytes;
        if let State::Preface(seen) = &mut self.state {
            let matching = rest.iter().zip(&PREFACE[*seen..]).take_while(|(a, b)| a == b).count();
            let before = *seen;
            *seen += matching;
            if *seen == PREFACE.len() {
                self.state = State::Http2(Frames::default());
                rest = &rest[matching..];
            } else if matching == rest.len() {
                return (Verdict::Pass, bytes.len());
            } else {
                // The first bytes of the preface were those of a head.
                let mut http1 = Http1::default();
                http1.received(&PREFACE[..before], u32::MAX);
                self.state = State::Http1(http1);
            }
        }
        let skipped = bytes.len() - rest.len();
        let (verdict, checked) = match &mut self.state {
            State::Http1(http1) => match http1.received(rest, most) {
                (Part::Refused, checked) => (Verdict::Malformed, checked),
                (_, checked) => (Verdict::Pass, checked),
            },
            State::Http2(frames) => frames.received(rest, ticks, most),
            State::Preface(_) => (Verdict::Pass, rest.len()),
        };
        (verdict, skipped + checked)
    }

    /// Notes sent bytes.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let State::Http2(frames) = &mut self.state {
            frames.credit =
                frames.credit.saturating_add(i64::try_from(bytes / SENT_PER_FRAME).unwrap_or(0)).min(MAX_CREDIT);
        }
    }

    /// Whether the connection uses HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.state, State::Http2(_))
    }

    /// The most bytes of one read of a connection that takes turns: [`READ`], or the rest of a frame or body.
    pub(crate) fn longest_read(&self) -> usize {
        let rest = match &self.state {
            State::Http1(Http1 { part: Part::Data { left, .. }, .. }) => usize::try_from(*left).unwrap_or(usize::MAX),
            State::Http2(frames) => frames.payload,
            _ => 0,
        };
        rest.max(READ)
    }

    /// The number of requests: in HTTP/2 of begun ones, in HTTP/1 of complete heads.
    pub(crate) fn requests(&self) -> u32 {
        match &self.state {
            State::Http1(http1) => http1.requests,
            State::Http2(frames) => frames.requests,
            State::Preface(_) => 0,
        }
    }

    /// The length of an incomplete HTTP/1 head, in bytes.
    pub(crate) fn pending_head(&self) -> usize {
        match &self.state {
            State::Http1(Http1 { part: Part::Head, received, .. }) => *received,
            _ => 0,
        }
    }
}

/// The part of an HTTP/1 message at the next byte.
#[derive(Default, Clone, Copy)]
enum Part {
    #[default]
    Head,
    /// Before the end of a body or chunk, with the number of remaining bytes.
    Data {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
    /// The following bytes must not be parsed.
    Refused,
}

#[derive(Default)]
struct Http1 {
    part: Part,
    /// The start of the current line.
    line: Line,
    /// The length of the current head in bytes.
    received: usize,
    /// Whether the request line is complete.
    started: bool,
    length: Option<u64>,
    chunked: bool,
    /// The number of complete heads.
    requests: u32,
}

/// The start of a line, and its last byte.
struct Line {
    start: [u8; KEPT],
    length: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Line { start: [0; KEPT], length: 0, last: 0 }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let from = self.length.min(KEPT);
        let kept = bytes.len().min(KEPT - from);
        self.start[from..from + kept].copy_from_slice(&bytes[..kept]);
        self.length += bytes.len();
        self.last = *last;
    }

    fn is_blank(&self) -> bool {
        self.length == 1 && self.last == b'\r'
    }

    /// The line without its CR, as far as it is kept.
    fn text(&self) -> &[u8] {
        &self.start[..self.length.saturating_sub(1).min(KEPT)]
    }

    fn is_whole(&self) -> bool {
        self.length <= KEPT + 1
    }
}

/// An invalid or ambiguous line.
struct Malformed;

impl Http1 {
    /// Parses bytes up to the end of the request number `most`. Returns the part at the next byte, and the number of
    /// parsed bytes.
    fn received(&mut self, bytes: &[u8], most: u32) -> (Part, usize) {
        let mut at = 0;
        let last = self.requests.wrapping_add(most);
        while at < bytes.len() && !(self.requests == last && matches!(self.part, Part::Head)) {
            match &mut self.part {
                Part::Refused => break,
                Part::Data { left, chunked } => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    *left -= here as u64;
                    if *left == 0 {
                        self.part = if *chunked { Part::ChunkSize } else { Part::Head };
                    }
                }
                Part::Head | Part::ChunkSize | Part::Trailers => {
                    let rest = &bytes[at..];
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.line.push(rest);
                        self.received += rest.len();
                        at = bytes.len();
                        break;
                    };
                    self.line.push(&rest[..end]);
                    self.received += end + 1;
                    at += end + 1;
                    if self.line_ends().is_err() {
                        self.part = Part::Refused;
                    }
                }
            }
        }
        (self.part, at)
    }

    fn line_ends(&mut self) -> Result<(), Malformed> {
        let line = std::mem::take(&mut self.line);
        if line.last != b'\r' {
            return Err(Malformed);
        }
        match self.part {
            Part::Head if line.is_blank() => return self.head_ends(),
            Part::Head if self.started => return self.header(&line),
            Part::Head => self.started = true,
            Part::ChunkSize => {
                let size = chunk_size(line.text()).ok_or(Malformed)?;
                // The CRLF after the data counts with it.
                self.part = match size.checked_add(2).ok_or(Malformed)? {
                    2 => Part::Trailers,
                    left => Part::Data { left, chunked: true },
                };
            }
            Part::Trailers if line.is_blank() => {
                self.part = Part::Head;
                self.received = 0;
            }
            Part::Trailers | Part::Data { .. } | Part::Refused => {}
        }
        Ok(())
    }

    fn header(&mut self, line: &Line) -> Result<(), Malformed> {
        let text = line.text();
        if matches!(text.first(), Some(b' ' | b'\t')) {
            return Err(Malformed);
        }
        let value_of = |name: &str| {
            let (start, rest) = text.split_at_checked(name.len())?;
            // Whitespace between name and colon makes another header, which hyper refuses.
            start.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b":"))?
        };
        if let Some(value) = value_of("content-length") {
            let digits = value.trim_ascii();
            let plain = line.is_whole() && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
            return match (self.length, length) {
                (None, Some(length)) => {
                    self.length = Some(length);
                    Ok(())
                }
                _ => Err(Malformed),
            };
        }
        if let Some(value) = value_of("transfer-encoding") {
            if self.chunked || !line.is_whole() || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), Malformed> {
        if !self.started {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            return Ok(());
        }
        self.requests = self.requests.wrapping_add(1);
        self.part = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Malformed),
            (true, None) => Part::ChunkSize,
            (false, None | Some(0)) => Part::Head,
            (false, Some(left)) => Part::Data { left, chunked: false },
        };
        (self.started, self.length, self.chunked, self.received) = (false, None, false, 0);
        Ok(())
    }
}

/// The size of a chunk: its hexadecimal digits before an extension (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let behind = line.get(digits).is_none_or(|byte| matches!(byte, b';' | b' ' | b'\t'));
    let text = std::str::from_utf8(&line[..digits]).ok().filter(|text| behind && text.len() <= 16)?;
    u64::from_str_radix(text, 16).ok()
}

/// The initial credit: the number of frames that carry neither a request nor data.
const CREDIT: i64 = 1000;
/// The most credit of a connection.
const MAX_CREDIT: i64 = 10_000;
/// The fields of a header list that cost nothing; each further one costs as much as a frame.
const FREE_FIELDS: u32 = 64;
/// The credit that a request returns.
const PER_REQUEST: i64 = 10;
/// The credit that each tick of the connection's timer returns.
const PER_TICK: i64 = 250;
/// The bytes of responses that return the credit of one frame: clients open their windows as they read.
const SENT_PER_FRAME: usize = 512;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
const FRAME_HEAD: usize = 9;

struct Frames {
    head: [u8; FRAME_HEAD],
    have: usize,
    /// The remaining bytes of the current frame's payload.
    payload: usize,
    /// The remaining bytes of it before the header block.
    before_block: usize,
    /// Whether its next byte is the length of its padding.
    padded: bool,
    /// The remaining bytes of the header block.
    block: usize,
    fields: Fields,
    credit: i64,
    ticks: u32,
    /// The number of HEADERS frames.
    requests: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Frames {
            head: [0; FRAME_HEAD],
            have: 0,
            payload: 0,
            before_block: 0,
            padded: false,
            block: 0,
            fields: Fields::default(),
            credit: CREDIT,
            ticks: 0,
            requests: 0,
        }
    }
}

impl Frames {
    fn received(&mut self, mut bytes: &[u8], ticks: u32, most: u32) -> (Verdict, usize) {
        let (length, last) = (bytes.len(), self.requests.wrapping_add(most));
        let passed = ticks.wrapping_sub(self.ticks);
        if passed > 0 {
            self.ticks = ticks;
            self.credit = (self.credit + i64::from(passed) * PER_TICK).min(MAX_CREDIT);
        }
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            let (payload, rest) = bytes.split_at(skipped);
            self.payload(payload);
            bytes = rest;
            if self.requests == last && self.payload == 0 && self.have == 0 && self.credit >= 0 {
                break;
            }
            let taken = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame();
            }
            if self.credit < 0 {
                return (Verdict::Flood, length - bytes.len());
            }
        }
        (Verdict::Pass, length - bytes.len())
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.credit += match kind {
            HEADERS => PER_REQUEST,
            RST_STREAM => -1 - PER_REQUEST,
            DATA if self.payload > 0 || flags & END_STREAM != 0 => 0,
            CONTINUATION if self.payload > 0 => 0,
            _ => -1,
        };
        self.credit = self.credit.min(MAX_CREDIT);
        (self.before_block, self.padded, self.block) = match kind {
            HEADERS => {
                self.requests = self.requests.wrapping_add(1);
                self.fields = Fields::default();
                let padded = flags & PADDED != 0;
                let before = if flags & PRIORITY == 0 { 0 } else { 5 };
                (before, padded, self.payload.saturating_sub(before + usize::from(padded)))
            }
            CONTINUATION => (0, false, self.payload),
            _ => (0, false, 0),
        };
    }

    /// Processes a part of the current frame's payload.
    fn payload(&mut self, mut part: &[u8]) {
        if let (true, Some((padding, rest))) = (self.padded, part.split_first()) {
            self.padded = false;
            self.block = self.block.saturating_sub(usize::from(*padding));
            part = rest;
        }
        let before = self.before_block.min(part.len());
        self.before_block -= before;
        let block = self.block.min(part.len() - before);
        self.block -= block;
        let free = self.fields.count().max(FREE_FIELDS);
        self.fields.received(&part[before..before + block]);
        self.credit -= i64::from(self.fields.count().saturating_sub(free));
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
