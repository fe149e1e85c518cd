//! External keys of OpenBao, Keepfast, SoftHSM and an emulator of AWS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::ecdsa::Marshaling;
use keepfast_crypto::keys::rsa::RsaScheme;
use keepfast_crypto::keys::{Key, SaltLength};
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Clock;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::external_key::{
    ExternalKey, ExternalKeyConnection, ExternalKeyError, FoundPlugin, Parameters, Signing, SigningHash,
};
use keepfast_framework::seal::SealErrorClass;
use keepfast_seals::{HsmLibrary, external_key_plugins};
use serde_json::json;

use crate::awskms::moto_with;
use crate::pkcs11::{LIBRARY, token};
use crate::program::free_port;
use crate::transit::{Transit, done, keepfast, openbao};
use crate::{Variables, map};

fn parameters(given: &[(&'static str, &str)]) -> Parameters {
    let mut out = Parameters::default();
    given.iter().for_each(|(name, value)| out.insert(name, SecretString::new((*value).to_owned())));
    out
}

fn connect(
    plugin: &str,
    config: &[(&'static str, &str)],
    libraries: BTreeMap<String, HsmLibrary>,
    variables: &[(&str, &str)],
) -> Arc<dyn ExternalKeyConnection> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let plugins = external_key_plugins(&libraries, &Variables(map(variables)), &clock).unwrap();
    let FoundPlugin::Plugin(plugin) = plugins.find(plugin) else { panic!("{plugin}") };
    plugin.connect(&parameters(config)).unwrap()
}

fn signing(input: &[u8]) -> Signing<'_> {
    Signing {
        input,
        prehashed: false,
        hash: SigningHash::OfKey,
        pkcs1: false,
        salt: SaltLength::Auto,
        marshaling: Marshaling::Asn1,
    }
}

fn class<T>(outcome: Result<T, ExternalKeyError>) -> SealErrorClass {
    match outcome {
        Err(ExternalKeyError::Unavailable(error)) => error.class,
        Err(ExternalKeyError::Refused(text)) => panic!("refused: {text}"),
        Ok(_) => panic!("it succeeds"),
    }
}

fn refusal<T>(outcome: Result<T, ExternalKeyError>) -> String {
    match outcome {
        Err(ExternalKeyError::Refused(text)) => text.into_owned(),
        Err(ExternalKeyError::Unavailable(error)) => panic!("not available: {error}"),
        Ok(_) => panic!("it succeeds"),
    }
}

/// A key encrypts, binds its associated data if it takes some, and refuses other ciphertexts.
async fn encrypts(key: &dyn ExternalKey, associated_data: &[u8]) {
    encrypts_each(key, &[b"hello", b""], associated_data).await;
}

async fn encrypts_each(key: &dyn ExternalKey, plaintexts: &[&[u8]], associated_data: &[u8]) {
    for plaintext in plaintexts.iter().copied() {
        let sealed = key.encrypt(plaintext, associated_data).await.unwrap();
        assert_ne!(sealed, key.encrypt(plaintext, associated_data).await.unwrap());
        assert_eq!(key.decrypt(&sealed, associated_data).await.unwrap().expose(), plaintext);
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(refusal(key.decrypt(&damaged, associated_data).await).contains("did not create this ciphertext"));
        if !associated_data.is_empty() {
            refusal(key.decrypt(&sealed, b"other").await);
        }
    }
}

/// A key signs as its public key says, in each form.
async fn signs(key: &dyn ExternalKey) {
    signs_hashed(key, false).await;
}

/// The same; moto hashes a digest again, and its salts have the maximum length.
async fn signs_hashed(key: &dyn ExternalKey, again: bool) {
    let public = Key::from_spki(&key.public_key().await.unwrap()).unwrap();
    let message = b"message";
    let digest = Hash::Sha256.digest(message);
    let plain = signing(message);
    let prehashed = Signing { input: &digest, prehashed: true, hash: SigningHash::Of(Hash::Sha256), ..plain };
    let forms = match &public {
        Key::Rsa(_) => vec![
            plain,
            prehashed,
            Signing { pkcs1: true, ..plain },
            Signing { pkcs1: true, hash: SigningHash::Of(Hash::Sha512), ..plain },
            Signing { salt: SaltLength::Hash, ..plain },
        ],
        Key::Ecdsa(_) => vec![plain, prehashed, Signing { marshaling: Marshaling::Jws, ..plain }],
        _ => vec![plain],
    };
    for form in forms {
        let signature = key.sign(&form).await.unwrap();
        let hash = if form.hash == SigningHash::Of(Hash::Sha512) { Hash::Sha512 } else { Hash::Sha256 };
        let signed = hash.digest(message);
        if again {
            let twice = hash.digest(&signed);
            let hash = SigningHash::Of(hash);
            let expected = Signing { input: &twice, prehashed: true, hash, salt: SaltLength::Auto, ..form };
            assert!(key.verify(&expected, &signature).await.unwrap());
            assert!(!key.verify(&form, &signature).await.unwrap());
            continue;
        }
        let valid = match &public {
            Key::Rsa(rsa) if form.pkcs1 => rsa.verify(RsaScheme::Pkcs1(Some(hash)), &signed, &signature),
            Key::Rsa(rsa) => rsa.verify(RsaScheme::Pss(hash, form.salt), &signed, &signature),
            Key::Ecdsa(ec) => ec.verify(&signed, &signature, form.marshaling),
            Key::Ed25519(ed) => Ok(ed.verify(message, &signature)),
            _ => panic!("another kind"),
        };
        assert_eq!(valid, Ok(true));
        assert!(key.verify(&form, &signature).await.unwrap());
        let other = Signing { input: if form.prehashed { &[7; 32] } else { b"other" }, ..form };
        assert!(!key.verify(&other, &signature).await.unwrap());
    }
}

async fn transit_has_external_keys(server: Transit) {
    for (name, kind) in [("aes", "aes256-gcm96"), ("rsa", "rsa-2048"), ("ec", "ecdsa-p256"), ("ed", "ed25519")] {
        done("POST", &server.url, &format!("seal/keys/{name}"), json!({ "type": kind })).await;
    }
    done("POST", &server.url, "seal/keys/aes/rotate", json!({})).await;
    let config = [("address", server.url.as_str()), ("token", "root"), ("mount_path", "seal/")];
    let connection = connect("transit", &config, BTreeMap::new(), &[("VAULT_TOKEN", "wrong"), ("VAULT_ADDR", "wrong")]);
    let key = |name: &str, version: &str| connection.key(&parameters(&[("name", name), ("version", version)])).unwrap();
    encrypts(&*key("aes", "1"), b"aad").await;
    encrypts(&*key("aes", "2"), b"").await;
    encrypts(&*key("rsa", "1"), b"").await;
    for name in ["rsa", "ec", "ed"] {
        signs(&*key(name, "1")).await;
    }
    assert_eq!(refusal(key("aes", "1").sign(&signing(b"x")).await), "the external key does not support signing");
    assert_eq!(refusal(key("ec", "1").encrypt(b"x", b"").await), "the external key does not support encryption");
    assert_eq!(
        refusal(key("rsa", "1").encrypt(b"x", b"aad").await),
        "the external key does not support associated data"
    );
    // A ciphertext of another version is not decrypted under this one.
    let sealed = key("aes", "1").encrypt(b"x", b"").await.unwrap();
    refusal(key("aes", "2").decrypt(&sealed, b"").await);
    assert_eq!(class(key("aes", "9").encrypt(b"x", b"").await), SealErrorClass::Misconfigured);
    let of = |address: &str, token: &str, mount: &str| {
        let config = [("address", address), ("token", token), ("mount_path", mount)];
        let connection = connect("transit", &config, BTreeMap::new(), &[]);
        connection.key(&parameters(&[("name", "aes"), ("version", "1")])).unwrap()
    };
    assert_eq!(class(of(&server.url, "wrong", "seal").encrypt(b"x", b"").await), SealErrorClass::Denied);
    // A token without `create` does not create the key of a mistyped name.
    let limited = connect(
        "transit",
        &[("address", &server.url), ("token", &server.token), ("mount_path", "seal")],
        BTreeMap::new(),
        &[],
    );
    let typo = limited.key(&parameters(&[("name", "typo"), ("version", "1")])).unwrap();
    class(typo.encrypt(b"x", b"").await);
    let none = of(&server.url, "root", "none").sign(&signing(b"x")).await;
    assert_eq!(class(none), SealErrorClass::Misconfigured);
    let dead = format!("http://127.0.0.1:{}", free_port());
    assert_eq!(class(of(&dead, "root", "seal").encrypt(b"x", b"").await), SealErrorClass::Unreachable);
}

#[tokio::test]
async fn keys_of_openbao_encrypt_and_sign_as_their_public_keys_say() {
    if let Some(server) = openbao().await {
        transit_has_external_keys(server).await;
    }
}

#[tokio::test]
async fn keys_of_another_keepfast_encrypt_and_sign_as_those_of_openbao() {
    if let Some(server) = keepfast().await {
        transit_has_external_keys(server).await;
    }
}

#[tokio::test]
async fn sec_an_external_key_does_not_lead_to_a_metadata_service() {
    let key = |address: &str, variables: &[(&str, &str)]| {
        let connection = connect("transit", &[("address", address), ("token", "t")], BTreeMap::new(), variables);
        connection.key(&parameters(&[("name", "k"), ("version", "1")])).unwrap()
    };
    let proxy = format!("http://127.0.0.1:{}", free_port());
    for (address, variables) in [
        ("https://169.254.169.254", &[][..]),
        ("https://[::ffff:169.254.169.254]", &[]),
        ("https://[fd00:ec2::254]", &[]),
        ("https://2852039166", &[]),
        ("https://metadata.google.internal", &[("HTTPS_PROXY", proxy.as_str())]),
        ("https://169.254.169.254", &[("HTTPS_PROXY", proxy.as_str())]),
    ] {
        let outcome = key(address, variables).encrypt(b"x", b"").await;
        let Err(ExternalKeyError::Unavailable(error)) = outcome else { panic!("{address}") };
        assert!(error.cause.contains("link-local or that of a metadata service"), "{address}: {error}");
    }
}

#[tokio::test]
async fn keys_of_softhsm_encrypt_and_sign_as_their_public_keys_say() {
    let Some(token) = token() else { return };
    let library = HsmLibrary {
        path: LIBRARY.to_owned(),
        variables: Vec::new(),
        helper_program: Some(PathBuf::from(&token.helper)),
    };
    let of = |pin: &str| {
        let libraries = BTreeMap::from([("softhsm".to_owned(), library.clone())]);
        let config = [("lib", "softhsm"), ("token_label", "kf"), ("pin", pin)];
        connect("pkcs11", &config, libraries, &[("SOFTHSM2_CONF", token.configuration.as_str())])
    };
    let connection = of("1234");
    let key = |given: &[(&'static str, &str)]| connection.key(&parameters(given)).unwrap();
    encrypts(&*key(&[("label", "old")]), b"aad").await;
    encrypts(&*key(&[("id", "0x02")]), b"").await;
    // SoftHSM has OAEP with SHA-1 only.
    encrypts(&*key(&[("label", "rsa"), ("rsa_oaep_hash", "sha1")]), b"").await;
    signs(&*key(&[("label", "rsa")])).await;
    signs(&*key(&[("label", "ec"), ("id", "04")])).await;
    let longest = vec![7; 16 * 1024];
    let aes = key(&[("label", "old")]);
    let sealed = aes.encrypt(&longest, b"").await.unwrap();
    assert_eq!(aes.decrypt(&sealed, b"").await.unwrap().expose(), &longest);
    assert!(refusal(aes.encrypt(&[longest, vec![7]].concat(), b"").await).contains("at most 16 KiB"));
    // The same key of the HSM does not decrypt what a seal has wrapped.
    let helper = ("helper_program", token.helper.as_str());
    let keys = [("lib", LIBRARY), helper, ("token_label", "kf"), ("pin", "1234"), ("key_label", "old")];
    let seal = crate::seal("pkcs11", &keys, &[("SOFTHSM2_CONF", token.configuration.as_str())]);
    let wrapped = seal.wrap(&keepfast_crypto::random::key()).await.unwrap();
    let sealed = [wrapped.iv.as_deref().unwrap_or_default(), &wrapped.blob].concat();
    assert!(refusal(aes.decrypt(&sealed, b"").await).contains("did not create this ciphertext"));
    // An input that is too long for RSA is refused, and the session lives.
    let rsa = key(&[("label", "rsa"), ("rsa_oaep_hash", "sha1")]);
    let Key::Rsa(public) = Key::from_spki(&rsa.public_key().await.unwrap()).unwrap() else { panic!("another kind") };
    let modulus = public.bits() as usize / 8;
    encrypts_each(&*rsa, &[&vec![7; modulus - 42]], b"").await;
    assert!(refusal(rsa.encrypt(&vec![7; modulus - 41], b"").await).contains("too long"));
    let input = vec![7; modulus];
    let unhashed = Signing { prehashed: true, hash: SigningHash::None, pkcs1: true, ..signing(&input) };
    rsa.sign(&Signing { input: &input[11..], ..unhashed }).await.unwrap();
    assert!(refusal(rsa.sign(&Signing { input: &input[10..], ..unhashed }).await).contains("too long"));
    encrypts(&*aes, b"aad").await;
    assert_eq!(refusal(aes.sign(&signing(b"x")).await), "the external key does not support signing");
    assert_eq!(
        refusal(key(&[("label", "ec")]).encrypt(b"x", b"").await),
        "the external key does not support encryption"
    );
    assert_eq!(class(key(&[("label", "none")]).encrypt(b"x", b"").await), SealErrorClass::WrongKey);
    // Concurrent calls share one session.
    let calls = (0..20).map(|_| encrypts(&*aes, b"aad"));
    futures_util::future::join_all(calls).await;
    let denied = of("9999").key(&parameters(&[("label", "old")])).unwrap();
    assert_eq!(class(denied.encrypt(b"x", b"").await), SealErrorClass::Denied);
    assert_eq!(class(denied.encrypt(b"x", b"").await), SealErrorClass::Denied);
}

#[tokio::test]
async fn sec_wrong_pins_of_several_configs_do_not_lock_a_token() {
    let Some(token) = token() else { return };
    let library = HsmLibrary {
        path: LIBRARY.to_owned(),
        variables: Vec::new(),
        helper_program: Some(PathBuf::from(&token.helper)),
    };
    let of = |pin: &str, by: (&'static str, &str)| {
        let libraries = BTreeMap::from([("softhsm".to_owned(), library.clone())]);
        let config = [("lib", "softhsm"), by, ("pin", pin)];
        let variables = [("SOFTHSM2_CONF", token.configuration.as_str())];
        connect("pkcs11", &config, libraries, &variables).key(&parameters(&[("label", "old")])).unwrap()
    };
    let by_label = ("token_label", "kf");
    let (slot, serial) = (token.slot(), token.serial());
    let valid = of("1234", by_label);
    let cause = async |key: Arc<dyn ExternalKey>| match key.encrypt(b"x", b"").await {
        Err(ExternalKeyError::Unavailable(error)) => error.cause,
        _ => panic!("the PIN is not refused"),
    };
    assert!(cause(of("0001", by_label)).await.contains("PinIncorrect"));
    assert!(cause(of("0001", ("slot", slot.as_str()))).await.contains("has refused this PIN"), "by another setting");
    assert!(cause(of("0002", ("serial", serial.as_str()))).await.contains("PinIncorrect"));
    for pin in ["0003", "0004"] {
        assert!(cause(of(pin, by_label)).await.contains("so that the token is not locked"), "{pin}");
    }
    assert!(cause(valid).await.contains("so that the token is not locked"), "no PIN is known to be valid");
    // The seal of the server logs in, and the token counts again.
    let keys =
        [("lib", LIBRARY), ("helper_program", token.helper.as_str()), by_label, ("pin", "1234"), ("key_label", "old")];
    let seal = crate::seal("pkcs11", &keys, &[("SOFTHSM2_CONF", token.configuration.as_str())]);
    seal.wrap(&keepfast_crypto::random::key()).await.unwrap();
    of("1234", by_label).encrypt(b"x", b"").await.map_err(|_| "refused").unwrap();
}

#[tokio::test]
async fn keys_of_an_emulator_of_aws_encrypt_and_sign_a_digest() {
    let Some(moto) = moto_with(&["RSA_2048", "ECC_NIST_P256"]).await else { return };
    let of = |secret: &str| {
        let config = [
            ("endpoint", moto.url.as_str()),
            ("region", "us-east-1"),
            ("access_key", &moto.access_key),
            ("secret_key", secret),
        ];
        connect("awskms", &config, BTreeMap::new(), &[("AWS_SECRET_ACCESS_KEY", "of the server")])
    };
    let connection = of(&moto.secret_key);
    let key = |id: &str| connection.key(&parameters(&[("kms_key_id", id)])).unwrap();
    encrypts_each(&*key(&moto.key_id), &[b"hello"], b"").await;
    assert!(refusal(key(&moto.key_id).encrypt(b"", b"").await).contains("KMS refused the input"));
    signs_hashed(&*key(&moto.keys[0]), true).await;
    signs_hashed(&*key(&moto.keys[1]), true).await;
    assert!(refusal(key(&moto.key_id).encrypt(b"x", b"aad").await).contains("associated data"));
    assert_eq!(refusal(key(&moto.key_id).sign(&signing(b"x")).await), "the external key does not support signing");
    assert_eq!(refusal(key(&moto.keys[1]).encrypt(b"x", b"").await), "the external key does not support encryption");
    assert_eq!(class(key("alias/none").encrypt(b"x", b"").await), SealErrorClass::WrongKey);
    let denied = of("wrong").key(&parameters(&[("kms_key_id", &moto.key_id)])).unwrap();
    assert_eq!(class(denied.encrypt(b"x", b"").await), SealErrorClass::Denied);
}

#[tokio::test]
async fn sec_a_ring_of_external_keys_ends_with_a_refusal() {
    let Some(server) = keepfast().await else { return };
    let url = server.url.as_str();
    let config = json!({ "plugin": "transit", "address": url, "token": "root", "mount_path": "seal/" });
    done("POST", url, "sys/external-keys/configs/ring", config).await;
    done("POST", url, "sys/external-keys/configs/ring/keys/k", json!({ "name": "ring", "version": 1 })).await;
    done("POST", url, "sys/external-keys/configs/ring/keys/k/grants/seal", json!({})).await;
    // A key needs one that exists, and becomes part of the ring after it.
    done("POST", url, "seal/keys/first", json!({})).await;
    done("POST", url, "sys/external-keys/configs/ring/keys/k", json!({ "name": "first", "version": 1 })).await;
    done("POST", url, "seal/keys/ring", json!({ "type": "external-key", "external_key_ref": "ring:k" })).await;
    let encrypt = async || crate::transit::api("POST", url, "seal/encrypt/ring", json!({ "plaintext": "eA==" })).await;
    assert_eq!(encrypt().await.0, 200);
    done("POST", url, "sys/external-keys/configs/ring/keys/k", json!({ "name": "ring", "version": 1 })).await;
    let started = std::time::Instant::now();
    let (status, body) = encrypt().await;
    assert!(matches!(status, 400 | 503), "{status} {body}");
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "no call waits for its timeout: {body}");
}
