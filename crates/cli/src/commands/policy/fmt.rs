//! `policy fmt`: formats a policy file.

use std::path::Path;

use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "fmt",
    usage: "PATH",
    about: "Format a policy file. The file is overwritten.",
    details: "
    keepfast policy fmt app.hcl
",
    min: 1,
    max: Some(1),
    flags: &[],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let path = cx.argument(0);
    let text = std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("Error reading source file: {}", data::opening(path, &error))))?;
    let formatted =
        keepfast_hcl::format(&text).map_err(|error| CommandError::usage(format!("failed to parse policy: {error}")))?;
    replace(Path::new(path), &formatted)
        .map_err(|error| CommandError::usage(format!("Error writing result: {}", data::opening(path, &error))))?;
    terminal::success(&format!("Success! Formatted policy: {path}"));
    Ok(0)
}

/// Replaces the text of a file atomically and keeps its permissions.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let mut fresh = path.clone().into_os_string();
    fresh.push(format!(".new.{}", std::process::id()));
    let written = std::fs::write(&fresh, text)
        .and_then(|()| std::fs::set_permissions(&fresh, std::fs::metadata(&path)?.permissions()))
        .and_then(|()| std::fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}
