//! The context of a running command.

use crate::args::{Command, Words};
use crate::command_error::CommandError;
use crate::output::Output;
use crate::session::Session;

/// The context of one command.
pub(crate) struct Cx {
    /// The flags and arguments.
    pub(crate) words: Words,
    /// The output format.
    pub(crate) output: Output,
}

impl Cx {
    /// Checks the words by the command's table and reads the output flags.
    pub(crate) fn new(command: &'static Command, words: Words) -> Result<Self, CommandError> {
        let output = Output::new(command.name, &words)?;
        words.count(command)?;
        Ok(Self { words, output })
    }

    /// An argument; empty when it is missing.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.words.arguments.get(at).map_or("", String::as_str)
    }

    /// An argument that is a path, without leading and trailing slashes.
    pub(crate) fn path(&self, at: usize) -> String {
        self.argument(at).trim().trim_matches('/').to_owned()
    }

    /// The arguments from `at` on.
    pub(crate) fn arguments_from(&self, at: usize) -> &[String] {
        self.words.arguments.get(at..).unwrap_or_default()
    }

    /// A connection to the server of the flags and environment.
    pub(crate) fn session(&self) -> Result<Session, CommandError> {
        Session::new(&self.words)
    }
}
