//! `server`: runs a server until it is told to end.

use keepfast_client::SecretString;
use keepfast_server::{DevArgs, ServerArgs};

use crate::args::{Command, Flag, FlagSet, Kind, Words};
use crate::cx::Cx;
use crate::halt::{Halt, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "server",
    usage: "",
    about: "Run a server.",
    details: "
With a configuration file or a directory of them:

    keepfast server -config=/etc/keepfast/keepfast.hcl

For development: in memory, unsealed, with a KV engine at secret/:

    keepfast server -dev
",
    min: 0,
    max: Some(0),
    flags: &[
        FlagSet {
            title: "Command",
            flags: &[
                Flag::new("config", Kind::List, "Configuration file (HCL or JSON) or directory of them; may be repeated."),
                Flag::new("exit-on-core-shutdown", Kind::Bool, "Taken for compatibility."),
                Flag::new("log-file", Kind::Text, "Log to this file too."),
                Flag::new("log-format", Kind::Text, "standard or json. Variable: VAULT_LOG_FORMAT. Default: standard."),
                Flag::new("log-level", Kind::Text, "trace, debug, info, warn or error. Variable: VAULT_LOG_LEVEL. Default: info."),
                Flag::aliased("test-verify-only", "verify-only", Kind::Bool, "Check the configuration, open nothing, and end."),
            ],
        },
        FlagSet {
            title: "Development",
            flags: &[
                Flag::new("dev", Kind::Bool, "Run in memory, initialized and unsealed. Everything is lost at the end."),
                Flag::new("dev-listen-address", Kind::Text, "Address to listen on. Variable: VAULT_DEV_LISTEN_ADDRESS. Default: 127.0.0.1:8200."),
                Flag::new("dev-no-kv", Kind::Bool, "Mount nothing at secret/."),
                Flag::new("dev-no-store-token", Kind::Bool, "Leave the token file alone."),
                Flag::new("dev-root-token-id", Kind::Text, "Text of the root token. Variable: VAULT_DEV_ROOT_TOKEN_ID."),
                Flag::new("dev-tls", Kind::Bool, "Make a certificate and serve HTTPS."),
                Flag::new("dev-tls-cert-dir", Kind::Text, "Directory for the certificates of -dev-tls."),
                Flag::new("dev-tls-san", Kind::List, "A further name or address in the certificate; may be repeated."),
            ],
        },
    ],
    run,
};

/// Flags of which any means a development server.
const DEV_FLAGS: &[&str] = &["dev", "dev-tls"];

fn run(cx: &Cx) -> Outcome {
    let words = &cx.words;
    let text = |name: &str| words.text(name).map(str::to_owned);
    let args = ServerArgs {
        config: words.list("config").into_iter().map(Into::into).collect(),
        log_level: text("log-level"),
        log_format: text("log-format"),
        log_file: text("log-file").map(Into::into),
        exit_on_core_shutdown: words.on("exit-on-core-shutdown"),
        verify_only: words.on("test-verify-only"),
        dev: development(words),
    };
    // The exit code is the process's own: the server has said what went wrong, or ended as it was told.
    keepfast_server::run(args).map(|_| 0).map_err(|error| Halt::failed(error.to_string()))
}

fn development(words: &Words) -> Option<DevArgs> {
    if !DEV_FLAGS.iter().any(|flag| words.on(flag)) {
        return None;
    }
    Some(DevArgs {
        root_token: words.text("dev-root-token-id").map(|token| SecretString::new(token.to_owned())),
        listen_address: words.text("dev-listen-address").map(str::to_owned),
        no_store_token: words.on("dev-no-store-token"),
        no_kv: words.on("dev-no-kv"),
        tls: words.on("dev-tls"),
        tls_cert_dir: words.text("dev-tls-cert-dir").map(Into::into),
        tls_sans: words.list("dev-tls-san").into_iter().map(str::to_owned).collect(),
    })
}
