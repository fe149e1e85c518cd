//! The list of accepted survivors: mutants that no test can or need catch, each with the reason.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The list.
pub(crate) struct Accepted {
    reasons: BTreeMap<String, String>,
}

impl Accepted {
    /// Reads the list: lines `identity -- reason`; empty lines and lines after `//` count nothing.
    ///
    /// Fails when a line has no reason, or is there twice.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reasons = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("//")) {
            let (identity, reason) = match line.split_once(" -- ") {
                Some((identity, reason)) if reason.len() > 10 => (identity, reason),
                _ => bail!("no reason: {line}"),
            };
            if reasons.insert(identity.to_owned(), reason.to_owned()).is_some() {
                bail!("twice: {identity}");
            }
        }
        Ok(Accepted { reasons })
    }

    /// Whether a mutant may survive.
    pub(crate) fn has(&self, identity: &str) -> bool {
        self.reasons.contains_key(identity)
    }

    /// The mutants of the list.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &String> {
        self.reasons.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_survivor_has_a_reason() {
        let list = Accepted::parse("// Why.\n\na.rs: replace f -> bool with true -- f returns true\n").unwrap();
        assert!(list.has("a.rs: replace f -> bool with true") && !list.has("a.rs: replace f -> bool with false"));
        assert!(Accepted::parse("a.rs: replace f -> bool with true").is_err());
        assert!(Accepted::parse("a -- because of it\na -- because of that\n").is_err());
    }
}
