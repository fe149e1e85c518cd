//! Transit: encryption as a service.
//!
//! Applications encrypt, sign, hash and authenticate with named keys that they never see. A key has versions: the
//! latest makes new ciphertexts and signatures, older ones still open and verify, down to the minimum that its
//! configuration sets. Ciphertexts are `vault:vN:` and base64, so data made by Vault or OpenBao with an exported key
//! opens here and the other way round.
//!
//! Which operations a key type can do is one row of [`keepfast_crypto::keys::KeyKind`]; this engine names no algorithm
//! that it need not. A request is answered from the keys prepared in memory (`rings.rs`) and reads no storage.
//!
//! | file | paths |
//! |---|---|
//! | `keys.rs` | `keys/`, `keys/NAME`, its `config`, `rotate`, `trim`, soft deletion |
//! | `encrypt.rs` | `encrypt/`, `decrypt/`, `rewrap/`, `datakey/` |
//! | `sign.rs`, `hmac.rs` | `sign/`, `verify/`, `hmac/` |
//! | `export.rs` | `export/`, `backup/`, `restore/` |
//! | `import.rs` | `wrapping_key`, `keys/NAME/import`, `keys/NAME/import_version`, `byok-export/` |
//! | `derive.rs` | `derive-key/` |
//! | `certificate.rs` | `keys/NAME/csr`, `keys/NAME/set-certificate` |
//! | `random.rs` | `random`, `hash` |
//! | `config.rs` | `config/keys`, `cache-config` |

mod batch;
mod certificate;
mod codec;
mod config;
mod derive;
mod encrypt;
mod export;
mod foreign;
mod hmac;
mod import;
mod keys;
mod policy;
mod random;
mod ring;
mod rings;
mod rotation;
mod sign;
mod stored;
mod usage;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Engine, Kind, Result, Routes, Timestamp};
use parking_lot::Mutex;

use rings::Rings;

/// The transit secrets engine at one mount.
pub struct Transit {
    rings: Rings,
    /// The key for which imported keys are wrapped, once it was read.
    wrapping: Mutex<Option<Arc<RsaKey>>>,
    /// When the keys were last looked through for rotation.
    swept: Mutex<Timestamp>,
}

impl Engine for Transit {
    const TYPE: &'static str = "transit";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        key_routes(r);
        use_routes(r);
        transfer_routes(r);
        r.path("config/keys", help("Settings of all keys of the mount."))
            .read(config::read_keys)
            .update(config::write_keys);
        r.path("cache-config", help("How many keys are kept in memory."))
            .read(config::read_cache)
            .update(config::write_cache)
            .exists(config::cache_exists);
    }

    async fn open(cx: &mut Cx) -> Result<Self> {
        let settings = config::SETTINGS.get(cx, "").await?.unwrap_or_default();
        Ok(Transit {
            rings: Rings::new(settings.cache_size),
            wrapping: Mutex::new(None),
            swept: Mutex::new(Timestamp::EPOCH),
        })
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        rotation::sweep(self, cx).await
    }

    fn invalidate(&self, key: &str, _exists: bool) {
        if let Some(name) = key.strip_prefix("key/") {
            self.rings.forget(name);
        }
        if key == import::WRAPPING_KEY_AT {
            *self.wrapping.lock() = None;
        }
    }
}

fn key_routes(r: &mut Routes<Transit>) {
    r.path("keys/", help("The names of the keys.")).list(keys::list);
    r.path("keys/{name}", help("A named key.")).names_only().read(keys::read).update(keys::create).delete(keys::delete);
    r.path("keys/{name}/config", help("Settings of a key.")).names_only().update(keys::configure);
    r.path("keys/{name}/rotate", help("Makes a new version of a key.")).names_only().update(keys::rotate);
    r.path("keys/{name}/trim", help("Destroys old versions of a key.")).names_only().update(keys::trim);
    r.path("keys/{name}/soft-delete", help("Disables a key until it is restored."))
        .names_only()
        .delete(keys::soft_delete);
    r.path("keys/{name}/soft-delete-restore", help("Enables a disabled key."))
        .names_only()
        .update(keys::soft_delete_restore);
    r.path("keys/{name}/import", help("Imports a key that was made elsewhere.")).names_only().update(import::import);
    r.path("keys/{name}/import_version", help("Imports a version of an imported key."))
        .names_only()
        .update(import::import_version);
    r.path("keys/{name}/csr", help("A certificate signing request by a key."))
        .names_only()
        .update(certificate::request);
    r.path("keys/{name}/set-certificate", help("Keeps a certificate chain with a key."))
        .names_only()
        .update(certificate::set);
}

fn use_routes(r: &mut Routes<Transit>) {
    r.path("encrypt/{name}", help("Encrypts with a key."))
        .names_only()
        .update(encrypt::encrypt)
        .exists(encrypt::exists);
    r.path("decrypt/{name}", help("Decrypts with a key.")).names_only().update(encrypt::decrypt);
    r.path("rewrap/{name}", help("Encrypts anew with the latest version, without showing the plaintext."))
        .names_only()
        .update(encrypt::rewrap);
    r.path("datakey/{plaintext}/{name}", help("A new key, encrypted with a named one."))
        .names_only()
        .update(encrypt::data_key);
    r.paths(["sign/{name}", "sign/{name}/{urlalgorithm}"], help("Signs with a key."))
        .names_only()
        .final_slash()
        .update(sign::sign);
    r.paths(["verify/{name}", "verify/{name}/{urlalgorithm}"], help("Verifies a signature or an HMAC."))
        .names_only()
        .final_slash()
        .update(sign::verify);
    r.paths(["hmac/{name}", "hmac/{name}/{urlalgorithm}"], help("Authenticates with a key."))
        .names_only()
        .final_slash()
        .update(hmac::hmac);
    r.paths(["hash", "hash/{urlalgorithm}"], help("A digest.")).final_slash().update(random::hash);
    r.paths(["random", "random/{source}", "random/{source}/{urlbytes}"], help("Random bytes."))
        .final_slash()
        .update(random::random);
    r.path("derive-key/{name}", help("Derives a key by agreement with another public key."))
        .names_only()
        .update(derive::derive);
}

fn transfer_routes(r: &mut Routes<Transit>) {
    r.paths(["export/{type}/{name}", "export/{type}/{name}/{version}"], help("A key that is exportable."))
        .names_only()
        .final_slash()
        .read(export::export);
    // It writes when it was done, which a plain read may not.
    r.path("backup/{name}", help("A key with all its versions, in plaintext."))
        .names_only()
        .read(export::backup)
        .once();
    r.paths(["restore", "restore/{name}"], help("Restores a key from its backup."))
        .final_slash()
        .update(export::restore);
    // The first read makes the key and writes it, which a plain read may not.
    r.path("wrapping_key", help("The public key for which imported keys are wrapped."))
        .read(import::wrapping_key)
        .once();
    r.paths(
        ["byok-export/{destination}/{source}", "byok-export/{destination}/{source}/{version}"],
        help("A key wrapped for another one, as `import` takes it."),
    )
    .names_only()
    .final_slash()
    .read(import::byok_export);
}

fn help(synopsis: &'static str) -> Help {
    Help { synopsis, description: "" }
}
