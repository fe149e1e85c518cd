//! `-autocomplete-install` and `-autocomplete-uninstall`: a line in the start-up files of bash and zsh.
//!
//! The line makes the shell call this program with `COMP_LINE` for each completion, as `complete -C` does.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command_error::{CommandError, Outcome};
use crate::terminal;

/// Adds completion for the program `name` to every existing start-up file in the home directory.
pub(super) fn install(name: &str) -> Outcome {
    let program =
        std::env::current_exe().map_err(|error| CommandError::usage(format!("Cannot find this program: {error}")))?;
    let mut installed = Vec::new();
    for (file, line) in files(&home()?, name, &program) {
        let text = fs::read_to_string(&file).map_err(|error| refused(&file, &error))?;
        if !text.lines().any(|present| present == line) {
            let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            replace(&file, &format!("{text}{separator}{line}\n"))?;
        }
        installed.push(file.display().to_string());
    }
    if installed.is_empty() {
        return Err(CommandError::usage(
            "Completion needs a ~/.bashrc, ~/.bash_profile or ~/.zshrc, and there is none. \"completion bash|zsh|fish\" prints a script.",
        ));
    }
    terminal::success(&format!(
        "Completion for {name} is installed in {}; start a new shell to use it.",
        installed.join(", ")
    ));
    Ok(0)
}

/// Removes the line of [`install`].
pub(super) fn uninstall(name: &str) -> Outcome {
    let program =
        std::env::current_exe().map_err(|error| CommandError::usage(format!("Cannot find this program: {error}")))?;
    for (file, line) in files(&home()?, name, &program) {
        let text = fs::read_to_string(&file).map_err(|error| refused(&file, &error))?;
        if text.lines().any(|present| present == line) {
            let kept: String =
                text.lines().filter(|present| *present != line).map(|present| format!("{present}\n")).collect();
            replace(&file, &kept)?;
        }
    }
    terminal::success(&format!("Completion for {name} is removed."));
    Ok(0)
}

fn home() -> Result<PathBuf, CommandError> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(PathBuf::from).ok_or_else(|| CommandError::usage("Cannot install completion: HOME is not set"))
}

/// The existing start-up files, each with its line.
fn files(home: &Path, name: &str, program: &Path) -> Vec<(PathBuf, String)> {
    let complete = format!("complete -C {} {name}", program.display());
    let zsh = format!("autoload -U +X bashcompinit && bashcompinit; {complete}");
    let bash = [".bashrc", ".bash_profile"].map(|file| (home.join(file), complete.clone()));
    bash.into_iter().chain([(home.join(".zshrc"), zsh)]).filter(|(file, _)| file.is_file()).collect()
}

/// Replaces a start-up file atomically; follows a link to it and keeps its permissions.
fn replace(file: &Path, text: &str) -> Result<(), CommandError> {
    let file = fs::canonicalize(file).map_err(|error| refused(file, &error))?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".keepfast-new");
    let fresh = file.with_file_name(name);
    let written = fs::write(&fresh, text)
        .and_then(|()| fs::set_permissions(&fresh, fs::metadata(&file)?.permissions()))
        .and_then(|()| fs::rename(&fresh, &file));
    written.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        refused(&file, &error)
    })
}

fn refused(file: &Path, error: &std::io::Error) -> CommandError {
    CommandError::usage(format!("Cannot install completion in {}: {error}", file.display()))
}
