//! The steps of scenarios that one node and a cluster behind a load balancer have different responses to
//! (`balanced.txt`).

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::run::title;
use crate::scenario::Loaded;

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// The name of the scenario.
    scenario: String,
    /// The title of the step.
    step: String,
    /// Whether only some nodes have another response, so that a run may meet none of them.
    sometimes: bool,
}

/// The list, and the entries that a run needed.
#[derive(Debug, Default)]
pub struct OneNodeOnly {
    entries: Vec<Entry>,
    needed: RefCell<BTreeSet<usize>>,
}

impl OneNodeOnly {
    /// Reads a list: a scenario, with a question mark if the response depends on the node, the title of a step, and the
    /// reason, with ` | ` between them.
    ///
    /// # Errors
    /// For a line of another form.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let entry = |line: &str| match line.split(" | ").map(str::trim).collect::<Vec<_>>()[..] {
            [scenario, step, reason] if reason.len() > 8 => Ok(Entry {
                scenario: scenario.trim_end_matches('?').to_owned(),
                step: step.to_owned(),
                sometimes: scenario.ends_with('?'),
            }),
            _ => bail!("balanced.txt: a line is a scenario, a step and a reason, with \" | \" between them: {line}"),
        };
        Ok(Self { entries: lines.map(entry).collect::<Result<_>>()?, needed: RefCell::default() })
    }

    /// Whether a step of a scenario may have another response; notes that the entry is needed.
    pub(crate) fn may_differ(&self, scenario: &str, step: &str) -> bool {
        let found = self.entries.iter().position(|entry| entry.scenario == scenario && entry.step == step);
        self.needed.borrow_mut().extend(found);
        found.is_some()
    }

    /// The entries without a step.
    pub fn unknown(&self, scenarios: &[Loaded]) -> Vec<String> {
        let exists = |entry: &&Entry| {
            let mut named = scenarios.iter().filter(|loaded| loaded.name == entry.scenario);
            named.any(|loaded| loaded.scenario.steps.iter().any(|step| title(step) == entry.step))
        };
        let unknown = self.entries.iter().filter(|entry| !exists(entry));
        unknown.map(|entry| format!("balanced.txt: {} has no step {}", entry.scenario, entry.step)).collect()
    }

    /// The entries whose steps had the response of one node, after a run of all scenarios.
    pub fn stale(&self) -> Vec<String> {
        let needed = self.needed.borrow();
        let stale = self.entries.iter().enumerate().filter(|(at, entry)| !entry.sometimes && !needed.contains(at));
        stale.map(|(_, e)| format!("balanced.txt: {}: {} has the response of one node", e.scenario, e.step)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_is_for_one_step_has_a_reason_and_is_needed() {
        let text = "# why\na/b | GET x | of each node\nc? | GET {{kv}}/ | of each node\n";
        let list = OneNodeOnly::parse(text).unwrap();
        assert!(!list.may_differ("a/b", "GET x/y") && !list.may_differ("a", "GET x"));
        assert_eq!(list.stale(), ["balanced.txt: a/b: GET x has the response of one node"]);
        assert!(list.may_differ("a/b", "GET x"));
        assert_eq!(list.stale(), Vec::<String>::new());
        assert_eq!(list.unknown(&[]).len(), 2);
        assert!(OneNodeOnly::parse("a/b | GET x").is_err());
    }
}
