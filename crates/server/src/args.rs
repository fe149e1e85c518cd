//! The arguments of `keepfast server`.

use std::path::PathBuf;

use keepfast_core::DevMount;
use keepfast_crypto::secret::SecretString;
use keepfast_engines::secrets::kv;
use keepfast_framework::Engine;

/// The flags of `keepfast server`. A flag that is not set is empty, `None` or `false`. [`crate::run`] reads environment
/// variables, so the command line passes flags only.
#[derive(Default)]
pub struct ServerArgs {
    /// `-config`: files or directories, in order. Later ones take precedence.
    pub config: Vec<PathBuf>,
    /// `-log-level`: `trace`, `debug`, `info`, `warn` or `error`; takes precedence over environment and configuration.
    pub log_level: Option<String>,
    /// `-log-format`: `standard` or `json`; takes precedence over environment and configuration.
    pub log_format: Option<String>,
    /// `-log-file`: an additional file for the log.
    pub log_file: Option<PathBuf>,
    /// `-log-rotate-bytes`, in bytes; takes precedence over the configuration.
    pub log_rotate_bytes: Option<u64>,
    /// `-log-rotate-duration`; takes precedence over the configuration.
    pub log_rotate_duration: Option<std::time::Duration>,
    /// `-log-rotate-max-files`: 0 keeps all older files, a negative number none; takes precedence over the
    /// configuration.
    pub log_rotate_max_files: Option<i64>,
    /// `-exit-on-core-shutdown`: end the process when the kernel stops by itself. It never does (sealing is no stop),
    /// so the flag has no effect and exists for compatibility.
    pub exit_on_core_shutdown: bool,
    /// `-test-verify-only` or `-verify-only`: check the configuration and the resources of a start, then exit.
    pub verify_only: bool,
    /// `-dev` and its flags; `None` for a production server.
    pub dev: Option<DevArgs>,
}

/// The engine at `secret/` of a development server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DevKv {
    /// Nothing.
    None,
    /// A KV engine without versions.
    V1,
    /// A KV engine with versions.
    #[default]
    V2,
}

impl DevKv {
    /// The mount of the engine.
    pub(crate) fn mount(self) -> Option<DevMount> {
        match self {
            DevKv::None => None,
            DevKv::V1 => Some(kv_mount::<kv::V1>()),
            DevKv::V2 => Some(kv_mount::<kv::V2>()),
        }
    }
}

fn kv_mount<E: Engine>() -> DevMount {
    let version = E::VARIANT.map_or("", |(_, version)| version);
    DevMount { path: "secret/", engine: E::TYPE, version, description: "key/value secret storage" }
}

/// The flags of `keepfast server -dev`. Any of them implies `-dev`.
#[derive(Default)]
pub struct DevArgs {
    /// `-dev-root-token-id`: the root token, instead of a random one.
    pub root_token: Option<SecretString>,
    /// `-dev-listen-address`; 127.0.0.1:8200 if absent.
    pub listen_address: Option<String>,
    /// `-dev-json`: one line of JSON with address, unseal key and root token on standard output, instead of the banner.
    pub json: bool,
    /// `-dev-no-store-token`: do not write `~/.vault-token`.
    pub no_store_token: bool,
    /// `-dev-no-kv`, `-dev-kv-v1`: the engine at `secret/`.
    pub kv: DevKv,
    /// `-dev-tls`: create a CA and a certificate, and serve HTTPS.
    pub tls: bool,
    /// `-dev-tls-cert-dir`: the directory of these files; a new temporary directory if absent.
    pub tls_cert_dir: Option<PathBuf>,
    /// `-dev-tls-san`: more names and addresses of the certificate.
    pub tls_sans: Vec<String>,
}
