//! `plugin …`: what the server has built in.

mod info;
mod list;

use crate::args::Node;
use crate::halt::Halt;

pub(super) const COMMANDS: &[Node] = &[Node::Leaf(&info::COMMAND), Node::Leaf(&list::COMMAND)];

/// The kinds of plugins.
const TYPES: [&str; 3] = ["auth", "database", "secret"];

/// That a kind of plugins is one.
fn check_type(kind: &str) -> Result<(), Halt> {
    if TYPES.contains(&kind) {
        return Ok(());
    }
    Err(Halt::failed(format!("{kind:?} is not a supported plugin type")))
}
