//! The error of a request: a public text for the caller, and a cause that only the log may contain.

use std::borrow::Cow;
use std::fmt;

use keepfast_storage::{StorageError, TxError};
use serde::Serialize;

/// The result type of handlers.
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// Any error as a cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP status code. The framework does not use HTTP, but these numbers are part of the API that clients rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// 200
    pub const OK: Status = Status(200);
    /// 204
    pub const NO_CONTENT: Status = Status(204);
    /// 307
    pub const TEMPORARY_REDIRECT: Status = Status(307);
    /// 400
    pub const BAD_REQUEST: Status = Status(400);
    /// 403
    pub const FORBIDDEN: Status = Status(403);
    /// 404
    pub const NOT_FOUND: Status = Status(404);
    /// 405
    pub const METHOD_NOT_ALLOWED: Status = Status(405);
    /// 412
    pub const PRECONDITION_FAILED: Status = Status(412);
    /// 413
    pub const TOO_LARGE: Status = Status(413);
    /// 415
    pub const UNSUPPORTED_MEDIA_TYPE: Status = Status(415);
    /// 429
    pub const TOO_MANY_REQUESTS: Status = Status(429);
    /// 500
    pub const INTERNAL: Status = Status(500);
    /// 503
    pub const UNAVAILABLE: Status = Status(503);
}

/// The kind of an error, for code that depends on it: the texts are only for callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorKind {
    /// Any other error.
    #[default]
    Other,
    /// No row of the mount's table matches the path.
    UnsupportedPath,
    /// The row exists, but does not have the operation.
    UnsupportedOperation,
    /// The value of a parameter has the wrong type.
    Field,
    /// The object does not exist, or a list has no names.
    NotFound,
    /// A concurrent commit conflicts with this one, or the leader changed before it: the request runs again.
    Conflict,
}

/// An error of a request.
///
/// `public` names parameters, never their values; details of a lower layer, converted by `?`, are in `cause`, which
/// only the server's log prints.
pub struct Error {
    kind: ErrorKind,
    status: Status,
    public: Cow<'static, str>,
    warnings: Vec<String>,
    /// The text for the log in place of `public`.
    logged: Option<Box<str>>,
    cause: Option<BoxError>,
    reason: Option<&'static str>,
}

impl Error {
    /// Creates an error with this status and text.
    pub fn new(status: Status, public: impl Into<Cow<'static, str>>) -> Self {
        Error {
            kind: ErrorKind::Other,
            status,
            public: public.into(),
            warnings: Vec::new(),
            logged: None,
            cause: None,
            reason: None,
        }
    }

    fn of(kind: ErrorKind, status: Status, public: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, ..Self::new(status, public) }
    }

    /// 400: the request is invalid; `public` says which parameter and why.
    pub fn invalid(public: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::BAD_REQUEST, public)
    }

    /// 403: the same text for every reason, so that it reveals nothing.
    pub fn denied() -> Self {
        Self::new(Status::FORBIDDEN, "permission denied")
    }

    /// 503: the server is sealed.
    pub fn sealed() -> Self {
        Self::new(Status::UNAVAILABLE, "Vault is sealed")
    }

    /// 404 with an empty list of errors: the object does not exist.
    pub fn not_found() -> Self {
        Self::of(ErrorKind::NotFound, Status::NOT_FOUND, "")
    }

    /// 404: no row of the mount's table matches this path.
    pub fn unsupported_path() -> Self {
        Self::of(ErrorKind::UnsupportedPath, Status::NOT_FOUND, "1 error occurred:\n\t* unsupported path\n\n")
    }

    /// 405: the row exists, but does not have this operation.
    pub fn unsupported_operation() -> Self {
        let text = "1 error occurred:\n\t* unsupported operation\n\n";
        Self::of(ErrorKind::UnsupportedOperation, Status::METHOD_NOT_ALLOWED, text)
    }

    /// 400: the value of the parameter `name` has the wrong type; `why` does not quote it.
    pub fn field(name: &str, why: impl fmt::Display) -> Self {
        Self::of_field(conversion_text(name, why))
    }

    /// Like [`Error::field`], with a text of [`conversion_text`].
    pub(crate) fn of_field(text: String) -> Self {
        Self::of(ErrorKind::Field, Status::BAD_REQUEST, text)
    }

    /// The text for unauthenticated paths, where OpenBao omits the frame "1 error occurred".
    #[must_use]
    pub fn without_frame(self) -> Self {
        match self.kind {
            ErrorKind::UnsupportedPath => Error { public: "unsupported path".into(), ..self },
            ErrorKind::UnsupportedOperation => Error { public: "unsupported operation".into(), ..self },
            _ => self,
        }
    }

    /// The text for a parameter of the wrong type where OpenBao validates parameters after its existence check.
    #[must_use]
    pub fn in_field_validation(self) -> Self {
        match self.kind {
            ErrorKind::Field => Error { public: format!("Field validation failed: {}", self.public).into(), ..self },
            _ => self,
        }
    }

    /// 500: an internal error; the caller learns no detail.
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        Error { cause: Some(cause.into()), ..Self::new(Status::INTERNAL, "internal error") }
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(self, cause: impl Into<BoxError>) -> Self {
        Error { cause: Some(cause.into()), ..self }
    }

    /// Sets another text for the log, where `public` may quote data that must not be logged, such as the message of
    /// another server.
    #[must_use]
    pub fn logged_as(self, text: impl Into<Box<str>>) -> Self {
        Error { logged: Some(text.into()), ..self }
    }

    /// Adds the true reason, for the audit log and the server's log, where the caller must not learn it.
    #[must_use]
    pub fn because(self, reason: &'static str) -> Self {
        Error { reason: Some(reason), ..self }
    }

    /// Adds a warning next to the errors.
    #[must_use]
    pub fn with_warning(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The status code of the response.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The text for the caller; empty for an empty list of errors.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The text for the log.
    pub fn logged(&self) -> &str {
        self.logged.as_deref().unwrap_or(&self.public)
    }

    /// The public text if it is a constant of the program; a formatted text may contain data of the caller.
    pub fn constant(&self) -> Option<&'static str> {
        match &self.public {
            Cow::Borrowed(text) => Some(text),
            Cow::Owned(_) => None,
        }
    }

    /// The warnings next to the errors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The true reason of a refusal, where [`Error::public`] does not contain it.
    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// The cause, only for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// Whether a concurrent commit conflicts with this one: the request runs again.
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("status", &self.status.0)
            .field("public", &self.logged())
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.logged(), self.status.0)
    }
}

