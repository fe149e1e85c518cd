//! `completion`: prints a shell completion script.

use crate::args::Command;
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::session::own_name;
use crate::{completion, terminal};

pub(crate) const COMMAND: Command = Command {
    name: "completion",
    usage: "bash|zsh|fish",
    about: "Print a completion script for a shell.",
    details: "
Load it into the running shell:

    source <(keepfast completion bash)
",
    min: 1,
    max: Some(1),
    flags: &[],
    run,
};

fn run(cx: &Cx) -> Outcome {
    terminal::print(&completion::script(cx.argument(0), &own_name(), super::COMMANDS)?);
    Ok(0)
}
