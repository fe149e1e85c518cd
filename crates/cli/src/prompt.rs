//! Prompts for secrets on the terminal.

use std::io::{self, IsTerminal};

use keepfast_client::SecretString;

use crate::command_error::CommandError;

/// Prompts for a secret without echo. Fails without a terminal, or with `-non-interactive`.
pub(crate) fn hidden(what: &str, non_interactive: bool) -> Result<SecretString, CommandError> {
    if non_interactive || !io::stdin().is_terminal() {
        return Err(CommandError::usage(format!(
            "{what} is needed, and there is no terminal for a prompt. Give it as an argument, or run the\ncommand on a terminal."
        )));
    }
    rpassword::prompt_password(format!("{what} (will be hidden): "))
        .map(|answer| SecretString::new(answer.trim().to_owned()))
        .map_err(|error| CommandError::usage(format!("Cannot prompt for {what}: {error}")))
}
