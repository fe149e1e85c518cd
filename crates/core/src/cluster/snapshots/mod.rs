//! Snapshots: the file ([`format`]), writing and reading it, automatic ones, and what is in one.

mod archive;
pub(crate) mod compare;
mod contents;
pub(crate) mod directory;
mod file_records;
mod format;
pub(crate) mod history;
pub(crate) mod open;
mod read;
pub(crate) mod scheduled;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod write;

pub use self::contents::{ContainedMount, SealedContents, UnsealedContents};
pub(crate) use self::format::SNAPSHOTS;
pub use self::format::{SnapshotDetails, SnapshotFileError};
pub(crate) use self::read::FileParts;
pub use self::read::VerifiedSnapshot;
pub(crate) use self::write::write;
