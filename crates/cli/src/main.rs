//! The one binary: server and command line.
//!
//! It behaves the same under any name it is called by, `vault` included.

mod absent;
mod args;
mod commands;
mod complete;
mod completion;
mod cx;
mod data;
mod exact;
mod flags;
mod halt;
mod help;
mod output;
mod prompt;
mod session;
mod terminal;
mod token_file;
mod token_helper;

use std::ffi::OsString;
use std::process::ExitCode;

use halt::Halt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Ok(line) = std::env::var("COMP_LINE") {
        complete::answer(&line, std::env::var("COMP_POINT").ok().as_deref());
        return ExitCode::SUCCESS;
    }
    match words().and_then(|words| commands::dispatch(&words)) {
        Ok(code) => ExitCode::from(code),
        Err(halt) => {
            if let Some(message) = &halt.message {
                terminal::error(message);
            }
            ExitCode::from(halt.code)
        }
    }
}

/// The words behind the program's name. What is no text is refused: changed silently, it could be a wrong
/// password in a secret.
fn words() -> Result<Vec<String>, Halt> {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    words.map_err(|_| Halt::usage("An argument is not valid UTF-8; give it in a file (@path) or on stdin (-)"))
}
