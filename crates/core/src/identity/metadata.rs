//! Checks of policies and metadata that clients write.

use std::collections::BTreeMap;

use keepfast_framework::token_params::canonical_policies;
use keepfast_framework::{Error, Result};

use crate::policy::builtin;

/// The maximum number of pairs.
const MOST_PAIRS: usize = 64;
/// The longest key of a pair, in bytes.
const LONGEST_KEY: usize = 128;
/// The longest value of a pair, in bytes.
const LONGEST_VALUE: usize = 512;
/// The maximum number of policies of an entity or a group.
const MOST_POLICIES: usize = 1000;
/// The longest name of a policy of an entity or a group, in bytes.
const LONGEST_POLICY: usize = 512;
/// The longest name of an entity, an alias or a group, in bytes.
const LONGEST_NAME: usize = 4096;

/// The pairs of `metadata` of an entity or a group, within the limits.
///
/// # Errors
/// 400 beyond a limit; `what` is `entity` or `group`.
pub(super) fn checked(what: &str, pairs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let error = |why: String| Err(Error::invalid(format!("invalid {what} metadata: {why}")));
    if pairs.len() > MOST_PAIRS {
        return error(format!("metadata cannot contain more than {MOST_PAIRS} key/value pairs"));
    }
    for (key, value) in &pairs {
        if key.is_empty() {
            return error("failed to load metadata pair: key cannot be blank".to_owned());
        }
        if key.len() > LONGEST_KEY {
            return error(format!("failed to load metadata pair: key is too long (limit: {LONGEST_KEY} characters)"));
        }
        if value.len() > LONGEST_VALUE {
            return error(format!(
                "failed to load metadata pair: value is too long (limit: {LONGEST_VALUE} characters)"
            ));
        }
    }
    Ok(pairs)
}

/// The pairs of `custom_metadata` of an alias, within the limits.
///
/// # Errors
/// 400 beyond a limit, for empty keys and values, and for control characters.
pub(super) fn checked_custom(pairs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let error = |why: String| Err(Error::invalid(format!("custom_metadata validation failed: {why}")));
    if pairs.len() > MOST_PAIRS {
        return error(format!("payload must contain at most {MOST_PAIRS} keys, provided {}", pairs.len()));
    }
    for (key, value) in &pairs {
        if key.is_empty() || key.len() > LONGEST_KEY {
            return error(format!("length of key is {} but must be 0 < len(key) <= {LONGEST_KEY}", key.len()));
        }
        if value.is_empty() || value.len() > LONGEST_VALUE {
            return error(format!("length of value is {} but must be 0 < len(value) <= {LONGEST_VALUE}", value.len()));
        }
        if key.chars().any(char::is_control) {
            return error("a key contains unprintable characters".to_owned());
        }
        if value.chars().any(char::is_control) {
            return error("a value contains unprintable characters".to_owned());
        }
    }
    Ok(pairs)
}

/// Policies in canonical form.
///
/// # Errors
/// 400 when one reads as `root`, which no identity can give, for too many, and for a name that is too long.
pub(super) fn checked_policies(policies: Vec<String>) -> Result<Vec<String>> {
    let policies = canonical_policies(policies);
    if policies.iter().any(|policy| builtin::reads_like_root(policy)) {
        return Err(Error::invalid("policies cannot contain root"));
    }
    if policies.len() > MOST_POLICIES {
        return Err(Error::invalid(format!("an entity or a group has at most {MOST_POLICIES} policies")));
    }
    if policies.iter().any(|policy| policy.len() > LONGEST_POLICY) {
        return Err(Error::invalid(format!("the name of a policy has more than {LONGEST_POLICY} bytes")));
    }
    Ok(policies)
}

/// A name of an entity, an alias or a group, within the limit.
///
/// # Errors
/// 400 for a longer one.
pub(super) fn checked_name(name: &str) -> Result<()> {
    if name.len() > LONGEST_NAME {
        return Err(Error::invalid(format!("'name' has more than {LONGEST_NAME} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize, key: &str, value: &str) -> BTreeMap<String, String> {
        (0..count).map(|n| (format!("{key}{n:02}"), value.to_owned())).collect()
    }

    #[test]
    fn metadata_has_limits_of_pairs_keys_and_values() {
        for good in [pairs(64, "k", "v"), pairs(1, &"k".repeat(126), &"v".repeat(512)), pairs(1, "k", "")] {
            assert_eq!(checked("entity", good.clone()).unwrap(), good);
        }
        let blank = BTreeMap::from([(String::new(), "v".to_owned())]);
        for bad in [pairs(65, "k", "v"), pairs(1, &"k".repeat(127), "v"), pairs(1, "k", &"v".repeat(513)), blank] {
            let error = checked("group", bad).unwrap_err();
            assert_eq!(error.status().0, 400);
            assert!(error.public().starts_with("invalid group metadata: "), "{}", error.public());
        }
    }

    #[test]
    fn custom_metadata_has_neither_empty_nor_unprintable_texts() {
        checked_custom(pairs(64, "k", "v")).unwrap();
        for bad in [pairs(65, "k", "v"), pairs(1, "k", ""), pairs(1, "k\n", "v"), pairs(1, "k", "\u{1}")] {
            assert_eq!(checked_custom(bad).unwrap_err().status().0, 400);
        }
    }

    #[test]
    fn no_spelling_of_root_is_a_policy() {
        for root in ["root", " RooT ", "ROOT", "ｒｏｏｔ", "ro\u{200b}ot"] {
            assert!(checked_policies(vec!["a".to_owned(), root.to_owned()]).is_err(), "{root}");
        }
        let policies = ["b", "A", "a", ""].map(String::from).to_vec();
        assert_eq!(checked_policies(policies).unwrap(), ["a", "b"]);
    }

    #[test]
    fn the_name_of_a_policy_has_a_limit() {
        let longest = "x".repeat(LONGEST_POLICY);
        assert_eq!(checked_policies(vec![longest.clone()]).unwrap(), std::slice::from_ref(&longest));
        assert_eq!(checked_policies(vec![longest + "x"]).unwrap_err().status().0, 400);
    }
}
