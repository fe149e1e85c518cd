//! Errors of init and unseal, whose causes the operator gets.

use keepfast_framework::{Error, Status};

/// The same error with its cause in its text. Only the operator who initialises or unseals sees it.
pub(crate) fn explained(what: &str, error: Error) -> Error {
    match error.cause() {
        Some(cause) if error.status() == Status::INTERNAL => {
            let text = format!("{what} failed: {cause}");
            Error::new(Status::INTERNAL, text)
        }
        _ => error,
    }
}
