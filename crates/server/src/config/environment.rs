//! Environment variables: one setting under up to three names.

use std::collections::BTreeMap;

/// The process's environment, or a made-up one in tests.
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process that any rule of ours could look at.
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

    /// The variable `KEEPFAST_name`, or `BAO_name`, or `VAULT_name`; an empty one counts as unset.
    pub fn setting(&self, name: &str) -> Option<&str> {
        ["KEEPFAST_", "BAO_", "VAULT_"].iter().find_map(|prefix| self.variable(&format!("{prefix}{name}")))
    }

    /// A variable by its whole name; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}
