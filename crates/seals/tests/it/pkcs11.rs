//! pkcs11 with SoftHSM.

use std::path::Path;
use std::process::Command;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;

use crate::program::program;
use crate::seal;

pub(crate) const LIBRARY: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token with AES keys `old` (id 01) and `new` (id 02), an RSA key `rsa` (id 03) and a P-256 key `ec` (id 04).
pub(crate) struct Token {
    directory: tempfile::TempDir,
    pub(crate) configuration: String,
    pub(crate) helper: String,
    tool: std::path::PathBuf,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn token() -> Option<Token> {
    let tool = program("SOFTHSM2_UTIL", &["/usr/bin/softhsm2-util"])?;
    let helper = program("KEEPFAST_PKCS11", &["target/release/keepfast-pkcs11", "target/debug/keepfast-pkcs11"])?;
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let file = directory.path().join("softhsm2.conf");
    std::fs::write(&file, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display()))
        .unwrap();
    let configuration = file.display().to_string();
    let command = || {
        let mut command = Command::new(&tool);
        command.env("SOFTHSM2_CONF", &configuration);
        command
    };
    run(command().args(["--init-token", "--free", "--label", "kf", "--pin", "1234", "--so-pin", "5678"]));
    let import = |path: &Path, label: &str, id: &str, more: &[&str]| {
        let mut command = command();
        command.arg("--import").arg(path).args(["--token", "kf", "--pin", "1234", "--label", label, "--id", id]);
        run(command.args(more));
    };
    let key = directory.path().join("key");
    for (label, id) in [("old", "01"), ("new", "02")] {
        // `softhsm2-util` reads a key as text: it cuts one with certain bytes.
        std::fs::write(&key, random::uuid().replace('-', "")).unwrap();
        import(&key, label, id, &["--aes"]);
    }
    let pkcs8 = keepfast_crypto::keys::rsa::RsaKey::generate(2048).unwrap();
    std::fs::write(&key, keepfast_crypto::keys::pem::encode("PRIVATE KEY", pkcs8.expose())).unwrap();
    import(&key, "rsa", "03", &[]);
    let pkcs8 = keepfast_crypto::keys::ecdsa::EcKey::generate(keepfast_crypto::keys::ecdsa::Curve::P256).unwrap();
    std::fs::write(&key, keepfast_crypto::keys::pem::encode("PRIVATE KEY", pkcs8.expose())).unwrap();
    import(&key, "ec", "04", &[]);
    Some(Token { directory, configuration, helper: helper.display().to_string(), tool })
}

impl Token {
    /// What `softhsm2-util` shows of the token.
    fn shown(&self, name: &str) -> String {
        let mut command = Command::new(&self.tool);
        let output = command.arg("--show-slots").env("SOFTHSM2_CONF", &self.configuration).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        // The last slot has no token.
        let line = output.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn slot(&self) -> String {
        self.shown("Slot ")
    }

    pub(crate) fn serial(&self) -> String {
        self.shown("Serial number:")
    }

    fn seal(&self, keys: &[(&str, &str)]) -> std::sync::Arc<dyn keepfast_framework::seal::Seal> {
        let mut all = vec![("lib", LIBRARY), ("helper_program", self.helper.as_str()), ("token_label", "kf")];
        all.extend(keys);
        seal("pkcs11", &all, &[("SOFTHSM2_CONF", self.configuration.as_str())])
    }
}

#[tokio::test]
async fn pkcs11_wraps_with_keys_of_softhsm() {
    let Some(token) = token() else { return };
    let pin = ("pin", "1234");
    let rsa = [("mechanism", "CKM_RSA_PKCS_OAEP"), ("rsa_oaep_hash", "sha1")];
    for (keys, id) in [
        (vec![pin, ("key_label", "old")], "id:01"),
        (vec![pin, ("key_id", "0x02")], "id:02"),
        (vec![pin, ("key_label", "rsa"), rsa[0], rsa[1]], "id:03"),
    ] {
        let seal = token.seal(&keys);
        let key = random::key();
        let (wrapped, again) = (seal.wrap(&key).await.unwrap(), seal.wrap(&key).await.unwrap());
        assert_eq!((wrapped.key_id.as_str(), seal.current_key().await.unwrap().as_deref()), (id, Some(id)));
        assert_ne!(wrapped.blob, again.blob);
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
        let mut damaged = wrapped.blob.to_vec();
        damaged[3] ^= 1;
        let damaged = keepfast_framework::seal::WrappedKey { blob: damaged.into(), ..wrapped.clone() };
        assert_eq!(seal.unwrap(&damaged).await.err().unwrap().class, SealErrorClass::WrongKey);
        // The session still serves.
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    }
    // A new key is followed, and the old one unwraps by its stored id.
    let key = random::key();
    let old = token.seal(&[pin, ("key_label", "old")]).wrap(&key).await.unwrap();
    let new = token.seal(&[pin, ("key_label", "new")]);
    assert_eq!(new.unwrap(&old).await.unwrap().expose(), key.expose());
    let missing = token.seal(&[pin, ("key_label", "none")]).wrap(&key).await.err().unwrap();
    assert_eq!(missing.class, SealErrorClass::WrongKey, "{missing}");
    assert!(token.directory.path().exists());
}

#[tokio::test]
async fn a_refused_pin_is_not_tried_again() {
    let Some(token) = token() else { return };
    let seal = token.seal(&[("pin", "9999"), ("key_label", "old")]);
    let first = seal.wrap(&random::key()).await.err().unwrap();
    assert_eq!(first.class, SealErrorClass::Denied, "{first}");
    let second = seal.wrap(&random::key()).await.err().unwrap();
    assert!(second.class == SealErrorClass::Denied && second.cause.contains("restart"), "{second}");
}
