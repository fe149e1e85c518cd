//! The environment variables of the client and their prefixes.

/// The prefixes of a variable; the first one that is set applies.
pub const PREFIXES: [&str; 3] = ["KEEPFAST", "BAO", "VAULT"];

/// The value of the variable `name` without its prefix (`ADDR`, `TOKEN`), and its full name. An empty
/// variable counts as unset.
pub fn variable(name: &str) -> Option<(String, String)> {
    find(name, |full| std::env::var(full).ok())
}

/// Parses a boolean variable as Vault's clients do: `1`, `t`, `true` in any case.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// [`variable`] over any source of variables.
pub(crate) fn find(name: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    PREFIXES.iter().find_map(|prefix| {
        let full = format!("{prefix}_{name}");
        lookup(&full).filter(|value| !value.is_empty()).map(|value| (full, value))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_keepfast_prefix_is_first_and_empty_is_unset() {
        let source = |full: &str| match full {
            "KEEPFAST_ADDR" => Some(String::new()),
            "BAO_ADDR" => Some("b".to_owned()),
            "VAULT_ADDR" => Some("v".to_owned()),
            _ => None,
        };
        assert_eq!(find("ADDR", source), Some(("BAO_ADDR".to_owned(), "b".to_owned())));
        assert_eq!(find("TOKEN", source), None);
    }
}
