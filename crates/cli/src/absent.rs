//! Commands that do not exist here: those of Vault and OpenBao, and misspelled ones.

/// Commands of Vault and OpenBao that Keepfast does not have; a word covers all commands below it.
const OF_OTHERS: &[&str] = &[
    "agent",
    "audit-log",
    "debug",
    "events",
    "hcp",
    "monitor",
    "namespace",
    "operator diagnose",
    "operator import",
    "operator migrate",
    "operator raft",
    "operator step-down",
    "operator usage",
    "pki",
    "plugin deregister",
    "plugin register",
    "plugin reload",
    "plugin reload-status",
    "plugin runtime",
    "plugin init",
    "proxy",
    "ssh",
    "transform",
];

/// Why a command of Vault or OpenBao does not exist; `None` when it is none of theirs.
pub(crate) fn reason(command: &str) -> Option<&'static str> {
    OF_OTHERS.contains(&command).then_some("Vault and OpenBao have it, Keepfast does not")
}

/// The name that a misspelled word probably means.
pub(crate) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distance = |name: &&str| strsim::osa_distance(&word, name);
    let near = names.iter().copied().min_by_key(distance)?;
    (distance(&near) <= 1 + word.chars().count() / 4).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Node;
    use crate::commands::COMMANDS;

    #[test]
    fn only_near_words_are_suggested() {
        let names = ["secrets", "server", "status", "kv"];
        assert_eq!(nearest("secret", &names), Some("secrets"));
        assert_eq!(nearest("Stauts", &names), Some("status"));
        assert_eq!(nearest("vk", &names), Some("kv"));
        assert_eq!(nearest("nonsense", &names), None);
    }

    #[test]
    fn no_command_that_exists_is_called_absent() {
        for node in COMMANDS {
            assert_eq!(reason(node.name()), None);
            if let Node::Group(group) = node {
                for child in group.children {
                    assert_eq!(reason(&format!("{} {}", group.name, child.name())), None);
                }
            }
        }
    }
}
