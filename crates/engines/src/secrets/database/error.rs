//! Errors of databases with two texts: one for the client, one for the log.

use keepfast_framework::text_limits::ExceedsLimit;
use keepfast_framework::{Error, Status};

/// An error of a database or of the connection to it.
///
/// `text` is for the client. It can quote the statement, so [`super::redact`] replaces the secrets of the call in it.
/// The log gets the code of a server's error instead of its text.
#[derive(Debug)]
pub(super) struct DatabaseError {
    text: String,
    /// The code of the server's error, such as `SQLSTATE 42601`; `None` for Keepfast's own text.
    code: Option<String>,
}

impl DatabaseError {
    /// An error of Keepfast or of the network, whose text contains nothing from a server.
    pub(super) fn new(text: impl Into<String>) -> Self {
        DatabaseError { text: text.into(), code: None }
    }

    /// An error from a server.
    pub(super) fn from_server(code: impl Into<String>, text: impl Into<String>) -> Self {
        DatabaseError { text: text.into(), code: Some(code.into()) }
    }

    /// The text for the client.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text for the log.
    pub(super) fn log_text(&self) -> &str {
        self.code.as_deref().unwrap_or(&self.text)
    }

    /// The code of the server's error.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The same error with another text, such as one that names the operation.
    #[must_use]
    pub(super) fn with_text(self, text: impl FnOnce(String) -> String) -> Self {
        DatabaseError { text: text(self.text), code: self.code }
    }

    /// 500 in OpenBao's format.
    pub(super) fn internal(self) -> Error {
        self.with_status(Status::INTERNAL, |text| format!("1 error occurred:\n\t* {text}\n\n"))
    }

    /// 400 in OpenBao's format, for an invalid request (OpenBao returns 500).
    pub(super) fn bad_request(self) -> Error {
        self.with_status(Status::BAD_REQUEST, |text| format!("1 error occurred:\n\t* {text}\n\n"))
    }

    /// 400 with only the text.
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
pub(super) enum CreateUserError {
    /// This call created no user, because a user with this name exists.
    NameExists(DatabaseError),
    /// This call created no user, because it sent no statement that creates one.
    NotAttempted(DatabaseError),
    /// Any other error: the user may exist.
    Unknown(DatabaseError),
}

impl CreateUserError {
    /// The database error.
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            CreateUserError::NameExists(error)
            | CreateUserError::NotAttempted(error)
            | CreateUserError::Unknown(error) => error,
        }
    }

    /// The same kind with another error.
    #[must_use]
    pub(super) fn map(self, change: impl FnOnce(DatabaseError) -> DatabaseError) -> Self {
        match self {
            CreateUserError::NameExists(error) => CreateUserError::NameExists(change(error)),
            CreateUserError::NotAttempted(error) => CreateUserError::NotAttempted(change(error)),
            CreateUserError::Unknown(error) => CreateUserError::Unknown(change(error)),
        }
    }
}

impl From<DatabaseError> for CreateUserError {
    fn from(error: DatabaseError) -> Self {
        CreateUserError::Unknown(error)
    }
}

/// Why a password was not changed.
#[derive(Debug)]
pub(super) enum ChangePasswordError {
    /// The database keeps the old password: nothing was sent, or the server rolled back all changes.
    Unchanged(DatabaseError),
    /// The database may have the old or the new password.
    Unknown(DatabaseError),
    /// The database has the new password, but a restart of the server may restore the old one.
    Unsaved(DatabaseError),
}

impl ChangePasswordError {
    /// The database error.
    pub(super) fn into_error(self) -> DatabaseError {
        match self {
            ChangePasswordError::Unchanged(error)
            | ChangePasswordError::Unknown(error)
            | ChangePasswordError::Unsaved(error) => error,
        }
    }

    /// The same kind with another error.
    #[must_use]
    pub(super) fn map(self, change: impl FnOnce(DatabaseError) -> DatabaseError) -> Self {
        match self {
            ChangePasswordError::Unchanged(error) => ChangePasswordError::Unchanged(change(error)),
            ChangePasswordError::Unknown(error) => ChangePasswordError::Unknown(change(error)),
            ChangePasswordError::Unsaved(error) => ChangePasswordError::Unsaved(change(error)),
        }
    }
}

impl From<DatabaseError> for ChangePasswordError {
    fn from(error: DatabaseError) -> Self {
        ChangePasswordError::Unknown(error)
    }
}
