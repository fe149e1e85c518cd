//! A check of the bytes of a connection before hyper parses them, for what hyper accepts and should not.
//!
//! * HTTP/1: a line of a head that ends in a bare LF, a folded header line, `Transfer-Encoding` beside `Content-Length`,
//!   either of them twice, and any transfer coding but `chunked` (RFC 9112 sections 2.2, 5.2, 6.1). A lenient proxy in front
//!   could see other requests than hyper does.
//! * HTTP/2: floods of frames that carry neither a request nor data (PRIORITY, PING, SETTINGS, WINDOW_UPDATE, RST_STREAM,
//!   unknown types, empty DATA and CONTINUATION; CVE-2019-9511 to 9518), and header lists of very many fields. They cost
//!   credit, which requests, data in both directions and time give back. A request that is reset gives none (CVE-2023-44487).
//!
//! The framing of HTTP/1 bodies is followed only as far as it tells where the next head starts. What cannot be followed is
//! refused, so that this reader and hyper never disagree about a request that is served.

mod fields;

use self::fields::Fields;

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of a line is kept, in bytes: enough for the headers that decide where a body ends.
const KEPT: usize = 64;

/// How much is read at once, in bytes, from a connection that takes turns.
pub(super) const READ: usize = 512;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be parsed.
    Pass,
    /// Part of a head that has two readings.
    Malformed,
    /// The connection is to be closed: it carries a flood of frames.
    Flood,
}

/// The state of the check of one connection.
pub(crate) struct Wire {
    state: State,
}

enum State {
    /// So many bytes of the preface have come, or none.
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
    /// Checks what came, in order, and stops behind the first `most` requests: in HTTP/1 behind their bodies too, in HTTP/2
    /// behind their HEADERS frames. Returns also how many bytes were checked: what is behind them was not looked at.
    /// `ticks` counts the ticks of the connection's timer since it began.
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
                // What looked like the preface is the start of a head.
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

    /// Notes that so many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let State::Http2(frames) = &mut self.state {
            frames.credit = frames.credit.saturating_add(i64::try_from(bytes / SENT_PER_FRAME).unwrap_or(0)).min(MOST);
        }
    }

    /// Whether the connection speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.state, State::Http2(_))
    }

    /// How much may be read at once from a connection that takes turns with others, in bytes: [`READ`], or the rest of a
    /// frame or body.
    pub(crate) fn longest_read(&self) -> usize {
        let rest = match &self.state {
            State::Http1(Http1 { part: Part::Data { left, .. }, .. }) => usize::try_from(*left).unwrap_or(usize::MAX),
            State::Http2(frames) => frames.payload,
            _ => 0,
        };
        rest.max(READ)
    }

    /// How many requests have begun in HTTP/2, or of how many the head has ended in HTTP/1.
    pub(crate) fn requests(&self) -> u32 {
        match &self.state {
            State::Http1(http1) => http1.requests,
            State::Http2(frames) => frames.requests,
            State::Preface(_) => 0,
        }
    }

    /// How much of a head of HTTP/1 has come that is not complete yet, in bytes.
    pub(crate) fn pending_head(&self) -> usize {
        match &self.state {
            State::Http1(Http1 { part: Part::Head, received, .. }) => *received,
            _ => 0,
        }
    }
}

/// Where in a connection of HTTP/1 the next byte is.
#[derive(Default, Clone, Copy)]
enum Part {
    #[default]
    Head,
    /// Before the end of a body or chunk: so many bytes are still to come.
    Data {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
    /// Nothing of what follows is to be parsed.
    Refused,
}

#[derive(Default)]
struct Http1 {
    part: Part,
    /// The start of the present line.
    line: Line,
    /// Bytes of the present head.
    received: usize,
    /// Whether the request line has come.
    started: bool,
    length: Option<u64>,
    chunked: bool,
    /// How many heads have ended.
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

/// The line cannot be followed, or has two readings.
struct Malformed;

impl Http1 {
    /// Follows what came up to the end of the request that is the last of `most`. Returns where the next byte is, and how
    /// many bytes were followed.
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
                // The CRLF behind the data counts with it.
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
            // What stands between name and colon makes it another header, which hyper refuses.
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

/// How many frames a connection may send at first that carry neither a request nor data.
const CREDIT: i64 = 1000;
/// The most credit that is saved up.
const MOST: i64 = 10_000;
/// How many fields a header list may have for nothing; each one beyond costs as much as a frame.
const FREE_FIELDS: u32 = 64;
/// What a request gives back.
const PER_REQUEST: i64 = 10;
/// What each tick of the connection's timer gives back.
const PER_TICK: i64 = 250;
/// How many bytes of an answer give one frame back: clients open their windows as they read.
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
    /// How much of the present frame's payload is still to come, in bytes.
    payload: usize,
    /// How much of it precedes the header block.
    before_block: usize,
    /// Whether its next byte is the length of its padding.
    padded: bool,
    /// How much of the header block is still to come.
    block: usize,
    fields: Fields,
    credit: i64,
    ticks: u32,
    /// How many frames HEADERS have begun.
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
            self.credit = (self.credit + i64::from(passed) * PER_TICK).min(MOST);
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
        self.credit = self.credit.min(MOST);
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

    /// A part of the present frame's payload.
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
