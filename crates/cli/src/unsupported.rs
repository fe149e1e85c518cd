//! Commands of Vault and OpenBao that Keepfast does not have.

/// The unsupported commands; an entry covers all commands below it.
const OF_OTHERS: &[&str] = &[
    "agent",
    "audit-log",
    "debug",
    "events",
    "hcp",
    "monitor",
    "namespace delete-sealed",
    "namespace seal",
    "namespace seal-status",
    "namespace unseal",
    "operator import",
    "operator migrate",
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

/// The message for an unsupported command; `None` when neither Vault nor OpenBao has the command.
pub(crate) fn reason(command: &str) -> Option<&'static str> {
    OF_OTHERS.contains(&command).then_some("Vault or OpenBao has it, Keepfast does not")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Node;
    use crate::commands::COMMANDS;

    #[test]
    fn no_existing_command_is_listed_as_unsupported() {
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
