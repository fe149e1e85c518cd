//! Writing to stdout and stderr: colours only on a terminal, a closed pipe is no error.

use std::io::{self, IsTerminal, Write};

use keepfast_client::environment;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Writes to stdout as it is.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever reads has read enough when the pipe is closed.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes a value for a script: without a final newline, unless a person is reading.
pub(crate) fn raw(text: &str) {
    let end = if io::stdout().is_terminal() { "\n" } else { "" };
    print(&format!("{text}{end}"));
}

/// A line on stdout that says that something worked.
pub(crate) fn success(text: &str) {
    line(&coloured(text, GREEN, io::stdout().is_terminal()));
}

/// A line on stderr that deserves attention.
pub(crate) fn warning(text: &str) {
    on_stderr(text, YELLOW);
}

/// A line on stderr that says what went wrong.
pub(crate) fn error(text: &str) {
    on_stderr(text, RED);
}

fn on_stderr(text: &str, colour: &str) {
    let mut err = io::stderr().lock();
    let text = coloured(text, colour, io::stderr().is_terminal());
    let _ = writeln!(err, "{text}");
}

fn coloured(text: &str, colour: &str, terminal: bool) -> String {
    let plain = !terminal
        || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || environment::variable("CLI_NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("{colour}{text}{PLAIN}") }
}

/// How far a long work is, on stderr while a person watches.
pub(crate) struct Progress {
    total: u64,
    done: u64,
    shown: Option<u64>,
}

impl Progress {
    /// A work of so many bytes.
    pub(crate) fn of(total: u64) -> Self {
        Self { total, done: 0, shown: io::stderr().is_terminal().then_some(u64::MAX) }
    }

    /// So many bytes more are done.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100).min(100);
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
