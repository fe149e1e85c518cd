//! The canonical format of an HCL text, comments included.
//!
//! Two spaces per level; an empty line between blocks and between runs of attributes. In a run of attributes on adjacent
//! lines, `=` and trailing comments are aligned. A list on one line stays on one line.

use crate::HclError;
use crate::ast::{Body, Item, Value, ValueKind};
use crate::parse::{self, Comment};

/// Formats an HCL text as `policy fmt` does. A JSON text is returned unchanged.
///
/// # Errors
/// [`HclError`] when the text does not parse.
pub fn format(text: &str) -> Result<String, HclError> {
    if text.trim_start().starts_with('{') {
        return crate::parse(text).map(|_| text.to_owned());
    }
    let (document, comments) = parse::parse(text)?;
    let mut printer = Printer { source: text, comments, next: 0, out: String::new() };
    printer.body(&document.body, 0, true);
    Ok(printer.out)
}

struct Printer<'a> {
    source: &'a str,
    /// In source order; those before `next` are printed.
    comments: Vec<Comment>,
    next: usize,
    out: String,
}

/// An attribute that fits on one line, in its columns.
struct Line {
    key: String,
    value: String,
    comment: Option<String>,
}

impl Printer<'_> {
    /// Prints the items of a body and the comments between them, each line ended.
    // recursion: bounded by MAX_DEPTH of the parser
    fn body(&mut self, body: &Body, level: usize, top: bool) {
        let mut index = 0;
        let start = self.out.len();
        while let Some(item) = body.items.get(index) {
            self.space(start);
            let lead = self.standalone(item.position().offset, Some(item), level, start);
            for comment in &lead {
                self.line(level, comment);
            }
            let run = if top || lead.len() > 1 { 1 } else { self.run(&body.items[index..]) };
            let items = &body.items[index..index + run];
            if !self.aligned(items, level) {
                self.item(item, level);
            }
            index += run;
            // Comments inside the item that have no line of their own.
            if let Some(last) = items.last() {
                self.leftover(last.value.end, level, start);
            }
        }
        let rest = self.standalone(body.end, None, level, start);
        debug_assert!(rest.is_empty(), "a comment leads an item only when there is one");
    }

    /// Prints an empty line, unless nothing was printed since `start` or the last line is empty.
    fn space(&mut self, start: usize) {
        if self.out.len() > start && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn line(&mut self, level: usize, text: &str) {
        self.indent(level);
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn indent(&mut self, level: usize) {
        for _ in 0..level {
            self.out.push_str("  ");
        }
    }

    /// Prints the groups of comments before `offset`. Returns the group that ends on the line above the item.
    fn standalone(&mut self, offset: usize, item: Option<&Item>, level: usize, start: usize) -> Vec<String> {
        loop {
            let group = self.group(offset);
            let Some(last) = group.last() else { return Vec::new() };
            if item.is_some_and(|item| last_line(last) + 1 == item.position().line) {
                return group.into_iter().map(|comment| comment.text).collect();
            }
            self.space(start);
            for comment in &group {
                self.line(level, &comment.text);
            }
            if item.is_some() {
                self.out.push('\n');
            }
        }
    }

    /// Takes the next comments before `offset` that are on adjacent lines.
    fn group(&mut self, offset: usize) -> Vec<Comment> {
        let mut group: Vec<Comment> = Vec::new();
        while let Some(comment) = self.comments.get(self.next).filter(|comment| comment.position.offset < offset) {
            if group.last().is_some_and(|last| last_line(last) + 1 != comment.position.line) {
                break;
            }
            group.push(comment.clone());
            self.next += 1;
        }
        group
    }

    fn leftover(&mut self, end: usize, level: usize, start: usize) {
        while let Some(comment) = self.comments.get(self.next).filter(|comment| comment.position.offset < end) {
            let text = comment.text.clone();
            self.next += 1;
            self.space(start);
            self.line(level, &text);
        }
    }

    /// The number of leading items that are attributes of one line on adjacent lines.
    fn run(&self, items: &[Item]) -> usize {
        let mut run = 0;
        for (index, item) in items.iter().enumerate() {
            let previous = index.checked_sub(1).and_then(|before| items.get(before));
            let adjacent = previous.is_none_or(|previous| previous.position().line + 1 == item.position().line);
            if !adjacent || self.inline_item(item).is_none() {
                break;
            }
            run += 1;
        }
        run.max(1)
    }

    /// Prints items of one line each, aligned in columns. Returns false when one does not fit on a line.
    fn aligned(&mut self, items: &[Item], level: usize) -> bool {
        let Some(pairs) = items.iter().map(|item| self.inline_item(item)).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let mut lines = Vec::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let end = items.get(index + 1).map_or(usize::MAX, |item| item.position().offset);
            let comment = items.get(index).and_then(|item| self.trailing(item.value.end, end));
            lines.push(Line { key, value, comment });
        }
        let key_width = lines.iter().map(|line| width(&line.key)).max().unwrap_or_default();
        let value_width = lines.iter().map(|line| width(&line.value)).max().unwrap_or_default();
        for line in lines {
            let mut text = pad(&line.key, key_width) + " = ";
            match line.comment {
                Some(comment) => text += &format!("{} {comment}", pad(&line.value, value_width)),
                None => text += &line.value,
            }
            self.line(level, &text);
        }
        true
    }

    /// The comment after offset `from` on the same line and before `until`.
    fn trailing(&mut self, from: usize, until: usize) -> Option<String> {
        let comment = self.comments.get(self.next)?;
        let offset = comment.position.offset;
        let between = self.source.get(from..offset)?;
        if offset >= until || between.contains('\n') || !between.trim_matches([' ', '\t', ',', '\r']).is_empty() {
            return None;
        }
        let text = comment.text.clone();
        self.next += 1;
        Some(text)
    }

    /// Key and value of an attribute that fits on one line and has no comment inside.
    fn inline_item(&self, item: &Item) -> Option<(String, String)> {
        item.assign?;
        Some((self.keys(item), self.inline(&item.value)?))
    }

    // recursion: bounded by MAX_DEPTH of the parser
    fn inline(&self, value: &Value) -> Option<String> {
        let raw = self.raw(value.position.offset, value.end);
        let commented =
            self.comments.iter().any(|comment| (value.position.offset..value.end).contains(&comment.position.offset));
        match &value.kind {
            _ if commented => None,
            ValueKind::List(list) if list.is_empty() => Some("[]".to_owned()),
            ValueKind::Object(body) if body.items.is_empty() => Some("{}".to_owned()),
            ValueKind::Object(_) => None,
            _ if raw.starts_with("<<") => None,
            ValueKind::List(list) => {
                let nested = list.iter().any(|value| value.as_object().is_some() || value.as_list().is_some());
                let first = list.first().map_or(0, |value| value.position.line);
                if nested || first != value.position.line || list.iter().any(|value| value.position.line != first) {
                    return None;
                }
                let elements = list.iter().map(|value| self.inline(value)).collect::<Option<Vec<_>>>()?;
                Some(format!("[{}]", elements.join(", ")))
            }
            _ => Some(raw.to_owned()),
        }
    }

    /// Prints an item of several lines: a block, a list or a heredoc.
    // recursion: bounded by MAX_DEPTH of the parser
    fn item(&mut self, item: &Item, level: usize) {
        let keys = self.keys(item);
        self.indent(level);
        self.out.push_str(&keys);
        self.out.push_str(if item.assign.is_some() { " = " } else { " " });
        self.value(&item.value, level);
        if let Some(comment) = self.trailing(item.value.end, usize::MAX) {
            self.out.push(' ');
            self.out.push_str(&comment);
        }
        self.out.push('\n');
    }

    // recursion: bounded by MAX_DEPTH of the parser
    fn value(&mut self, value: &Value, level: usize) {
        if let Some(text) = self.inline(value) {
            self.out.push_str(&text);
            return;
        }
        match &value.kind {
            ValueKind::List(list) => self.list(list, value.end, level),
            ValueKind::Object(body) => {
                self.out.push_str("{\n");
                self.body(body, level + 1, false);
                self.indent(level);
                self.out.push('}');
            }
            _ => {
                let raw = self.raw(value.position.offset, value.end).replace("\r\n", "\n");
                self.out.push_str(&raw);
            }
        }
    }

    /// Prints a list with one element per line.
    // recursion: bounded by MAX_DEPTH of the parser
    fn list(&mut self, list: &[Value], end: usize, level: usize) {
        self.out.push_str("[\n");
        let start = self.out.len();
        let texts: Vec<_> = list.iter().map(|value| self.inline(value)).collect();
        let widest = texts.iter().flatten().map(|text| width(text)).max().unwrap_or_default();
        for (index, value) in list.iter().enumerate() {
            let lead = self.group(value.position.offset);
            if !lead.is_empty() {
                self.space(start);
            }
            for comment in &lead {
                self.line(level + 1, &comment.text);
            }
            self.indent(level + 1);
            self.value(value, level + 1);
            // The comma after a heredoc is below its anchor, which must be alone on its line.
            if self.raw(value.position.offset, value.end).starts_with("<<") {
                self.out.push('\n');
                self.indent(level + 1);
            }
            self.out.push(',');
            let until = list.get(index + 1).map_or(end, |value| value.position.offset);
            if let Some(comment) = self.trailing(value.end, until) {
                let text = texts.get(index).and_then(Option::as_deref).unwrap_or_default();
                let gap = (widest + 1).saturating_sub(width(text)).max(1);
                self.out.push_str(&" ".repeat(gap));
                self.out.push_str(&comment);
            }
            self.out.push('\n');
        }
        self.leftover(end, level + 1, start);
        self.indent(level);
        self.out.push(']');
    }

    fn keys(&self, item: &Item) -> String {
        let keys: Vec<_> = item.keys.iter().map(|key| self.raw(key.position.offset, key.end)).collect();
        keys.join(" ")
    }

    fn raw(&self, from: usize, to: usize) -> &str {
        self.source.get(from..to).unwrap_or_default()
    }
}

