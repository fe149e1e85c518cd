//! Errors and warnings of the configuration.

use std::fmt;

use keepfast_hcl::Position;

/// An invalid configuration. The text contains keys and positions, and values only where they are no secrets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A file or directory that cannot be read.
    #[error("error loading configuration from {file}: {reason}")]
    Unreadable {
        /// The path as given.
        file: String,
        /// The reason of the system.
        reason: String,
    },
    /// An error at a position in a file.
    #[error("error loading configuration from {file}: At {position}: {message}")]
    At {
        /// The path of the file.
        file: String,
        /// Line and column.
        position: Position,
        /// The reason.
        message: String,
    },
    /// An error of the whole configuration, or of an environment variable.
    #[error("{0}")]
    Whole(String),
}

/// A key that the server ignores or reads differently than the operator may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The path of the file.
    pub file: String,
    /// Line and column.
    pub position: Position,
    /// The text.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.message, self.file, self.position)
    }
}
