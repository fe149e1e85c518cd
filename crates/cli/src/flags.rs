//! The flags that many commands share.

use crate::args::{Flag, FlagSet, Kind};

/// How to reach the server; every command that talks to one has these.
pub(crate) const HTTP: FlagSet = FlagSet {
    title: "Connection",
    flags: &[
        Flag::new(
            "address",
            Kind::Text,
            "Address of the server. Variable: VAULT_ADDR. Default: https://127.0.0.1:8200.",
        ),
        Flag::new(
            "agent-address",
            Kind::Text,
            "Address of an agent to go through instead. Variable: VAULT_AGENT_ADDR.",
        ),
        Flag::new(
            "ca-cert",
            Kind::Text,
            "PEM file of the authorities that may vouch for the server. Variable: VAULT_CACERT.",
        ),
        Flag::new("ca-path", Kind::Text, "Directory of such files; -ca-cert goes before it. Variable: VAULT_CAPATH."),
        Flag::new(
            "client-cert",
            Kind::Text,
            "PEM certificate to show the server; needs -client-key. Variable: VAULT_CLIENT_CERT.",
        ),
        Flag::new("client-key", Kind::Text, "PEM key of -client-cert. Variable: VAULT_CLIENT_KEY."),
        Flag::new(
            "disable-redirects",
            Kind::Bool,
            "Do not follow a standby's pointer to its leader. Variable: VAULT_DISABLE_REDIRECTS.",
        ),
        Flag::new(
            "header",
            Kind::Pairs,
            "A further header for the request; may be repeated. X-Vault- headers are refused.",
        ),
        Flag::new("mfa", Kind::List, "A second factor, as METHOD:CODE; may be repeated. Variable: VAULT_MFA."),
        Flag::aliased("namespace", "ns", Kind::Text, "Namespace to work in. Variable: VAULT_NAMESPACE."),
        Flag::new("non-interactive", Kind::Bool, "Never ask for anything on the terminal."),
        Flag::new(
            "output-curl-string",
            Kind::Bool,
            "Print the equivalent curl command instead of sending the request.",
        ),
        Flag::new("output-policy", Kind::Bool, "Print the policy that the request needs instead of sending it."),
        Flag::new(
            "policy-override",
            Kind::Bool,
            "Ask servers that have Sentinel to pass over a soft-mandatory policy.",
        ),
        Flag::new(
            "tls-server-name",
            Kind::Text,
            "Name to expect in the server's certificate. Variable: VAULT_TLS_SERVER_NAME.",
        ),
        Flag::new(
            "tls-skip-verify",
            Kind::Bool,
            "Trust any certificate. Not for production. Variable: VAULT_SKIP_VERIFY.",
        ),
        Flag::new(
            "wrap-ttl",
            Kind::Duration,
            "Have the answer wrapped in a single-use token for so long. Variable: VAULT_WRAP_TTL.",
        ),
    ],
};

/// How to show the answer.
pub(crate) const FORMAT: FlagSet = FlagSet { title: "Output", flags: &[FORMAT_FLAG] };

/// How to show the answer, or one field of it.
pub(crate) const OUTPUT: FlagSet = FlagSet {
    title: "Output",
    flags: &[Flag::new("field", Kind::Text, "Print the value of this field alone, without a newline."), FORMAT_FLAG],
};

const FORMAT_FLAG: Flag = Flag::new(
    "format",
    Kind::Text,
    "One of table, json, yaml; \"read\" also has raw. Variable: VAULT_FORMAT. Default: table.",
);

/// Where a KV engine is mounted.
pub(crate) const MOUNT: Flag = Flag::new(
    "mount",
    Kind::Text,
    "Path of the KV engine; the argument is then the key alone. Without it the argument begins with that path.",
);
