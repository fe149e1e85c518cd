//! `plugin …`: commands for built-in plugins.

mod info;
mod list;

use crate::args::Node;
use crate::command_error::CommandError;

pub(super) const COMMANDS: &[Node] = &[Node::Leaf(&info::COMMAND), Node::Leaf(&list::COMMAND)];

/// The types of plugins.
const TYPES: [&str; 3] = ["auth", "database", "secret"];

/// Fails when `kind` is not a type of plugins.
fn check_type(kind: &str) -> Result<(), CommandError> {
    if TYPES.contains(&kind) {
        return Ok(());
    }
    Err(CommandError::failed(format!("{kind:?} is not a supported plugin type")))
}
