//! Asking a person for something that must not be seen.

use std::io::{self, IsTerminal};

use keepfast_client::SecretString;

use crate::halt::Halt;

/// Asks on the terminal, without echo. Refused when nobody sits there, or when asking is not wanted.
pub(crate) fn hidden(what: &str, non_interactive: bool) -> Result<SecretString, Halt> {
    if non_interactive || !io::stdin().is_terminal() {
        return Err(Halt::usage(format!(
            "{what} is needed, and there is no terminal to ask for it on. Give it as an argument, or run the\ncommand where it can ask."
        )));
    }
    rpassword::prompt_password(format!("{what} (will be hidden): "))
        .map(|answer| SecretString::new(answer.trim().to_owned()))
        .map_err(|error| Halt::usage(format!("Cannot ask for {what}: {error}")))
}
