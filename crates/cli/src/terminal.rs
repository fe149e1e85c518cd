//! Output to stdout and stderr: colours only on a terminal; a closed pipe is not an error.
//!
//! Control characters are escaped on a terminal: values and error texts of a server could otherwise move the cursor,
//! change the title or hide text. A pipe or file gets them unchanged.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use keepfast_client::environment;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Writes to stdout; control characters are escaped on a terminal.
pub(crate) fn print(text: &str) {
    let text = if io::stdout().is_terminal() { visible(text) } else { Cow::Borrowed(text) };
    write_out(&text);
}

fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    // A closed pipe means that the reader has read enough.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Escapes the characters that control a terminal: C0 and C1 except line feed and tab, and those that change the
/// writing direction.
fn visible(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| match c {
        c if !is_obeyed(c) => c.to_string(),
        '\r' => "\\r".to_owned(),
        c if c.is_ascii() => format!("\\x{:02x}", u32::from(c)),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    });
    Cow::Owned(escaped.collect())
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes a value for a script: with a final newline only on a terminal.
pub(crate) fn raw(text: &str) {
    let end = if io::stdout().is_terminal() { "\n" } else { "" };
    print(&format!("{text}{end}"));
}

/// Writes a success message to stdout.
pub(crate) fn success(text: &str) {
    let terminal = io::stdout().is_terminal();
    let text = if terminal { visible(text) } else { Cow::Borrowed(text) };
    write_out(&format!("{}\n", coloured(&text, GREEN, terminal)));
}

/// Writes a warning to stderr.
pub(crate) fn warning(text: &str) {
    on_stderr(text, YELLOW);
}

/// Writes an error to stderr.
pub(crate) fn error(text: &str) {
    on_stderr(text, RED);
}

fn on_stderr(text: &str, colour: &str) {
    let mut err = io::stderr().lock();
    let terminal = io::stderr().is_terminal();
    let text = if terminal { visible(text) } else { Cow::Borrowed(text) };
    let text = coloured(&text, colour, terminal);
    let _ = writeln!(err, "{text}");
}

fn coloured(text: &str, colour: &str, terminal: bool) -> String {
    let plain = !terminal
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || environment::variable("CLI_NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("{colour}{text}{PLAIN}") }
}

/// The progress of a long operation, on stderr when that is a terminal.
pub(crate) struct Progress {
    total: u64,
    done: u64,
    shown: Option<u64>,
}

impl Progress {
    /// An operation on `total` bytes.
    pub(crate) fn of(total: u64) -> Self {
        Self { total, done: 0, shown: io::stderr().is_terminal().then_some(u64::MAX) }
    }

    /// Adds `bytes` finished bytes.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.show((self.done * 100).checked_div(self.total).unwrap_or(100).min(100));
    }

    /// Shows 100 %, which includes bytes that were not counted, such as the header of a file.
    pub(crate) fn finish(&mut self) {
        self.show(100);
    }

    fn show(&mut self, percent: u64) {
        if self.shown.is_some_and(|shown| shown != percent) {
            self.shown = Some(percent);
            let bar = "#".repeat(usize::try_from(percent / 4).unwrap_or_default());
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r[{bar:<25}] {percent:>3} %").and_then(|()| err.flush());
        }
    }
}

/// Ends the line of a [`Progress`].
pub(crate) fn progress_done() {
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("A\u{1b}]0;PWNED\u{7}\u{1b}[2J\r\u{8}"), "A\\x1b]0;PWNED\\x07\\x1b[2J\\r\\x08");
        assert_eq!(visible("\u{9b}31m\u{7f}\u{202e}txt\u{2069}"), "\\u{9b}31m\\x7f\\u{202e}txt\\u{2069}");
        assert!(matches!(visible("plain \u{e9}\u{4e2d}\tand\nlines"), Cow::Borrowed(_)));
    }
}
