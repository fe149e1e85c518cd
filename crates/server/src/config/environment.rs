//! Environment variables: one setting with up to three names.

use std::collections::BTreeMap;

/// The environment of the process, or the variables of a test.
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process that Keepfast may use.
    pub fn of_process() -> Self {
        Environment(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| ["KEEPFAST_", "BAO_", "VAULT_", "HOME"].iter().any(|p| name.starts_with(p)))
                .collect(),
        )
    }

    /// An environment of these variables only.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Environment(variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
    }

    /// The variable `KEEPFAST_name`, else `BAO_name`, else `VAULT_name`; an empty one counts as unset.
    pub fn setting(&self, name: &str) -> Option<&str> {
        ["KEEPFAST_", "BAO_", "VAULT_"].iter().find_map(|prefix| self.variable(&format!("{prefix}{name}")))
    }

    /// The variable of this full name; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}
