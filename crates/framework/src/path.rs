//! Operations, the one canonical path type, and the patterns of routing tables.

use std::borrow::Cow;
use std::fmt;

/// The operation of a request on a path. A closed set: callers cannot name another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// GET
    Read,
    /// POST and PUT; the engine's existence check decides between create and update.
    Update,
    /// PATCH with a JSON merge patch (RFC 7396).
    Patch,
    /// DELETE
    Delete,
    /// LIST, or GET with `list=true`: the names one level below.
    List,
    /// SCAN, or GET with `scan=true`: the names at every level below.
    Scan,
    /// GET with `help=1`: the help text of the path.
    Help,
    /// HEAD, which no path supports. It is a separate operation because caller and path still determine the error
    /// response.
    Head,
}

impl Operation {
    /// All operations, in the order of tables.
    pub const ALL: [Operation; 8] = [
        Operation::Read,
        Operation::Update,
        Operation::Patch,
        Operation::Delete,
        Operation::List,
        Operation::Scan,
        Operation::Help,
        Operation::Head,
    ];

    /// The name in audit entries and texts.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Update => "update",
            Operation::Patch => "patch",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::Scan => "scan",
            Operation::Help => "help",
            Operation::Head => "header",
        }
    }

    /// Whether it lists names: LIST and SCAN, whose paths are routed and evaluated by policies with a final slash.
    pub const fn lists(self) -> bool {
        matches!(self, Operation::List | Operation::Scan)
    }

    /// The index in [`Operation::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a path was refused at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A segment `.` or `..`.
    #[error("relative paths not supported")]
    Relative,
    /// A NUL or another control character.
    #[error("path contains a control character")]
    Control,
    /// An empty segment (`//`).
    #[error("path contains an empty segment")]
    EmptySegment,
    /// Longer than [`CanonicalPath::MAX`] bytes.
    #[error("path is too long")]
    TooLong,
}

/// A request path as router, policies, quotas, audit and storage all see it: percent-decoded once, without a leading
/// slash, without empty or relative segments. Created only by the edge. A path that is not canonical is refused, never
/// normalized.
///
/// A trailing slash is kept, because paths of lists have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath(String);

impl CanonicalPath {
    /// The longest path in bytes; storage keys and policies contain paths.
    pub const MAX: usize = 8192;

    /// Checks a percent-decoded path without `/v1/`.
    ///
    /// # Errors
    /// [`PathError`] when the path is ambiguous.
    pub fn new(decoded: String) -> Result<Self, PathError> {
        if decoded.len() > Self::MAX {
            return Err(PathError::TooLong);
        }
        if has_control_character(&decoded) {
            return Err(PathError::Control);
        }
        if !may_have_unclean_segment(decoded.as_bytes()) {
            return Ok(CanonicalPath(decoded));
        }
        let body = decoded.strip_suffix('/').unwrap_or(&decoded);
        for segment in body.split('/') {
            match segment {
                "." | ".." => return Err(PathError::Relative),
                "" if !body.is_empty() || decoded.len() > 1 => return Err(PathError::EmptySegment),
                _ => {}
            }
        }
        Ok(CanonicalPath(decoded))
    }