impl std::error::Error for Error {}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let mut out = match &error {
            StorageError::TooLarge { .. } => Self::new(Status::TOO_LARGE, "the entry is too large to be stored"),
            StorageError::InvalidKey(_) => Self::invalid("the path cannot be stored"),
            // Requests that were running when the server was sealed.
            StorageError::Closed => Self::sealed(),
            StorageError::NotLeader => Self::new(
                Status::UNAVAILABLE,
                "this node is a standby and does not write; send the request to the leader",
            ),
            StorageError::NoLeader | StorageError::NotCommitted => {
                Self::new(Status::UNAVAILABLE, "the cluster has no leader; send the request again")
            }
            StorageError::InProgress => {
                let text = "another snapshot is being received or restored; send the request again";
                Self::new(Status::UNAVAILABLE, text)
            }
            StorageError::Unknown => Self::new(Status::INTERNAL, "the outcome of the commit is not known"),
            StorageError::Behind(_) => Self::new(Status::UNAVAILABLE, "this node is behind the leader"),
            // Both texts say only that the request failed, and what the operator has to do.
            StorageError::Full => Self::new(Status::INTERNAL, "no space left on the storage device"),
            StorageError::Stopped(_) => {
                Self::new(Status::INTERNAL, "the storage has stopped after a failed write and needs a restart")
            }
            _ => Self::internal("storage"),
        };
        if error.may_run_again() {
            out.kind = ErrorKind::Conflict;
        }
        out.caused_by(error)
    }
}

impl TxError for Error {
    fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        // The text of a JSON error can quote a stored value, so even the log does not get it.
        let place =
            format!("JSON of a stored record or reply: {:?} at {}:{}", error.classify(), error.line(), error.column());
        Self::internal(place)
    }
}

const CONVERSION: &str = "error converting input for field ";

/// The error text for a parameter of the wrong type.
pub(crate) fn conversion_text(name: &str, why: impl fmt::Display) -> String {
    format!("{CONVERSION}\"{name}\": {why}")
}

/// Whether [`conversion_text`] created a text. Serde passes the errors of nested deserializers on as texts, so the
/// deserializer of requests recognizes them here.
pub(crate) fn is_conversion_text(text: &str) -> bool {
    text.starts_with(CONVERSION)
}

/// The body of a failed request: `{"errors":["text"]}` and a line feed, with the warnings if there are any;
/// `{"errors":[]}` where the text is empty.
pub fn error_body(text: &str, warnings: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let text: &[&str] = if text.is_empty() { &[] } else { &[text] };
    out.extend_from_slice(b"{\"errors\":");
    list(&mut out, text);
    if !warnings.is_empty() {
        out.extend_from_slice(b",\"warnings\":");
        list(&mut out, warnings);
    }
    out.extend_from_slice(b"}\n");
    out
}

fn list<T: Serialize>(out: &mut Vec<u8>, texts: &[T]) {
    if serde_json::to_writer(&mut *out, texts).is_err() {
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_refusals_have_no_frame_on_unauthenticated_paths() {
        let text = |error: Error| error.without_frame().public().to_owned();
        assert_eq!(text(Error::unsupported_path()), "unsupported path");
        assert_eq!(text(Error::unsupported_operation()), "unsupported operation");
        assert_eq!(text(Error::denied()), "permission denied");
    }

    #[test]
    fn only_errors_of_fields_have_the_text_of_failed_validation() {
        let text = |error: Error| error.in_field_validation().public().to_owned();
        let expected = "Field validation failed: error converting input for field \"ttl\": x";
        assert_eq!(text(Error::field("ttl", "x")), expected);
        assert_eq!(text(Error::invalid("missing ttl")), "missing ttl");
    }
}
