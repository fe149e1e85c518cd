//! Why a configuration was refused, and what it only warns of.

use std::fmt;

use keepfast_hcl::Position;

/// A configuration that cannot be used. It names keys and places; values only where they are no secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A file or directory that cannot be read.
    #[error("error loading configuration from {file}: {reason}")]
    Unreadable {
        /// The path as given.
        file: String,
        /// The system's reason.
        reason: String,
    },
    /// A fault at a place in a file.
    #[error("error loading configuration from {file}: At {position}: {message}")]
    At {
        /// The path of the file.
        file: String,
        /// Line and column.
        position: Position,
        /// What is wrong.
        message: String,
    },
    /// A fault of the configuration as a whole, or of an environment variable.
    #[error("{0}")]
    Whole(String),
}

/// Something that the server ignores or reads differently than its author may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The path of the file.
    pub file: String,
    /// Line and column.
    pub position: Position,
    /// What is to be known.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.message, self.file, self.position)
    }
}
