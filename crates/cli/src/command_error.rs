//! The error of a command and its exit code.

/// A command's exit code, or its error.
pub(crate) type Outcome = Result<u8, CommandError>;

/// An early end of a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// 1 for an error of the client or its user, 2 for an error of the server or its absence, 0 for complete output.
    pub(crate) code: u8,
    /// The message for stderr.
    pub(crate) message: Option<String>,
}

impl CommandError {
    /// The command line or the local environment is invalid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 1, message: Some(message.into()) }
    }

    /// The server returned an error, or the path has no value.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 2, message: Some(message.into()) }
    }

    /// There is no error: the requested output is already on stdout.
    pub(crate) fn printed() -> Self {
        Self { code: 0, message: None }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        match self.code {
            0 => self,
            _ => Self { code, ..self },
        }
    }
}
