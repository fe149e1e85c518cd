//! Transit: encryption as a service.
//!
//! Applications encrypt, sign, hash and authenticate with named keys that they never see. A key has versions: new
//! ciphertexts and signatures use the latest one; older ones still decrypt and verify, down to the configured minimum.
//! Ciphertexts are `vault:vN:` and base64, so data of Vault or OpenBao decrypts here with an exported key and vice
//! versa.
//!
//! [`keepfast_crypto::keys::KeyKind`] defines the operations of each key type; this engine names an algorithm only if
//! it must. Requests use the prepared keys in memory (`key_cache.rs`) and read no storage.
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
//! | `external.rs` | keys of type `external-key`: calls of the other system |
//! | `random.rs` | `random`, `hash` |
//! | `config.rs` | `config/keys`, `cache-config` |

mod backup_export;
mod backup_import;
mod batch;
mod certificate;
mod codec;
mod config;
mod derive;
mod encrypt;
mod export;
mod external;
mod hmac;
mod import;
mod key_cache;
mod key_response;
mod keys;
mod named_key;
mod random;
mod rotation;
mod sign;
mod stored;
mod usage;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Engine, Kind, Result, Routes, Timestamp};
use parking_lot::Mutex;

use key_cache::KeyCache;

/// The transit secrets engine at one mount.
pub struct Transit {
    key_cache: KeyCache,
    /// The key that wraps imported keys, cached after its first read.
    wrapping: Mutex<Option<Arc<RsaKey>>>,
    /// The time of the last search for keys to rotate.
    last_sweep: Mutex<Timestamp>,
}

impl Engine for Transit {
    const TYPE: &'static str = "transit";
    const KIND: Kind = Kind::Secrets;
    const IN_BACKGROUND: bool = true;
    const WRAPPED: &'static [&'static str] = &[named_key::FOLDER, import::WRAPPING_KEY_NAME];

    fn routes(r: &mut Routes<Self>) {
        key_routes(r);
        use_routes(r);
        transfer_routes(r);
        r.path("config/keys", help("Settings for all keys of the mount."))
            .read(config::read_keys)
            .update(config::write_keys);
        r.path("cache-config", help("The size of the cache of keys."))
            .read(config::read_cache)
            .update(config::write_cache)
            .exists(config::cache_exists);
    }

    async fn open(cx: &mut Cx) -> Result<Self> {
        let settings = config::SETTINGS.get(cx, "").await?.unwrap_or_default();
        Ok(Transit {
            key_cache: KeyCache::new(settings.cache_size),
            wrapping: Mutex::new(None),
            last_sweep: Mutex::new(Timestamp::EPOCH),
        })
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        rotation::sweep(self, cx).await
    }

    fn invalidate(&self, key: &str, _exists: bool) {
        if let Some(name) = key.strip_prefix(named_key::FOLDER) {
            self.key_cache.invalidate(name);
        }
        if key == import::WRAPPING_KEY_NAME {
            *self.wrapping.lock() = None;
        }
    }
}

fn key_routes(r: &mut Routes<Transit>) {
    r.path("keys/", help("Lists the names of the keys.")).list(keys::list);
    r.path("keys/{name}", help("A named key.")).names_only().read(keys::read).update(keys::create).delete(keys::delete);
    r.path("keys/{name}/config", help("Settings of a key.")).names_only().update(keys::configure);
    r.path("keys/{name}/rotate", help("Rotates a key: adds a new version.")).names_only().update(keys::rotate);
    r.path("keys/{name}/trim", help("Destroys old versions of a key.")).names_only().update(keys::trim);
    r.path("keys/{name}/soft-delete", help("Soft-deletes a key: disables it until it is restored."))
        .names_only()
        .delete(keys::soft_delete);
    r.path("keys/{name}/soft-delete-restore", help("Restores a soft-deleted key."))
        .names_only()
        .update(keys::soft_delete_restore);
    r.path("keys/{name}/import", help("Imports a key.")).names_only().update(import::import);
    r.path("keys/{name}/import_version", help("Imports a version of an imported key."))
        .names_only()
        .update(import::import_version);
    r.path("keys/{name}/csr", help("A certificate signing request by a key."))
        .names_only()
        .update(certificate::request);
    r.path("keys/{name}/set-certificate", help("Stores a certificate chain for a key."))
        .names_only()
        .update(certificate::set);
}

fn use_routes(r: &mut Routes<Transit>) {
    r.path("encrypt/{name}", help("Encrypts with a key."))
        .names_only()
        .update(encrypt::encrypt)
        .exists(encrypt::exists)
        .here();
    r.path("decrypt/{name}", help("Decrypts with a key.")).names_only().update(encrypt::decrypt).here();
    r.path(
        "rewrap/{name}",
        help("Rewraps a ciphertext: encrypts it with the latest version without returning the plaintext."),
    )
    .names_only()
    .update(encrypt::rewrap)
    .here();
    r.path("datakey/{plaintext}/{name}", help("Generates a data key, encrypted with a named key."))
        .names_only()
        .update(encrypt::data_key)
        .here();
    r.paths(["sign/{name}", "sign/{name}/{urlalgorithm}"], help("Signs with a key."))
        .names_only()
        .final_slash()
        .update(sign::sign)
        .here();
    r.paths(["verify/{name}", "verify/{name}/{urlalgorithm}"], help("Verifies a signature or an HMAC."))
        .names_only()
        .final_slash()
        .update(sign::verify)
        .here();
    r.paths(["hmac/{name}", "hmac/{name}/{urlalgorithm}"], help("Computes an HMAC with a key."))
        .names_only()
        .final_slash()
        .update(hmac::hmac)
        .here();
    r.paths(["hash", "hash/{urlalgorithm}"], help("A digest.")).final_slash().update(random::hash).here();
    r.paths(["random", "random/{source}", "random/{source}/{urlbytes}"], help("Random bytes."))
        .final_slash()
        .update(random::random)
        .here();
    r.path("derive-key/{name}", help("Derives a key by key agreement with another public key."))
        .names_only()
        .update(derive::derive)
        .here();
}

fn transfer_routes(r: &mut Routes<Transit>) {
    r.paths(["export/{type}/{name}", "export/{type}/{name}/{version}"], help("Exports an exportable key."))
        .names_only()
        .final_slash()
        .read(export::export);
    // The backup writes its time, which the transaction of a plain read cannot.
    r.path("backup/{name}", help("Backs up a key with all its versions, in plaintext."))
        .names_only()
        .read(export::backup)
        .once();
    r.paths(["restore", "restore/{name}"], help("Restores a key from its backup."))
        .final_slash()
        .update(export::restore);
    // The first read creates and writes the key, which the transaction of a plain read cannot.
    r.path("wrapping_key", help("The public key that wraps imported keys.")).read(import::wrapping_key).once();
    r.paths(
        ["byok-export/{destination}/{source}", "byok-export/{destination}/{source}/{version}"],
        help("Exports a key wrapped with another one, in the format of `import`."),
    )
    .names_only()
    .final_slash()
    .read(import::byok_export);
}

fn help(synopsis: &'static str) -> Help {
    Help { synopsis, description: "" }
}
