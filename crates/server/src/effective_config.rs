//! Combines flags, files and environment to the effective configuration; with `-dev` it applies the defaults of Vault.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use keepfast_core::Settings;
use keepfast_core::audit::OwnFiles;
use keepfast_core::settings::{JoinSettings, ListenerSettings, SnapshotFiles};
use keepfast_crypto::secret::SecretString;

use crate::args::{DevArgs, DevKv, ServerArgs};
use crate::cluster::join_client::HttpJoinClient;
use crate::config::{
    self, Bind, ClientCertificates, Config, ConfigError, Environment, ListenerConfig, LogFormat, LogRotation, Storage,
    TlsConfig, Warning,
};
use crate::logging::Level;
use crate::own_files::{own_files, with_token_file};
use crate::process;
use crate::run::StartError;
use keepfast_edge::development;

/// The configuration after flags, files and environment have been combined.
pub(crate) struct EffectiveConfig {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) level: Level,
    /// Whether `-log-level` was set: it takes precedence at a reload, too.
    pub(crate) has_level_flag: bool,
    /// Whether `api_addr` follows the first listener.
    follows_listener: bool,
    /// Whether `cluster_addr` follows `api_addr`.
    follows_api_addr: bool,
    pub(crate) dev: Option<DevConfig>,
    /// The files that no audit device may write to.
    pub(crate) own_files: Arc<OwnFiles>,
}

/// The additional settings of a development server (`-dev`).
pub(crate) struct DevConfig {
    pub(crate) root_token: Option<SecretString>,
    pub(crate) kv: DevKv,
    /// The file of the root token for the command line.
    pub(crate) token_file: Option<PathBuf>,
    /// The CA of `-dev-tls`.
    pub(crate) ca: Option<PathBuf>,
    /// Whether to print one line of JSON instead of the banner.
    pub(crate) json: bool,
}

impl EffectiveConfig {
    /// Reads flags, files and environment.
    pub(crate) fn read(args: &mut ServerArgs, environment: &Environment) -> Result<Self, StartError> {
        if args.config.is_empty()
            && let Some(path) = environment.setting("CONFIG_PATH")
        {
            args.config = vec![path.into()];
        }
        let dev = args.dev.take();
        if args.config.is_empty() && dev.is_none() {
            return Err(ConfigError::Whole("Must specify at least one config path using -config".into()).into());
        }
        let memory = dev.is_some().then_some(Storage::InMemory);
        let (mut config, warnings) = config::load_over(&args.config, environment, memory)?;
        let dev = dev.map(|dev| apply_development(dev, environment, &mut config)).transpose()?;
        let has_level_flag = args.log_level.is_some();
        let level = apply_flags(args, &mut config)?;
        let follows_listener = config.api_addr.is_empty();
        let is_member = matches!(config.storage, Storage::Raft { .. });
        let follows_api_addr = is_member && config.cluster_addr.is_empty();
        let token_file = dev.as_ref().and_then(|dev| dev.token_file.as_deref());
        let own_files = Arc::new(with_token_file(own_files(&config, &args.config), token_file));
        let mut effective = EffectiveConfig {
            config,
            warnings,
            level,
            has_level_flag,
            follows_listener,
            follows_api_addr,
            dev,
            own_files,
        };
        effective.follow_listener();
        effective.check_addresses()?;
        Ok(effective)
    }

    /// Replaces port 0 by the ports that the system chose, in the order of the listeners.
    pub(crate) fn bound(&mut self, addresses: &[Option<SocketAddr>]) {
        for (listener, address) in self.config.listeners.iter_mut().zip(addresses) {
            if let (Bind::Tcp(given), Some(address)) = (&mut listener.bind, address)
                && let Some(host) = given.strip_suffix(":0")
            {
                *given = format!("{host}:{}", address.port());
            }
        }
        self.follow_listener();
    }

    fn follow_listener(&mut self) {
        if self.follows_listener {
            self.config.api_addr = detected_address(&self.config);
        }
        if self.follows_api_addr {
            self.config.cluster_addr = config::advertised(&self.config.api_addr).unwrap_or_default();
        }
    }

