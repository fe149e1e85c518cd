//! Environment variables: one setting with up to three names.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The environment of the process, or the variables of a test.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Whether the other variables of the process are read, too, when a seal names them.
    is_process: bool,
}

impl Environment {
    /// The variables of this process that Keepfast may use.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| ["KEEPFAST_", "BAO_", "VAULT_", "HOME"].iter().any(|p| name.starts_with(p)))
            .collect();
        Environment { variables, is_process: true }
    }

    /// An environment of these variables only.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Environment { variables, is_process: false }
    }

    /// The variable `KEEPFAST_name`, else `BAO_name`, else `VAULT_name`; an empty one counts as unset.
    pub fn setting(&self, name: &str) -> Option<&str> {
        ["KEEPFAST_", "BAO_", "VAULT_"].iter().find_map(|prefix| self.variable(&format!("{prefix}{name}")))
    }

    /// The variable of this full name; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// Seals read the variables of their cloud, of proxies, and those that `env://NAME` names.
impl keepfast_seals::Environment for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        let known = Environment::variable(self, name).map(str::to_owned);
        known
            .or_else(|| if self.is_process { std::env::var(name).ok() } else { None })
            .filter(|value| !value.is_empty())
    }

    fn kept(&self) -> Arc<dyn keepfast_seals::Environment> {
        Arc::new(self.clone())
    }
}
