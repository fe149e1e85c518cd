//! Commands of Vault and OpenBao that do not exist here.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Node;
    use crate::commands::COMMANDS;

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
