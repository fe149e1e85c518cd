//! What seals of tests need: files with keys, a second server with a transit engine, a token of SoftHSM; and the stanzas
//! that name them.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Client;
use crate::servers::{Make, Server, Storage};
use crate::slow_proxy::SlowProxy;

/// The library of SoftHSM.
const LIBRARY: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The PIN of the token.
pub const PIN: &str = "canary-pin-83125";
/// The names of the keys of `static`, which are also the names of their files.
pub const STATIC_KEYS: [&str; 2] = ["k1", "k2"];

/// The seals of tests. Each is named as its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealKind {
    /// A key in a file.
    Static,
    /// The transit engine of a second Keepfast.
    Transit,
    /// A key of SoftHSM.
    Pkcs11,
}

impl SealKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Static, Self::Transit, Self::Pkcs11];

    /// The type, and the name of the seal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Transit => "transit",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

/// The services of the seals.
pub struct SealServices {
    /// The server with the transit engine, and its root token.
    pub kms: Server,
    /// The address of the transit engine for the stanza; another one leads through a proxy.
    pub address: String,
    /// The token of the transit seal.
    pub transit_token: String,
    helper: PathBuf,
    directory: TempDir,
}

impl SealServices {
    /// Creates the keys, and starts the second server.
    ///
    /// # Errors
    /// When SoftHSM or the program `keepfast-pkcs11` is missing, or a server does not start.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("conformance-seals-").tempdir()?;
        let mut kms = Server::start_unsealed(Make::Keepfast, Storage::Durable)?;
        let helper = Make::Keepfast.binary()?.canonicalize()?.with_file_name("keepfast-pkcs11");
        let helper = match std::env::var_os("KEEPFAST_PKCS11") {
            Some(named) => named.into(),
            None => helper,
        };
        if !helper.exists() {
            bail!("{} is missing: cargo build -p keepfast-pkcs11", helper.display());
        }
        let transit_token = prepare_transit(&mut kms)?;
        let services = Self { address: kms.url.clone(), kms, transit_token, helper, directory };
        for name in STATIC_KEYS {
            services.write_static_key(name, &random_key()?)?;
        }
        services.create_token(&services.tokens(), &random_key()?[..32])?;
        Ok(services)
    }

    /// The file of a key of `static`.
    pub fn static_key(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of a key of `static`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_static_key(&self, name: &str, key: &str) -> Result<()> {
        Ok(std::fs::write(self.static_key(name), key)?)
    }

    /// The directory of the tokens of SoftHSM.
    pub fn tokens(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    /// Creates a token with an AES key in this directory.
    ///
    /// # Errors
    /// When SoftHSM is not installed.
    pub fn create_token(&self, tokens: &Path, key: &str) -> Result<()> {
        std::fs::create_dir(tokens)?;
        let configuration = tokens.with_extension("conf");
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        std::fs::write(&configuration, text)?;
        let file = self.directory.path().join("aes");
        std::fs::write(&file, key)?;
        let tool = std::env::var("SOFTHSM2_UTIL").unwrap_or_else(|_| "softhsm2-util".to_owned());
        let run = |arguments: &[&str]| -> Result<()> {
            let mut command = Command::new(&tool);
            let output = command.env("SOFTHSM2_CONF", &configuration).args(arguments).output();
            let output = output.with_context(|| format!("starting {tool}"))?;
            if !output.status.success() {
                bail!("{tool}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        };
        run(&["--init-token", "--free", "--label", "kf", "--pin", PIN, "--so-pin", "5678"])?;
        let path = file.display().to_string();
        run(&["--import", &path, "--aes", "--token", "kf", "--pin", PIN, "--label", "kf", "--id", "01"])?;
        Ok(std::fs::remove_file(file)?)
    }

    /// The variables that a server with these seals needs.
    pub fn environment(&self) -> Vec<(String, String)> {
        let configuration = self.tokens().with_extension("conf").display().to_string();
        vec![("SOFTHSM2_CONF".to_owned(), configuration)]
    }

    /// The stanza of a seal with further lines.
    pub fn stanza(&self, kind: SealKind, more: &str) -> String {
        let own = match kind {
            SealKind::Static => return self.static_stanza(STATIC_KEYS[0], None, more),
            SealKind::Transit => format!(
                "priority = 2\n address = \"{}\"\n token = \"{}\"\n key_name = \"k\"\n mount_path = \"seal/\"",
                self.address, self.transit_token
            ),
            SealKind::Pkcs11 => format!(
                "priority = 3\n lib = \"{LIBRARY}\"\n helper_program = \"{}\"\n token_label = \"kf\"\n pin = \"{PIN}\"\n \
                 key_label = \"kf\"",
                self.helper.display()
            ),
        };
        format!("seal \"{}\" {{\n {own}\n{more}}}\n", kind.name())
    }

    /// The stanzas of all seals with further lines.
    pub fn stanzas(&self, more: &str) -> String {
        SealKind::ALL.iter().map(|kind| self.stanza(*kind, more)).collect()
    }

    /// The stanza of `static` with this key, and the one before it.
    pub fn static_stanza(&self, current: &str, previous: Option<&str>, more: &str) -> String {
        let of = |key: &str, name: &str| {
            let file = self.static_key(name);
            format!(" {key}_key_id = \"{name}\"\n {key}_key = \"file://{}\"\n", file.display())
        };
        let previous = previous.map(|name| of("previous", name)).unwrap_or_default();
        format!("seal \"static\" {{\n priority = 1\n{}{previous}{more}}}\n", of("current", current))
    }

    /// Starts a server with these stanzas, on a copy of this data or on none.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, data: Option<&Path>, stanzas: &str, more: Vec<(String, String)>) -> Result<Server> {
        Server::start_in(Make::Keepfast, Storage::Durable, |directory| {
            if let Some(data) = data {
                copy(data, &directory.join("data"))?;
            }
            let mut file = std::fs::OpenOptions::new().append(true).open(directory.join("config.hcl"))?;
            file.write_all(stanzas.as_bytes())?;
            let point = directory.join("kill-point");
            std::fs::write(&point, [0; 16])?;
            let mut environment = self.environment();
            environment.extend(more);
            environment.push(("KILL_POINT".to_owned(), point.display().to_string()));
            Ok(environment)
        })
    }
}

/// A server with all seals, and their services; a proxy leads to the transit engine.
pub struct SealedServer {
    /// The services of the seals.
    pub services: SealServices,
    /// The proxy.
    pub proxy: SlowProxy,
    /// The server, initialized.
    pub server: Server,
    /// The key of `static`.
    pub static_key: String,
}

impl SealedServer {
    /// Starts the services and the server, and initializes it. `more` are further lines of each stanza.
    ///
    /// # Errors
    /// When a service or the server does not start.
    pub fn start(more: &str) -> Result<Self> {
        let mut services = SealServices::start()?;
        let proxy = SlowProxy::open(&services.kms.url)?;
        services.address.clone_from(&proxy.url);
        let static_key = std::fs::read_to_string(services.static_key(STATIC_KEYS[0]))?;
        let mut server = services.serve(None, &services.stanzas(more), Vec::new())?;
        server.init_with_seals(3, 2)?;
        Ok(Self { services, proxy, server, static_key })
    }
}

/// Mounts the engine and creates the token; returns it.
fn prepare_transit(kms: &mut Server) -> Result<String> {
    let mut client = kms.client()?;
    let root = kms.root.clone();
    done(&mut client, &root, "POST", "sys/mounts/seal", &json!({"type": "transit"}))?;
    done(&mut client, &root, "POST", "seal/keys/k", &json!({}))?;
    permit_transit(kms, true)?;
    let request = json!({"policies": ["seal"], "period": "24h", "no_parent": true});
    let created = done(&mut client, &root, "POST", "auth/token/create", &request)?;
    Ok(created["auth"]["client_token"].as_str().context("no token")?.to_owned())
}

/// Lets the token of the transit seal use the key, or denies it.
///
/// # Errors
/// When the second server does not respond.
pub fn permit_transit(kms: &Server, is_allowed: bool) -> Result<()> {
    let capabilities = if is_allowed { "update" } else { "deny" };
    let rule = |path: &str| format!("path \"seal/{path}/k\" {{ capabilities = [\"{capabilities}\"] }}\n");
    let policy = format!("{}{}", rule("encrypt"), rule("decrypt"));
    done(&mut kms.client()?, &kms.root, "PUT", "sys/policies/acl/seal", &json!({"policy": policy})).map(drop)
}

/// A request that must succeed; its body.
///
/// # Errors
/// When it is refused.
pub fn done(client: &mut Client, token: &str, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = (!body.is_null()).then_some(body);
    let response = client.call(Some(token).filter(|token| !token.is_empty()), method, path, body)?;
    if response.status >= 300 {
        bail!("{method} {path}: {} {}", response.status, String::from_utf8_lossy(&response.body));
    }
    Ok(response.json().unwrap_or_default())
}

/// A random key in hex.
///
/// # Errors
/// When the system has no random bytes.
pub fn random_key() -> Result<String> {
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies a directory.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
