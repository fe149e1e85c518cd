//! Errors of databases in two forms: the text for the caller, and the code for the log.

use keepfast_framework::text_limits::ExceedsLimit;
use keepfast_framework::{Error, Status};

/// An error of a database or of the connection to it.
///
/// `text` is for the caller. It can quote the statement, so [`super::redact`] replaces the secrets of the call in it. The
/// log gets the code of a server's error and not its text.
#[derive(Debug)]
pub(super) struct DatabaseError {
    text: String,
    /// The code of the server's error, such as `SQLSTATE 42601`; `None` for Keepfast's own text.
    code: Option<String>,
}

impl DatabaseError {
    /// An error of Keepfast itself or of the network: its text holds nothing that a server sent.
    pub(super) fn new(text: impl Into<String>) -> Self {
        DatabaseError { text: text.into(), code: None }
    }

    /// An error that a server sent.
    pub(super) fn of_server(code: impl Into<String>, text: impl Into<String>) -> Self {
        DatabaseError { text: text.into(), code: Some(code.into()) }
    }

    /// The text for the caller.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text for the log.
    pub(super) fn logged(&self) -> &str {
        self.code.as_deref().unwrap_or(&self.text)
    }

    /// The code of the server's error.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The same error with another text, such as one that names the operation.
    #[must_use]
    pub(super) fn reworded(self, text: impl FnOnce(String) -> String) -> Self {
        DatabaseError { text: text(self.text), code: self.code }
    }

    /// 500 in OpenBao's form.
    pub(super) fn answer(self) -> Error {
        self.with_status(Status::INTERNAL, |text| format!("1 error occurred:\n\t* {text}\n\n"))
    }

    /// 400 in OpenBao's form, for a request that is wrong (OpenBao answers 500).
    pub(super) fn refusal(self) -> Error {
        self.with_status(Status::BAD_REQUEST, |text| format!("1 error occurred:\n\t* {text}\n\n"))
    }

    /// 400 with the text alone.
    pub(super) fn invalid(self) -> Error {
        self.with_status(Status::BAD_REQUEST, |text| text)
    }

    fn with_status(self, status: Status, form: impl FnOnce(String) -> String) -> Error {
        let error = Error::new(status, form(self.text));
        match self.code {
            Some(code) => error.logged_as(format!("the database failed with {code}")),
            None => error,
        }
    }
}

impl From<ExceedsLimit> for DatabaseError {
    fn from(limit: ExceedsLimit) -> Self {
        DatabaseError::new(limit.to_string())
    }
}

/// Why a user was not created.
#[derive(Debug)]
pub(super) enum NotMade {
    /// This call created no user, because one of this name existed.
    Taken(DatabaseError),
    /// This call created no user, because it sent no statement that creates one.
    Untried(DatabaseError),
    /// Anything else: the user may exist.
    Failed(DatabaseError),
}

impl NotMade {
    /// The database's error.
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            NotMade::Taken(error) | NotMade::Untried(error) | NotMade::Failed(error) => error,
        }
    }

    /// The same with another error.
    #[must_use]
    pub(super) fn map(self, change: impl FnOnce(DatabaseError) -> DatabaseError) -> Self {
        match self {
            NotMade::Taken(error) => NotMade::Taken(change(error)),
            NotMade::Untried(error) => NotMade::Untried(change(error)),
            NotMade::Failed(error) => NotMade::Failed(change(error)),
        }
    }
}

impl From<DatabaseError> for NotMade {
    fn from(error: DatabaseError) -> Self {
        NotMade::Failed(error)
    }
}

/// Why a password was not changed.
#[derive(Debug)]
pub(super) enum NotChanged {
    /// The database keeps the old password: nothing was sent, or the server undid all of it.
    Refused(DatabaseError),
    /// The database may have the old or the new password.
    Unanswered(DatabaseError),
    /// The database has the new password, but a restart of the server may bring the old one back.
    Unsaved(DatabaseError),
}

impl NotChanged {
    /// The database's error.
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            NotChanged::Refused(error) | NotChanged::Unanswered(error) | NotChanged::Unsaved(error) => error,
        }
    }

    /// The same with another error.
    #[must_use]
    pub(super) fn map(self, change: impl FnOnce(DatabaseError) -> DatabaseError) -> Self {
        match self {
            NotChanged::Refused(error) => NotChanged::Refused(change(error)),
            NotChanged::Unanswered(error) => NotChanged::Unanswered(change(error)),
            NotChanged::Unsaved(error) => NotChanged::Unsaved(change(error)),
        }
    }
}

impl From<DatabaseError> for NotChanged {
    fn from(error: DatabaseError) -> Self {
        NotChanged::Unanswered(error)
    }
}
