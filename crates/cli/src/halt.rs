//! Why a command ends early, and with which exit code.

/// A command's exit code, or why it stopped.
pub(crate) type Outcome = Result<u8, Halt>;

/// The end of a command before its end.
#[derive(Debug)]
pub(crate) struct Halt {
    /// 1 for a mistake on this side, 2 for a server's refusal or absence, 0 when all has been shown.
    pub(crate) code: u8,
    /// What to say on stderr.
    pub(crate) message: Option<String>,
}

impl Halt {
    /// The user asked for something that makes no sense here.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 1, message: Some(message.into()) }
    }

    /// The server refused, or nothing is there.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 2, message: Some(message.into()) }
    }

    /// Nothing went wrong: what was asked for is already on stdout.
    pub(crate) fn shown() -> Self {
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
