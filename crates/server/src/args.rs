//! What the command line asks of the server, before any configuration is read.

use std::path::PathBuf;

use keepfast_core::DevMount;
use keepfast_crypto::secret::SecretString;
use keepfast_engines::secrets::kv;
use keepfast_framework::Engine;

/// The flags of `keepfast server`. A flag that was not given is empty, `None` or `false`; environment variables are
/// read by [`crate::run`], so the command line passes on only what was typed.
#[derive(Default)]
pub struct ServerArgs {
    /// `-config`: files or directories, in the order given. Later ones win.
    pub config: Vec<PathBuf>,
    /// `-log-level`: `trace`, `debug`, `info`, `warn` or `error`; wins over environment and configuration.
    pub log_level: Option<String>,
    /// `-log-format`: `standard` or `json`; wins over environment and configuration.
    pub log_format: Option<String>,
    /// `-log-file`: log there too.
    pub log_file: Option<PathBuf>,
    /// `-log-rotate-bytes`, in bytes; wins over the configuration.
    pub log_rotate_bytes: Option<u64>,
    /// `-log-rotate-duration`; wins over the configuration.
    pub log_rotate_duration: Option<std::time::Duration>,
    /// `-log-rotate-max-files`: 0 keeps all older files, a negative number none; wins over the configuration.
    pub log_rotate_max_files: Option<i64>,
    /// `-exit-on-core-shutdown`: end the process when the kernel stops by itself. It never does (sealing is no stop), so
    /// this is taken for compatibility and changes nothing.
    pub exit_on_core_shutdown: bool,
    /// `-test-verify-only` or `-verify-only`: check the configuration and what the start needs, then end.
    pub verify_only: bool,
    /// `-dev` and what belongs to it; `None` for a production start.
    pub dev: Option<DevArgs>,
}

/// What a development server has at `secret/`.
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
    /// The mount, if there is one.
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

/// The flags that `keepfast server -dev` takes. Any of them implies `-dev`.
#[derive(Default)]
pub struct DevArgs {
    /// `-dev-root-token-id`: the root token's text instead of a random one.
    pub root_token: Option<SecretString>,
    /// `-dev-listen-address`; 127.0.0.1:8200 if absent.
    pub listen_address: Option<String>,
    /// `-dev-json`: one line of JSON with address, unseal key and root token on standard output, instead of the banner.
    pub json: bool,
    /// `-dev-no-store-token`: leave `~/.vault-token` alone.
    pub no_store_token: bool,
    /// `-dev-no-kv`, `-dev-kv-v1`: what is mounted at `secret/`.
    pub kv: DevKv,
    /// `-dev-tls`: make a certificate authority and a certificate, and serve HTTPS.
    pub tls: bool,
    /// `-dev-tls-cert-dir`: where they are written; a fresh temporary directory if absent.
    pub tls_cert_dir: Option<PathBuf>,
    /// `-dev-tls-san`: further names and addresses in the certificate.
    pub tls_sans: Vec<String>,
}
