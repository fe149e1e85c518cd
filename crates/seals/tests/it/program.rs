//! Programs of the machine, started on free ports, killed when dropped.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program of the test environment, by the variable that names it or where `cargo xtask test` puts it; `None`, with a
/// message, if it is missing and not required.
pub(crate) fn program(variable: &str, candidates: &[&str]) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named.into_iter().chain(candidates.iter().map(|path| root.join(path))).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("KEEPFAST_SERVERS").is_none(), "{candidates:?} is not installed");
        eprintln!("skipped: {candidates:?} is not installed");
    }
    found
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running program.
pub(crate) struct Running {
    child: Child,
    /// The line for which the start waited.
    pub(crate) line: String,
}

impl Running {
    /// Starts a program and waits for a line of its output, or of its errors, with this text.
    pub(crate) fn start(command: &mut Command, of_errors: bool, text: &str) -> Self {
        let (output, errors) =
            if of_errors { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::null()) };
        let mut child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
        let stream: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(output), _) => Box::new(output),
            (None, Some(errors)) => Box::new(errors),
            (None, None) => unreachable!("one of them is a pipe"),
        };
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let mut seen = String::new();
        let line = lines.find(|line| {
            seen.push_str(line);
            seen.push('\n');
            line.contains(text)
        });
        let Some(line) = line else { panic!("{command:?} ended:\n{seen}") };
        // The pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        Running { child, line }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
