//! What a member announces of its build and its configuration: build metadata of a semantic version, after its version in
//! the list of the members (`1.2.3+format-1.no-sealwrap`). The other members read it there without a request, which an
//! earlier version would not know.
//!
//! Source: <https://semver.org/#spec-item-10>.

/// The newest form of stored data that this build reads.
const FORMAT: u32 = NAMESPACES;
/// The form with values under a wrap key.
pub(crate) const WRAPPED_VALUES: u32 = 1;
/// The form with tokens and leases of namespaces besides root.
pub(crate) const NAMESPACES: u32 = 2;
/// The prefix of the identifier of the form.
const FORMAT_PREFIX: &str = "format-";
/// The identifier of `disable_sealwrap`.
const NO_SEALWRAP: &str = "no-sealwrap";

/// What a node of this version and configuration announces.
pub(crate) fn announced(version: &str, disable_sealwrap: bool) -> String {
    let separator = if version.contains('+') { '.' } else { '+' };
    let setting = if disable_sealwrap { format!(".{NO_SEALWRAP}") } else { String::new() };
    format!("{version}{separator}{FORMAT_PREFIX}{FORMAT}{setting}")
}

fn metadata(announced: &str) -> impl Iterator<Item = &str> {
    announced.split_once('+').into_iter().flat_map(|(_, metadata)| metadata.split('.'))
}

/// The version of a member, as its operator knows it.
pub(crate) fn version_of(announced: &str) -> String {
    let version = announced.split_once('+').map_or(announced, |(version, _)| version);
    let is_own = |part: &str| part.starts_with(FORMAT_PREFIX) || part == NO_SEALWRAP;
    let rest: Vec<&str> = metadata(announced).filter(|part| !is_own(part)).collect();
    if rest.is_empty() { version.to_owned() } else { format!("{version}+{}", rest.join(".")) }
}

/// The newest form of stored data that a member reads; 0 for a version that does not announce it.
pub(crate) fn format_of(announced: &str) -> u32 {
    metadata(announced).find_map(|part| part.strip_prefix(FORMAT_PREFIX)?.parse().ok()).unwrap_or(0)
}

/// Whether the configuration of a member has `disable_sealwrap`; `None` for a version that does not announce it.
pub(crate) fn disables_sealwrap(announced: &str) -> Option<bool> {
    (format_of(announced) > 0).then(|| metadata(announced).any(|part| part == NO_SEALWRAP))
}

/// Whether two members run the same build.
pub(crate) fn is_same_build(one: &str, other: &str) -> bool {
    version_of(one) == version_of(other) && format_of(one) == format_of(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read_again() {
        for (version, disables, expected) in [
            ("1.2.3", false, "1.2.3+format-2"),
            ("1.2.3-rc1", true, "1.2.3-rc1+format-2.no-sealwrap"),
            ("1.2.3+ent.fips", true, "1.2.3+ent.fips.format-2.no-sealwrap"),
        ] {
            let text = announced(version, disables);
            assert_eq!(text, expected);
            assert_eq!((version_of(&text), format_of(&text)), (version.to_owned(), 2));
            assert_eq!(disables_sealwrap(&text), Some(disables));
            assert!(is_same_build(&text, &announced(version, !disables)) && !is_same_build(&text, version));
        }
    }

    #[test]
    fn an_earlier_version_announces_nothing() {
        for text in ["1.2.3", "", "1.2.3+format-x", "1.2.3+ent", "+"] {
            assert_eq!((format_of(text), disables_sealwrap(text)), (0, None), "{text}");
        }
        assert_eq!(version_of("1.2.3+ent"), "1.2.3+ent");
        assert_eq!(format_of("1.2.3+format-7"), 7, "a later one");
    }
}