    /// Checks the addresses that other nodes use.
    fn check_addresses(&self) -> Result<(), ConfigError> {
        let Config { api_addr, cluster_addr, .. } = &self.config;
        if !api_addr.is_empty() && api_addr == cluster_addr {
            return Err(ConfigError::Whole(format!("address {api_addr:?} used for both API and cluster addresses")));
        }
        Ok(())
    }

    /// The settings of the kernel.
    pub(crate) fn settings(&self) -> Settings {
        let config = &self.config;
        Settings {
            default_lease_ttl: config.default_lease_ttl,
            max_lease_ttl: config.max_lease_ttl,
            api_addr: config.api_addr.clone(),
            cluster_addr: config.cluster_addr.clone(),
            cluster_name: config.cluster_name.clone(),
            storage_type: config.storage.kind().into(),
            audit: config.audit.clone(),
            own_files: self.own_files.clone(),
            allow_api_audit_creation: config.unsafe_allow_api_audit_creation,
            allow_audit_log_prefixing: config.allow_audit_log_prefixing,
            introspection_endpoint: config.introspection_endpoint,
            version: env!("CARGO_PKG_VERSION").into(),
            listeners: config.listeners.iter().map(listener_settings).collect(),
            log_level: config.log_level.clone(),
            dev: self.dev.is_some(),
            telemetry: config.telemetry.clone(),
            user_lockout: config.user_lockout.clone(),
            snapshots: config.snapshots.clone(),
            snapshot_files: match &config.storage {
                Storage::Raft { path, .. } => {
                    Some(SnapshotFiles { directory: path.clone(), longest: config.raft.max_snapshot_size })
                }
                _ => None,
            },
            hostname: process::hostname(),
            log: None,
            host_gauges: None,
            database_file_directories: config.database_file_directories.clone(),
            external_keys: config.external_keys.clone(),
            data_directory: None,
            cluster_port: None,
            disable_standby_reads: config.disable_standby_reads,
            disable_break_glass: config.disable_break_glass,
            disable_sealwrap: config.disable_sealwrap,
            join: JoinSettings {
                client: Some(Arc::new(HttpJoinClient)),
                retry: config.raft.retry_join.clone(),
                non_voter: config.raft.retry_join_as_non_voter,
            },
            autopilot_interval: config.raft.autopilot_reconcile_interval,
        }
    }
}

fn listener_settings(listener: &ListenerConfig) -> ListenerSettings {
    ListenerSettings { kind: listener.kind().into(), address: listener.address(), tls_disable: listener.tls.is_none() }
}

/// Applies the flags, which take precedence over files and environment.
fn apply_flags(args: &mut ServerArgs, config: &mut Config) -> Result<Level, StartError> {
    if let Some(level) = args.log_level.take() {
        config.log_level = level;
    }
    if let Some(format) = args.log_format.take() {
        config.log_format =
            LogFormat::parse(&format).ok_or_else(|| ConfigError::Whole(format!("unknown log format: {format:?}")))?;
    }
    if let Some(file) = args.log_file.take() {
        config.log_file = Some(file);
    }
    let rotation = &mut config.log_rotation;
    rotation.bytes = args.log_rotate_bytes.unwrap_or(rotation.bytes);
    rotation.duration = args.log_rotate_duration.unwrap_or(rotation.duration);
    rotation.max_files = args.log_rotate_max_files.map_or(rotation.max_files, LogRotation::max_files);
    let unknown = || ConfigError::Whole(format!("unknown log level: {:?}", config.log_level));
    Ok(Level::parse(&config.log_level).ok_or_else(unknown)?)
}

