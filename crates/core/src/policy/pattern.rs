//! The path of a rule: exact, with a final `*`, with `+` for whole segments; and the order by specificity.

use std::cmp::Ordering;

/// The path of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Exactly this path.
    Exact(String),
    /// Every path with this prefix.
    Prefix(String),
    /// A pattern with at least one `+` segment.
    Segments(Segments),
}

/// A pattern with `+` segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    /// The segments; `None` is `+`.
    parts: Vec<Option<String>>,
    /// Whether it ends in `*`, so that the last part is a prefix and more segments may follow.
    open: bool,
    /// The text before the first `+`: a quick test that most paths fail.
    head: String,
    /// Its specificity.
    pub(crate) rank: Rank,
}

/// The specificity of a pattern with wildcards: greater is more specific.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    first_wildcard: usize,
    closed: bool,
    pluses: usize,
    length: usize,
    text: String,
}

impl Segments {
    /// The text before the first `+`.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }
}

impl Pattern {
    /// Parses the path of a rule and ignores a leading slash.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.strip_prefix('/').unwrap_or(text);
        let open = text.ends_with('*');
        let body = text.strip_suffix('*').unwrap_or(text);
        if body.split('/').any(|segment| segment == "+") {
            let parts = body.split('/').map(|segment| (segment != "+").then(|| segment.to_owned())).collect();
            let rank = Rank::of(text);
            let head = text.get(..rank.first_wildcard).unwrap_or_default().to_owned();
            return Self::Segments(Segments { parts, open, head, rank });
        }
        if open { Self::Prefix(body.to_owned()) } else { Self::Exact(text.to_owned()) }
    }

    /// The case-folded pattern.
    pub(crate) fn folded(&self) -> Self {
        match self {
            Self::Exact(path) => Self::Exact(fold(path)),
            Self::Prefix(prefix) => Self::Prefix(fold(prefix)),
            Self::Segments(segments) => Self::new(&fold(&segments.rank.text)),
        }
    }
}

impl Segments {
    /// Whether the path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.head) {
            return false;
        }
        let mut segments = path.split('/');
        let last = self.parts.len().saturating_sub(1);
        for (index, part) in self.parts.iter().enumerate() {
            let Some(segment) = segments.next() else { return false };
            let fits = match part {
                None => true,
                Some(part) if self.open && index == last => segment.starts_with(part),
                Some(part) => segment == part,
            };
            if !fits {
                return false;
            }
        }
        self.open || segments.next().is_none()
    }
}

impl Rank {
    /// The rank of a pattern in source form, without a leading slash.
    pub(crate) fn of(text: &str) -> Self {
        let closed = !text.ends_with('*');
        let body = text.strip_suffix('*').unwrap_or(text);
        let mut first = None;
        let mut pluses = 0;
        let mut at = 0;
        for segment in body.split('/') {
            if segment == "+" {
                pluses += 1;
                first = first.or(Some(at));
            }
            at += segment.len() + 1;
        }
        let first_wildcard = first.unwrap_or(body.len());
        Self { first_wildcard, closed, pluses, length: text.len(), text: text.to_owned() }
    }

    /// The order without the final comparison of bytes.
    pub(crate) fn cmp_form(&self, other: &Self) -> Ordering {
        self.first_wildcard
            .cmp(&other.first_wildcard)
            .then(self.closed.cmp(&other.closed))
            .then(other.pluses.cmp(&self.pluses))
            .then(self.length.cmp(&other.length))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_form(other).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The case-folded text: two texts that differ only in case fold to the same.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Upper case first and then lower case, so that letters with several lower-case forms (`ſ`, `ß`, `ı`) become equal.
    text.to_uppercase().to_lowercase()
}

/// A quick test for texts that folding does not change; most paths pass it.
pub(crate) fn is_folded(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}
