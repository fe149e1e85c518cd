//! Flags that many commands share.

use crate::args::{Flag, FlagSet, Kind};

/// The connection flags of every command that calls a server.
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
            "Address of an agent to use instead of the server. Variable: VAULT_AGENT_ADDR.",
        ),
        Flag::new(
            "ca-cert",
            Kind::Text,
            "PEM file with the CA certificates that verify the server. Variable: VAULT_CACERT.",
        ),
        Flag::new(
            "ca-path",
            Kind::Text,
            "Directory with such files; -ca-cert takes precedence. Variable: VAULT_CAPATH.",
        ),
        Flag::new(
            "client-cert",
            Kind::Text,
            "PEM file with the client certificate; needs -client-key. Variable: VAULT_CLIENT_CERT.",
        ),
        Flag::new(
            "client-key",
            Kind::Text,
            "PEM file with the private key of -client-cert. Variable: VAULT_CLIENT_KEY.",
        ),
        Flag::new(
            "disable-redirects",
            Kind::Bool,
            "Do not follow the redirect of a standby to its leader. Variable: VAULT_DISABLE_REDIRECTS.",
        ),
        Flag::new(
            "header",
            Kind::Pairs,
            "Additional header of the request; may be repeated. X-Vault- headers are refused.",
        ),
        Flag::new("mfa", Kind::List, "MFA credential, as METHOD:CODE; may be repeated. Variable: VAULT_MFA."),
        Flag::aliased("namespace", "ns", Kind::Text, "Namespace to work in. Variable: VAULT_NAMESPACE."),
        Flag::new("non-interactive", Kind::Bool, "Do not prompt on the terminal."),
        Flag::new(
            "output-curl-string",
            Kind::Bool,
            "Print the equivalent curl command instead of sending the request.",
        ),
        Flag::new("output-policy", Kind::Bool, "Print the policy that the request needs instead of sending it."),
        Flag::new(
            "policy-override",
            Kind::Bool,
            "Override soft-mandatory Sentinel policies, on servers that have them.",
        ),
        Flag::new(
            "tls-server-name",
            Kind::Text,
            "Expected name in the server's certificate. Variable: VAULT_TLS_SERVER_NAME.",
        ),
        Flag::new(
            "tls-skip-verify",
            Kind::Bool,
            "Do not verify the server's certificate. Not for production. Variable: VAULT_SKIP_VERIFY.",
        ),
        Flag::new(
            "wrap-ttl",
            Kind::Duration,
            "Wrap the response in a single-use token with this TTL. Variable: VAULT_WRAP_TTL.",
        ),
    ],
};

/// The output format.
pub(crate) const FORMAT: FlagSet = FlagSet { title: "Output", flags: &[FORMAT_FLAG] };

/// The output format, or one field of the response.
pub(crate) const OUTPUT: FlagSet = FlagSet {
    title: "Output",
    flags: &[Flag::new("field", Kind::Text, "Print only the value of this field, without a newline."), FORMAT_FLAG],
};

const FORMAT_FLAG: Flag = Flag::new(
    "format",
    Kind::Text,
    "One of table, json, yaml; \"read\" also has raw. Variable: VAULT_FORMAT. Default: table.",
);

/// The mount path of a KV engine.
pub(crate) const MOUNT: Flag = Flag::new(
    "mount",
    Kind::Text,
    "Mount path of the KV engine; the argument is then only the key. Without it, the argument begins with that path.",
);