/// Applies `-dev`: listener, certificate and token, from flags and environment.
fn apply_development(dev: DevArgs, environment: &Environment, config: &mut Config) -> Result<DevConfig, StartError> {
    let address = dev
        .listen_address
        .filter(|address| !address.is_empty())
        .or_else(|| environment.setting("DEV_LISTEN_ADDRESS").map(str::to_owned))
        .unwrap_or_else(|| "127.0.0.1:8200".into());
    let mut listener = ListenerConfig::plain(address);
    let ca = if dev.tls {
        let dir = match dev.tls_cert_dir {
            Some(dir) => dir,
            None => fresh_directory().map_err(StartError::DevelopmentCertificate)?,
        };
        let mut names = vec!["localhost".to_owned(), "localhost.localdomain".into(), "127.0.0.1".into(), "::1".into()];
        names.extend(dev.tls_sans);
        let files = development::write(&dir, names).map_err(StartError::DevelopmentCertificate)?;
        listener.tls = Some(TlsConfig {
            cert_file: files.cert,
            key_file: files.key,
            tls12: true,
            tls13: true,
            clients: ClientCertificates::Requested,
        });
        Some(files.ca)
    } else {
        None
    };
    config.listeners.insert(0, listener);
    config.cluster_addresses.insert(0, None);
    config.disable_mlock = true;
    // Container images pass the flag with an empty value when no token is chosen.
    let chosen = dev.root_token.filter(|token| !token.expose().is_empty());
    let root_token =
        chosen.or_else(|| environment.setting("DEV_ROOT_TOKEN_ID").map(|t| SecretString::new(t.to_owned())));
    let home = environment.variable("HOME").map(PathBuf::from).filter(|_| !dev.no_store_token);
    let token_file = home.map(|h| h.join(".vault-token"));
    Ok(DevConfig { root_token, kv: dev.kv, token_file, ca, json: dev.json })
}