    /// The path without its first segments: the rest after `at` bytes, which end in a slash. A canonical path stays
    /// canonical without them.
    #[must_use]
    pub fn after(&self, at: usize) -> Self {
        CanonicalPath(self.0.get(at..).unwrap_or_default().to_owned())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same path with a trailing slash, as lists are routed and evaluated.
    #[must_use]
    pub fn as_folder(&self) -> Self {
        if self.0.is_empty() || self.0.ends_with('/') { self.clone() } else { CanonicalPath(format!("{}/", self.0)) }
    }
}

fn has_control_character(text: &str) -> bool {
    if text.is_ascii() {
        // Without an early end the compiler checks many bytes at once.
        return text.bytes().fold(false, |found, byte| found | byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

/// Whether a segment of a path without its leading slash is empty or begins with a dot; a final slash is allowed.
pub fn may_have_unclean_segment(path: &[u8]) -> bool {
    let mut before = b'/';
    path.iter().any(|byte| std::mem::replace(&mut before, *byte) == b'/' && matches!(byte, b'/' | b'.'))
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The captures of a pattern, by name.
pub type Captures = Vec<(Cow<'static, str>, String)>;

/// One pattern of a routing table.
///
/// `keys/{name}` — literals and captures of one segment; `hash/{algorithm|sha2-256|sha2-512}` — a capture of one of
/// several alternatives; `data/{path...}` — the rest, which a literal may follow (`mounts/{path...}/tune`). A rest may
/// be empty only when the pattern ends in `/` (a list of the root). A final `/` makes it a pattern for lists, and the
/// request path may omit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    source: Cow<'static, str>,
    segments: Vec<Segment>,
    folder: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Cow<'static, str>),
    One(Cow<'static, str>),
    OneOf(Cow<'static, str>, Vec<Cow<'static, str>>),
    Rest(Cow<'static, str>),
}

impl Pattern {
    /// Parses a pattern: a constant of the code, which is borrowed, or a text. The tables of the code are constants, so
    /// the table tests find a malformed pattern.
    pub fn new(source: impl Into<Cow<'static, str>>) -> Self {
        let source = source.into();
        let folder = source.ends_with('/') || source.is_empty();
        let segments = match &source {
            Cow::Borrowed(text) => segments(text, Cow::Borrowed),
            Cow::Owned(text) => segments(text, |word| Cow::Owned(word.to_owned())),
        };
        Pattern { source, segments, folder }
    }

    /// The source text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it ends in `/` (or is empty): a pattern for lists.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// The names that it captures.
    pub fn captures(&self) -> impl Iterator<Item = &Cow<'static, str>> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// The captures of `path` (within the mount), if it matches.
    pub fn matches(&self, path: &str) -> Option<Captures> {
        let mut found = Captures::new();
        if self.folder {
            let path = path.strip_suffix('/').unwrap_or(path);
            return take(&self.segments, path, true, &mut found).then_some(found);
        }
        if path.ends_with('/') {
            return None;
        }
        take(&self.segments, path, false, &mut found).then_some(found)
    }

    /// `path` with its literal segments, and `shown` in place of each captured segment, if it matches.
    pub fn masked(&self, path: &str, shown: impl Fn(&str) -> String) -> Option<String> {
        let mut captures = self.matches(path)?.into_iter();
        let mut out = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            match segment {
                Segment::Literal(word) => out.push(word.clone().into_owned()),
                // The alternatives are constants of the pattern.
                Segment::OneOf(..) => out.extend(captures.next().map(|(_, word)| word)),
                Segment::One(_) | Segment::Rest(_) => {
                    let (_, text) = captures.next().filter(|(_, text)| !text.is_empty()).unwrap_or_default();
                    out.extend(text.split('/').filter(|part| !part.is_empty()).map(&shown));
                }
            }
        }
        let slash = if path.ends_with('/') { "/" } else { "" };
        Some(out.join("/") + slash)
    }

    /// Whether the capture of this name is the rest of a path, which may hold slashes.
    pub fn is_rest(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Rest(rest) if rest == name))
    }

    /// Whether `path` lies below this pattern: it matches the pattern, or begins with the text before its only capture,
    /// which ends the pattern.
    pub fn covers(&self, path: &str) -> bool {
        match self.source.split_once('{') {
            Some((before, capture)) if capture.find('}') == Some(capture.len() - 1) => path.starts_with(before),
            Some(_) => self.matches(path).is_some(),
            None => path == self.source,
        }
    }

    /// The sort key of rows: a more literal pattern is tried first, a rest last.
    pub(crate) fn specificity(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self
            .segments
            .iter()
            .map(|s| match s {
                Segment::Literal(_) => 0,
                Segment::OneOf(..) => 1,
                Segment::One(_) => 2,
                Segment::Rest(_) => 4,
            })
            .collect();
        out.push(3);
        out
    }

    /// Whether two patterns are equal except for the names of their captures.
    pub fn is_ambiguous_with(&self, other: &Pattern) -> bool {
        self.folder == other.folder
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(a, b)| match (a, b) {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::One(_), Segment::One(_)) | (Segment::Rest(_), Segment::Rest(_)) => true,
                (Segment::OneOf(_, a), Segment::OneOf(_, b)) => a.iter().any(|w| b.contains(w)),
                _ => false,
            })
    }
}

/// Parses the segments of a pattern; `word` converts the text of one.
fn segments<'t>(source: &'t str, word: impl Fn(&'t str) -> Cow<'static, str>) -> Vec<Segment> {
    let body = source.strip_suffix('/').unwrap_or(source);
    if body.is_empty() { Vec::new() } else { body.split('/').map(|text| Segment::new(text, &word)).collect() }
}

impl Segment {
    fn new<'t>(text: &'t str, word: impl Fn(&'t str) -> Cow<'static, str>) -> Self {
        let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            return Segment::Literal(word(text));
        };
        if let Some(name) = inner.strip_suffix("...") {
            return Segment::Rest(word(name));
        }
        match inner.split_once('|') {
            None => Segment::One(word(inner)),
            Some((name, words)) => Segment::OneOf(word(name), words.split('|').map(word).collect()),
        }
    }

    fn name(&self) -> Option<&Cow<'static, str>> {
        match self {
            Segment::Literal(_) => None,
            Segment::One(name) | Segment::Rest(name) | Segment::OneOf(name, _) => Some(name),
        }
    }
}

/// Matches `segments` against `path`, filling `found`; on failure `found` is as before.
// recursion: bounded by the segments of a pattern of the program
fn take(segments: &[Segment], path: &str, folder: bool, found: &mut Captures) -> bool {
    let Some((first, rest)) = segments.split_first() else {
        return path.is_empty();
    };
    if let Segment::Rest(name) = first {
        let kept = rest_of(rest, path, folder);
        found.extend(kept.map(|kept| (name.clone(), kept.to_owned())));
        return kept.is_some();
    }
    if path.is_empty() {
        return false;
    }
    let (head, tail) = match memchr::memchr(b'/', path.as_bytes()) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    };
    let kept = found.len();
    match first {
        Segment::Literal(word) if *word != head => return false,
        Segment::OneOf(_, words) if !words.iter().any(|word| word == head) => return false,
        Segment::Literal(_) | Segment::Rest(_) => {}
        Segment::One(name) | Segment::OneOf(name, _) => found.push((name.clone(), head.to_owned())),
    }
    let goes_on = match tail {
        Some(tail) => take(rest, tail, folder, found),
        None => rest.is_empty() || (folder && matches!(rest, [Segment::Rest(_)]) && take(rest, "", folder, found)),
    };
    if !goes_on {
        found.truncate(kept);
    }
    goes_on
}