/// The line on which a comment ends.
fn last_line(comment: &Comment) -> u32 {
    comment.position.line + u32::try_from(comment.text.matches('\n').count()).unwrap_or_default()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::format;
    use crate::tests::shape;

    const TEXT: &str = r#"# top
# two

// slash
path "a"    {
capabilities=["read","list"] // trailing
   # inner
   allowed_parameters   {
 "x"=["1"]
   yyyyyy = []  # tr
   }
   comment = "é\n"
}
path "b" { capabilities = ["read"], }
"path" "d" { "capabilities" = ["deny"]
 required_parameters = [
 "a",
 "b"  # why
 ,
"cc",] } # after
path "e" { comment = <<EOF
foo
  bar
EOF
  policy = "write"
  pagination_limit = 0x1F
 denied_parameters { c = [{a=1},{b=2}] d = [[1],2] } }
path "f" { }


path "g" {
 # only
}
"#;

    /// The output of `bao policy fmt` 2.7.2 for it.
    const PRINTED: &str = r#"# top
# two

// slash
path "a" {
  capabilities = ["read", "list"] // trailing

  # inner
  allowed_parameters {
    "x"    = ["1"]
    yyyyyy = []    # tr
  }

  comment = "é\n"
}

path "b" {
  capabilities = ["read"]
}

"path" "d" {
  "capabilities" = ["deny"]

  required_parameters = [
    "a",
    "b",  # why
    "cc",
  ]
} # after

path "e" {
  comment = <<EOF
foo
  bar
EOF

  policy           = "write"
  pagination_limit = 0x1F

  denied_parameters {
    c = [
      {
        a = 1
      },
      {
        b = 2
      },
    ]

    d = [
      [1],
      2,
    ]
  }
}

path "f" {}

path "g" {
  # only
}
"#;

    #[test]
    fn prints_like_openbao() {
        assert_eq!(format(TEXT).unwrap(), PRINTED);
        assert_eq!(format(PRINTED).unwrap(), PRINTED);
    }

    #[test]
    fn comments_in_odd_places_are_kept() {
        let text =
            "/* x */ path \"a\" /* y */ { /* z */ c /* w */ = /* v */ [\"r\" /* u */ , /* t */ ] /* s */ } /* r */ # q";
        let printed = format(text).unwrap();
        for comment in
            ["/* x */", "/* y */", "/* z */", "/* w */", "/* v */", "/* u */", "/* t */", "/* s */", "/* r */", "# q"]
        {
            assert_eq!(printed.matches(comment).count(), 1, "{comment} in\n{printed}");
        }
        assert_eq!(shape(text), shape(&printed));
    }
}
