//! The one binary: server and command line.
//!
//! It behaves the same under any name it is called by, `vault` included.

mod args;
mod commands;
mod completion;
mod cx;
mod data;
mod flags;
mod halt;
mod help;
mod output;
mod prompt;
mod session;
mod terminal;
mod token_file;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match commands::dispatch(&words) {
        Ok(code) => ExitCode::from(code),
        Err(halt) => {
            if let Some(message) = &halt.message {
                terminal::error(message);
            }
            ExitCode::from(halt.code)
        }
    }
}