/// Creates a new directory for certificates, readable by its owner only.
fn fresh_directory() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = std::env::temp_dir().join(format!("keepfast-tls-{}", keepfast_crypto::random::base62(10)));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// The address of the first listener as a URL, which is correct when clients use the same one.
fn detected_address(config: &Config) -> String {
    let Some(listener) = config.listeners.iter().find(|l| l.kind() == "tcp") else { return String::new() };
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let address = listener.address();
    let host = if address.starts_with(':') { "127.0.0.1" } else { "" };
    format!("{scheme}://{host}{address}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn dev(dev: DevArgs, environment: &[(&str, &str)]) -> EffectiveConfig {
        EffectiveConfig::read(
            &mut ServerArgs { dev: Some(dev), ..ServerArgs::default() },
            &Environment::of(environment),
        )
        .unwrap()
    }

    #[test]
    fn development_uses_flags_then_environment_then_defaults() {
        let plain = dev(DevArgs::default(), &[("HOME", "/home/x")]);
        assert_eq!((plain.config.api_addr.as_str(), plain.config.disable_mlock), ("http://127.0.0.1:8200", true));
        let settings = plain.dev.unwrap();
        assert_eq!((settings.token_file, settings.kv), (Some("/home/x/.vault-token".into()), DevKv::V2));
        assert!(settings.root_token.is_none());
        let variables = [("VAULT_DEV_ROOT_TOKEN_ID", "env"), ("BAO_DEV_LISTEN_ADDRESS", "127.0.0.1:1")];
        let from_environment = dev(DevArgs { no_store_token: true, ..DevArgs::default() }, &variables);
        assert_eq!(from_environment.config.listeners[0].address(), "127.0.0.1:1");
        let settings = from_environment.dev.unwrap();
        assert_eq!((settings.root_token.unwrap().expose().as_str(), settings.token_file), ("env", None));
        let flags = DevArgs {
            root_token: Some(SecretString::new("flag".into())),
            listen_address: Some("localhost:2".into()),
            kv: DevKv::None,
            ..DevArgs::default()
        };
        let from_flags = dev(flags, &variables);
        assert_eq!(from_flags.config.listeners[0].address(), "localhost:2");
        let settings = from_flags.dev.unwrap();
        assert_eq!((settings.root_token.unwrap().expose().as_str(), settings.kv), ("flag", DevKv::None));
    }

    #[test]
    fn port_0_becomes_the_bound_port_in_the_address_of_clients() {
        let zero = DevArgs { listen_address: Some("127.0.0.1:0".into()), ..DevArgs::default() };
        let mut effective = dev(zero, &[]);
        effective.bound(&["127.0.0.1:40001".parse().ok()]);
        assert_eq!(effective.config.listeners[0].address(), "127.0.0.1:40001");
        assert_eq!(
            (effective.config.api_addr.as_str(), effective.settings().api_addr.as_str()),
            ("http://127.0.0.1:40001", "http://127.0.0.1:40001")
        );
        let chosen = DevArgs { listen_address: Some("[::1]:0".into()), ..DevArgs::default() };
        let mut effective = dev(chosen, &[("VAULT_API_ADDR", "https://vault.example")]);
        effective.bound(&["[::1]:40002".parse().ok()]);
        assert_eq!(
            (effective.config.listeners[0].address().as_str(), effective.config.api_addr.as_str()),
            ("[::1]:40002", "https://vault.example")
        );
    }

    #[test]
    fn the_address_for_nodes_follows_the_one_for_clients() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.hcl");
        let read = |storage: &str, environment: &[(&str, &str)]| {
            let text = format!("{storage}\nlistener \"tcp\" {{\n tls_disable = 1\n address = \"127.0.0.1:0\"\n}}\n");
            std::fs::write(&file, text).unwrap();
            let mut args = ServerArgs { config: vec![file.clone()], ..ServerArgs::default() };
            EffectiveConfig::read(&mut args, &Environment::of(environment))
        };
        let raft = "storage \"raft\" { path = \"/d\" }";
        let mut effective = read(raft, &[]).unwrap();
        effective.bound(&["127.0.0.1:40001".parse().ok()]);
        assert_eq!(effective.settings().cluster_addr, "https://127.0.0.1:40002");
        assert_eq!(effective.config.cluster_bind_addresses(), ["127.0.0.1:40002"]);
        let given = read(raft, &[("VAULT_API_ADDR", "http://a:1"), ("VAULT_CLUSTER_ADDR", "https://b:9")]).unwrap();
        assert_eq!(given.settings().cluster_addr, "https://b:9");
        let same = read(raft, &[("VAULT_API_ADDR", "https://a:1"), ("VAULT_CLUSTER_ADDR", "https://a:1")]);
        assert!(same.err().unwrap().to_string().contains("used for both API and cluster addresses"));
        assert_eq!(read("storage \"inmem\" {}", &[]).unwrap().settings().cluster_addr, "");
    }

    #[test]
    fn empty_flags_count_as_unset() {
        let empty = DevArgs {
            root_token: Some(SecretString::new(String::new())),
            listen_address: Some(String::new()),
            ..DevArgs::default()
        };
        let effective = dev(empty, &[("VAULT_DEV_LISTEN_ADDRESS", ":8200")]);
        assert_eq!(effective.config.listeners[0].address(), ":8200");
        assert_eq!(effective.config.api_addr, "http://127.0.0.1:8200");
        assert!(effective.dev.unwrap().root_token.is_none());
    }

    #[test]
    fn production_needs_a_configuration_from_flag_or_environment() {
        let missing = EffectiveConfig::read(&mut ServerArgs::default(), &Environment::of(&[])).err().unwrap();
        assert_eq!(missing.to_string(), "Must specify at least one config path using -config");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.hcl");
        std::fs::write(&file, "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = 1 }\nlog_level = \"warn\"")
            .unwrap();
        let environment = Environment::of(&[("VAULT_CONFIG_PATH", file.to_str().unwrap())]);
        let mut args =
            ServerArgs { log_level: Some("trace".into()), log_format: Some("json".into()), ..ServerArgs::default() };
        let effective = EffectiveConfig::read(&mut args, &environment).unwrap();
        let settings = effective.settings();
        assert_eq!((settings.log_level.as_str(), settings.dev), ("trace", false));
        assert_eq!(
            (effective.config.log_format, settings.api_addr.as_str()),
            (LogFormat::Json, "http://127.0.0.1:8200")
        );
    }
}
