//! The binary: server and command line.
//!
//! It behaves the same under any file name, such as `vault`.

mod args;
mod command_error;
mod commands;
mod complete;
mod completion;
mod cx;
mod data;
mod exact_numbers;
mod flags;
mod help;
mod mfa;
mod output;
mod prompt;
mod session;
mod terminal;
mod token_file;
mod token_helper;
mod unsupported;

use std::ffi::OsString;
use std::process::ExitCode;

use command_error::CommandError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Ok(line) = std::env::var("COMP_LINE") {
        complete::print_candidates(&line, std::env::var("COMP_POINT").ok().as_deref());
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

/// The arguments of the program. Invalid UTF-8 is refused: a silent change could store a wrong
/// password in a secret.
fn words() -> Result<Vec<String>, CommandError> {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    words.map_err(|_| CommandError::usage("An argument is not valid UTF-8; give it in a file (@path) or on stdin (-)"))
}
