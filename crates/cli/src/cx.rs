//! What a command has at hand when it runs.

use crate::args::{Command, Words};
use crate::halt::Halt;
use crate::output::Output;
use crate::session::Session;

/// One call of one command.
pub(crate) struct Cx {
    /// Its flags and arguments.
    pub(crate) words: Words,
    /// How to show answers.
    pub(crate) output: Output,
}

impl Cx {
    /// Sorts the words after the command's table and checks what can be checked before it runs.
    pub(crate) fn new(command: &'static Command, words: Words) -> Result<Self, Halt> {
        let output = Output::new(command.name, &words)?;
        words.count(command)?;
        Ok(Self { words, output })
    }

    /// An argument; empty when it was not given.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.words.arguments.get(at).map_or("", String::as_str)
    }

    /// An argument that is a path: without slashes around it.
    pub(crate) fn path(&self, at: usize) -> String {
        self.argument(at).trim().trim_matches('/').to_owned()
    }

    /// The arguments from `at` on.
    pub(crate) fn arguments_from(&self, at: usize) -> &[String] {
        self.words.arguments.get(at..).unwrap_or_default()
    }

    /// A connection to the server that flags and environment name.
    pub(crate) fn session(&self) -> Result<Session, Halt> {
        Session::new(&self.words)
    }
}
