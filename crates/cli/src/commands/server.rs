//! `server`: runs the server.

use std::path::PathBuf;
use std::process::ExitCode;

use keepfast_client::SecretString;
use keepfast_server::{DevArgs, DevKv, ServerArgs};

use crate::args::{Command, Flag, FlagSet, Kind, Words};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;

pub(crate) const COMMAND: Command = Command {
    name: "server",
    usage: "",
    about: "Start a server, from configuration files or for development.",
    details: "
A server starts sealed; \"operator init\" and \"operator unseal\" come next. In
development mode it keeps everything in memory and is unsealed.

    keepfast server -config=/etc/keepfast/config.hcl
    keepfast server -dev -dev-root-token-id=root
",
    min: 0,
    max: Some(0),
    flags: &[FlagSet { title: "Command", flags: FLAGS }, FlagSet { title: "Development", flags: DEVELOPMENT }],
    run,
};

const FLAGS: &[Flag] = &[
    Flag::new(
        "config",
        Kind::List,
        "A file, or a directory of .hcl and .json files; may be repeated, later ones take precedence.",
    ),
    Flag::new("exit-on-core-shutdown", Kind::Bool, "Accepted for compatibility; this server never stops by itself."),
    Flag::new("log-file", Kind::Text, "Also write the log to this file."),
    Flag::new("log-format", Kind::Text, "standard or json. Variable: VAULT_LOG_FORMAT."),
    Flag::new("log-level", Kind::Text, "trace, debug, info, warn or error. Variable: VAULT_LOG_LEVEL."),
    Flag::new("log-rotate-bytes", Kind::Int, "Rotate the log file after this many bytes. Default: no limit."),
    Flag::new("log-rotate-duration", Kind::Duration, "Rotate the log file after this time. Default: 24h."),
    Flag::new(
        "log-rotate-max-files",
        Kind::Int,
        "Number of older log files to keep: 0 keeps all, -1 none. Default: 0.",
    ),
    Flag::aliased(
        "verify-only",
        "test-verify-only",
        Kind::Bool,
        "Check the configuration and its environment without starting the server.",
    ),
];

const DEVELOPMENT: &[Flag] = &[
    Flag::new(
        "dev",
        Kind::Bool,
        "Development mode: in memory, unsealed, with a KV engine at secret/. Not for production.",
    ),
    Flag::new(
        "dev-json",
        Kind::Bool,
        "Print one line of JSON with address, unseal_key and root_token when the server is ready, instead of the banner.",
    ),
    Flag::new("dev-kv-v1", Kind::Bool, "Mount a KV engine of version 1 at secret/."),
    Flag::new(
        "dev-listen-address",
        Kind::Text,
        "The listener address; port 0 selects a free port. Default: 127.0.0.1:8200. Variable: VAULT_DEV_LISTEN_ADDRESS.",
    ),
    Flag::new("dev-no-kv", Kind::Bool, "Mount nothing at secret/."),
    Flag::new("dev-no-store-token", Kind::Bool, "Do not store the root token in ~/.vault-token."),
    Flag::new(
        "dev-root-token-id",
        Kind::Text,
        "The root token, instead of a random one. Variable: VAULT_DEV_ROOT_TOKEN_ID.",
    ),
    Flag::new("dev-tls", Kind::Bool, "Development mode with TLS and a generated certificate."),
    Flag::new(
        "dev-tls-cert-dir",
        Kind::Text,
        "The directory of the certificate files. Default: a temporary directory.",
    ),
    Flag::new("dev-tls-san", Kind::List, "An additional name or address in the certificate; may be repeated."),
];

fn run(cx: &Cx) -> Outcome {
    match keepfast_server::run(server_args(&cx.words)) {
        Ok(code) => Ok(u8::from(code != ExitCode::SUCCESS)),
        Err(error) => Err(CommandError::usage(format!("Error starting the server: {error}"))),
    }
}

fn server_args(words: &Words) -> ServerArgs {
    ServerArgs {
        config: words.list("config").into_iter().map(PathBuf::from).collect(),
        log_level: words.text("log-level").map(str::to_owned),
        log_format: words.text("log-format").map(str::to_owned),
        log_file: words.text("log-file").map(PathBuf::from),
        log_rotate_bytes: words.int("log-rotate-bytes").and_then(|bytes| u64::try_from(bytes).ok()),
        log_rotate_duration: words.duration("log-rotate-duration"),
        log_rotate_max_files: words.int("log-rotate-max-files"),
        exit_on_core_shutdown: words.on("exit-on-core-shutdown"),
        verify_only: words.on("verify-only"),
        dev: dev_args(words),
    }
}

/// Development mode; the other -dev flags do not enable it.
fn dev_args(words: &Words) -> Option<DevArgs> {
    let wanted = words.on("dev") || words.on("dev-tls");
    wanted.then(|| DevArgs {
        root_token: words.text("dev-root-token-id").map(|token| SecretString::new(token.to_owned())),
        listen_address: words.text("dev-listen-address").map(str::to_owned),
        json: words.on("dev-json"),
        no_store_token: words.on("dev-no-store-token"),
        kv: match () {
            () if words.on("dev-no-kv") => DevKv::None,
            () if words.on("dev-kv-v1") => DevKv::V1,
            () => DevKv::V2,
        },
        tls: words.on("dev-tls"),
        tls_cert_dir: words.text("dev-tls-cert-dir").map(PathBuf::from),
        tls_sans: words.list("dev-tls-san").into_iter().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn parse(line: &str) -> ServerArgs {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        server_args(&Words::parse(&COMMAND, &words).unwrap())
    }

    #[test]
    fn parses_the_flags_of_test_harnesses() {
        let args = parse("-dev -dev-root-token-id=test-token -dev-listen-address 127.0.0.1:8299 -dev-no-store-token");
        let dev = args.dev.unwrap();
        assert_eq!(dev.root_token.unwrap().expose(), "test-token");
        assert_eq!((dev.listen_address.as_deref(), dev.no_store_token, dev.tls), (Some("127.0.0.1:8299"), true, false));
        let args = parse("-config=a.hcl -config b -log-level=debug");
        assert_eq!(args.config, [PathBuf::from("a.hcl"), PathBuf::from("b")]);
        assert!(args.dev.is_none() && args.log_level.as_deref() == Some("debug"));
        assert!(parse("-dev-tls").dev.unwrap().tls);
        let kv = |line| parse(line).dev.unwrap().kv;
        assert_eq!((kv("-dev"), kv("-dev -dev-kv-v1"), kv("-dev -dev-no-kv")), (DevKv::V2, DevKv::V1, DevKv::None));
        assert!(parse("-dev=false").dev.is_none() && parse("-config=a -dev-root-token-id=x").dev.is_none());
    }
}