/// The part of `path` that a rest captures: everything except the literals after it.
fn rest_of<'p>(behind: &[Segment], path: &'p str, folder: bool) -> Option<&'p str> {
    let mut kept = path;
    for segment in behind.iter().rev() {
        let Segment::Literal(word) = segment else { return None };
        kept = kept.strip_suffix(&**word)?.strip_suffix('/')?;
    }
    (folder || !kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &'static str, path: &str) -> Option<Vec<String>> {
        let captured = |pattern: &Pattern| -> Option<Vec<String>> {
            Some(pattern.matches(path)?.into_iter().map(|(n, v)| format!("{n}={v}")).collect())
        };
        let (constant, owned) = (Pattern::new(pattern), Pattern::new(pattern.to_owned()));
        assert_eq!(constant, owned);
        assert_eq!(captured(&constant), captured(&owned));
        captured(&constant)
    }

    #[test]
    fn a_constant_pattern_is_not_copied() {
        let is_borrowed = |name: &Cow<'static, str>| matches!(name, Cow::Borrowed(_));
        let constant = Pattern::new("a/{b}/{c|x|y}/{d...}");
        assert!(constant.captures().count() == 3 && constant.captures().all(is_borrowed));
        let found = constant.matches("a/1/x/2/3").unwrap();
        assert!(found.len() == 3 && found.iter().all(|(name, _)| is_borrowed(name)));
    }

    #[test]
    fn a_masked_path_has_the_literals_of_its_pattern() {
        for (pattern, path, masked) in [
            ("keys/{name}/config", "keys/a/config", Some("keys/***/config")),
            ("hash/{algorithm|sha2-256|sha2-512}", "hash/sha2-256", Some("hash/sha2-256")),
            ("mounts/{path...}/tune", "mounts/a/b/tune", Some("mounts/***/***/tune")),
            ("data/{path...}/", "data/a/", Some("data/***/")),
            ("data/{path...}/", "data", Some("data")),
            ("keys/{name}", "keys/a/config", None),
        ] {
            let shown = Pattern::new(pattern).masked(path, |_| "***".to_owned());
            assert_eq!(shown.as_deref(), masked, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_match_what_their_documentation_says() {
        for (pattern, path, expected) in [
            ("config", "config", Some(vec![])),
            ("config", "config/", None),
            ("config", "configs", None),
            ("keys/{name}", "keys/a", Some(vec!["name=a"])),
            ("keys/{name}", "keys/a/b", None),
            ("keys/{name}", "keys", None),
            ("keys/", "keys", Some(vec![])),
            ("keys/", "keys/", Some(vec![])),
            ("data/{path...}", "data/a/b", Some(vec!["path=a/b"])),
            ("data/{path...}", "data", None),
            ("metadata/{path...}/", "metadata/", Some(vec!["path="])),
            ("metadata/{path...}/", "metadata", Some(vec!["path="])),
            ("metadata/{path...}/", "metadata/a/b/", Some(vec!["path=a/b"])),
            ("{path...}/", "", Some(vec!["path="])),
            ("mounts/{path...}/tune", "mounts/a/b/tune", Some(vec!["path=a/b"])),
            ("mounts/{path...}/tune", "mounts/tune", None),
            ("hash/{a|x|y}", "hash/y", Some(vec!["a=y"])),
            ("hash/{a|x|y}", "hash/z", None),
            ("role/{r}/secret-id/", "role/x/secret-id", Some(vec!["r=x"])),
            ("", "", Some(vec![])),
        ] {
            let expected = expected.map(|v| v.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(captured(pattern, path), expected, "{pattern} against {path}");
        }
    }

    #[test]
    fn sec_ac01_paths_that_can_be_read_in_two_ways_are_refused() {
        let refused = |p: &str| CanonicalPath::new(p.to_owned()).err();
        assert_eq!(refused("secret/data/../b"), Some(PathError::Relative));
        assert_eq!(refused(".."), Some(PathError::Relative));
        assert_eq!(refused("a/./b"), Some(PathError::Relative));
        assert_eq!(refused("a//b"), Some(PathError::EmptySegment));
        assert_eq!(refused("/a"), Some(PathError::EmptySegment));
        assert_eq!(refused("a//"), Some(PathError::EmptySegment));
        assert_eq!(refused("a\0b"), Some(PathError::Control));
        for fine in ["", "a", "a/", "a/...", "a/user..aaa", "a/.b", "ä/ü%2f"] {
            assert_eq!(refused(fine), None, "{fine}");
        }
    }
}
