//! The environment variables a client honours, under each of their names.

/// The prefixes a variable may have, the first that is set winning.
pub const PREFIXES: [&str; 3] = ["KEEPFAST", "BAO", "VAULT"];

/// The value of the variable called `name` without its prefix (`ADDR`, `TOKEN`), and the full name it was
/// found under. A variable that is set but empty counts as unset.
pub fn variable(name: &str) -> Option<(String, String)> {
    find(name, |full| std::env::var(full).ok())
}

/// Reads the truth of a variable as Vault's clients do: `1`, `t`, `true` in any case.
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
    fn our_own_prefix_wins_and_empty_is_unset() {
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
