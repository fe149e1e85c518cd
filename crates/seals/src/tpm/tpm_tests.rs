//! The seal with `swtpm`, directly and through an interposer that reads and changes what is sent.

use std::ops::Deref;

use keepfast_crypto::random;
use keepfast_framework::seal::SealErrorClass;

use super::swtpm::{Interposer, Swtpm};
use super::wire::Command;
use super::*;
use crate::suite::{build, build_within, seal_suite};

/// A seal with the TPM that it uses.
struct OnSwtpm {
    tpm: Swtpm,
    seal: Arc<dyn Seal>,
}

impl Deref for OnSwtpm {
    type Target = dyn Seal;

    fn deref(&self) -> &Self::Target {
        &*self.seal
    }
}

fn seal_at(path: &std::path::Path, keys: &[(&str, &str)]) -> Arc<dyn Seal> {
    let path = path.display().to_string();
    let mut all = vec![("device", path.as_str())];
    all.extend(keys);
    build("tpm", &all, &[]).unwrap()
}

fn on_swtpm(keys: &[(&str, &str)]) -> Option<OnSwtpm> {
    let tpm = Swtpm::start()?;
    Some(OnSwtpm { seal: seal_at(&tpm.path(), keys), tpm })
}

async fn error_of(seal: &dyn Seal, wrapped: &WrappedKey) -> SealError {
    let error = seal.unwrap(wrapped).await.err().unwrap();
    assert!(!error.to_string().contains("hidden"), "{error}");
    error
}

const PCRS: (&str, &str) = ("pcrs", "0, 7,16");
const AUTH: (&str, &str) = ("auth", "hidden-auth-83125");

seal_suite!(primary, installed async || on_swtpm(&[]), async || on_swtpm(&[]));
seal_suite!(with_policy, installed async || on_swtpm(&[PCRS, AUTH]), async || on_swtpm(&[PCRS, AUTH]));
seal_suite!(persistent_rsa, installed async || persistent(), async || persistent());

/// A seal below a persistent RSA key with an authorization value.
fn persistent() -> Option<OnSwtpm> {
    let on = on_swtpm(&[("key_handle", "0x81000005"), ("key_auth", "hidden-key"), AUTH])?;
    on.tpm.persist_rsa_key(0x8100_0005, b"hidden-key");
    Some(on)
}

#[tokio::test]
async fn a_key_unwraps_after_the_tpm_was_switched_off() {
    let Some(mut on) = on_swtpm(&[PCRS]) else { return };
    let key = random::key();
    let wrapped = on.wrap(&key).await.unwrap();
    on.tpm.restart();
    let again = seal_at(&on.tpm.path(), &[PCRS]);
    for seal in [&on.seal, &again] {
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    }
}

#[tokio::test]
async fn changed_pcrs_are_refused_and_other_seals_still_open() {
    let Some(on) = on_swtpm(&[PCRS]) else { return };
    let (key, without) = (random::key(), seal_at(&on.tpm.path(), &[]));
    let (bound, free) = (on.wrap(&key).await.unwrap(), without.wrap(&key).await.unwrap());
    let before = on.current_key().await.unwrap().unwrap();
    assert_eq!(before, bound.key_id);
    on.tpm.extend(8);
    assert!(on.unwrap(&bound).await.is_ok(), "PCR 8 is not in the policy");
    on.tpm.extend(7);
    let error = error_of(&*on, &bound).await;
    assert!(error.class == SealErrorClass::Denied && error.cause.contains("PCRs 0,7,16"), "{error}");
    assert!(without.unwrap(&free).await.is_ok());
    assert!(!on.is_configured_key(&before).await.unwrap());
    // Wrapped again, it follows.
    let again = on.wrap(&key).await.unwrap();
    assert_ne!(again.key_id, before);
    assert_eq!(on.unwrap(&again).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn a_key_keeps_the_policy_with_which_it_was_wrapped() {
    let Some(on) = on_swtpm(&[PCRS]) else { return };
    let (free, bound) = (seal_at(&on.tpm.path(), &[]), on.wrap(&random::key()).await.unwrap());
    assert!(on.unwrap(&free.wrap(&random::key()).await.unwrap()).await.is_ok());
    assert!(free.unwrap(&bound).await.is_ok());
    assert!(!free.is_configured_key(&bound.key_id).await.unwrap(), "the stanza has changed");
    on.tpm.extend(16);
    assert_eq!(error_of(&*free, &bound).await.class, SealErrorClass::Denied);
}

#[tokio::test]
async fn a_cleared_or_replaced_tpm_is_another_key() {
    let Some((on, other)) = on_swtpm(&[]).zip(Swtpm::start()) else { return };
    let interposer = Interposer::before(&on.tpm);
    let seal = seal_at(&interposer.path(), &[]);
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    interposer.replace(&other);
    assert_eq!(error_of(&*seal, &wrapped).await.class, SealErrorClass::WrongKey);
    // No key is wrapped for it, either, until the server starts again.
    let error = seal.wrap(&random::key()).await.err().unwrap();
    assert!(error.class == SealErrorClass::WrongKey && error.cause.contains("than before"), "{error}");
    assert!(seal_at(&interposer.path(), &[]).wrap(&random::key()).await.is_ok());

    interposer.replace(&on.tpm);
    assert!(seal.unwrap(&wrapped).await.is_ok());
    on.tpm.clear();
    let error = error_of(&*seal_at(&on.tpm.path(), &[]), &wrapped).await;
    assert!(error.class == SealErrorClass::WrongKey && error.cause.contains("cleared"), "{error}");
}

#[tokio::test]
async fn a_persistent_key_that_is_missing_is_a_wrong_key() {
    let Some(on) = persistent() else { return };
    let wrapped = on.wrap(&random::key()).await.unwrap();
    on.tpm.clear();
    let error = error_of(&*on, &wrapped).await;
    assert!(error.class == SealErrorClass::WrongKey && error.cause.contains("0x81000005"), "{error}");
    assert_eq!(on.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::WrongKey);
}

#[tokio::test]
async fn a_key_below_another_parent_unwraps_and_is_not_current() {
    let Some(on) = on_swtpm(&[]) else { return };
    on.tpm.persist_rsa_key(0x8100_0001, b"hidden-key");
    let keys = [("key_handle", "0x81000001"), ("key_auth", "hidden-key")];
    let (key, new) = (random::key(), seal_at(&on.tpm.path(), &keys));
    let wrapped = on.wrap(&key).await.unwrap();
    assert_eq!(new.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    assert!(!new.is_configured_key(&wrapped.key_id).await.unwrap());
}

#[tokio::test]
async fn only_the_key_of_key_name_is_used() {
    let Some(on) = on_swtpm(&[]) else { return };
    let wrapped = on.wrap(&random::key()).await.unwrap();
    let named = seal_at(&on.tpm.path(), &[("key_name", wrapped.key_id.as_str())]);
    assert!(named.unwrap(&named.wrap(&random::key()).await.unwrap()).await.is_ok());
    let interposer = Interposer::before(&on.tpm);
    let other = seal_at(&interposer.path(), &[("key_name", &format!("000b{}", "ab".repeat(32)))]);
    let error = other.wrap(&random::key()).await.err().unwrap();
    assert!(error.class == SealErrorClass::WrongKey && error.cause.contains("key_name"), "{error}");
    assert!(!interposer.commands().contains(&Command::Create.code()));
}

#[tokio::test]
async fn a_refused_authorization_is_counted_once_and_not_tried_again() {
    let Some(on) = on_swtpm(&[AUTH]) else { return };
    on.tpm.set_max_tries(2);
    let wrapped = on.wrap(&random::key()).await.unwrap();
    let wrong = seal_at(&on.tpm.path(), &[("auth", "hidden-other")]);
    assert!(wrong.counts_attempts());
    for _ in 0..5 {
        assert_eq!(error_of(&*wrong, &wrapped).await.class, SealErrorClass::Denied);
        assert_eq!(on.tpm.refusals(), 1);
    }
    assert!(error_of(&*wrong, &wrapped).await.cause.contains("not tried again"));
    let unset = error_of(&*seal_at(&on.tpm.path(), &[]), &wrapped).await;
    assert!(unset.class == SealErrorClass::Misconfigured && unset.cause.contains("auth is not set"), "{unset}");
    assert!(on.unwrap(&wrapped).await.is_ok(), "one refusal of two");

    // The next one locks: the right value is refused, and a key without a value still unwraps.
    let free = seal_at(&on.tpm.path(), &[]);
    assert!(!free.counts_attempts());
    let without = free.wrap(&random::key()).await.unwrap();
    let again = seal_at(&on.tpm.path(), &[("auth", "hidden-other")]);
    assert_eq!(error_of(&*again, &wrapped).await.class, SealErrorClass::Denied);
    let locked = error_of(&*on, &wrapped).await;
    assert!(locked.class == SealErrorClass::Denied && locked.cause.contains("lockout"), "{locked}");
    assert!(free.unwrap(&without).await.is_ok());
}

#[tokio::test]
async fn the_owner_hierarchy_may_have_an_authorization_value() {
    let Some(on) = on_swtpm(&[]) else { return };
    on.tpm.set_owner_auth(b"hidden-owner");
    let refused = on.wrap(&random::key()).await.err().unwrap();
    assert_eq!(refused.class, SealErrorClass::Denied, "{refused}");
    let interposer = Interposer::before(&on.tpm);
    let seal = seal_at(&interposer.path(), &[("key_auth", "hidden-owner")]);
    assert!(seal.unwrap(&seal.wrap(&random::key()).await.unwrap()).await.is_ok());
    assert!(!interposer.has_seen(b"hidden-owner"));
}

#[tokio::test]
async fn sec_an_interposer_reads_neither_keys_nor_authorizations() {
    let Some(on) = persistent() else { return };
    let interposer = Interposer::before(&on.tpm);
    let keys = [("key_handle", "0x81000005"), ("key_auth", "hidden-key"), AUTH];
    for keys in [&[][..], &[PCRS], &[AUTH], &[PCRS, AUTH], &keys] {
        let (key, seal) = (random::key(), seal_at(&interposer.path(), keys));
        let wrapped = seal.wrap(&key).await.unwrap();
        assert!(interposer.has_seen(&wrapped.blob[wrapped.blob.len() - 32..]), "the interposer reads");
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
        for part in [&key.expose()[..8], &key.expose()[24..], b"hidden"] {
            assert!(!interposer.has_seen(part));
        }
    }
}

#[tokio::test]
async fn sec_a_changed_response_is_refused() {
    let Some(on) = on_swtpm(&[PCRS]) else { return };
    let interposer = Interposer::before(&on.tpm);
    let seal = seal_at(&interposer.path(), &[PCRS]);
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    for command in [Command::Create, Command::PcrRead, Command::Load, Command::Unseal] {
        // After the size of the parameters, to the end of the shortest.
        for at in (18..117).step_by(5) {
            interposer.change(move |code, mut response| {
                if code == command.code() {
                    response[at] ^= 1;
                }
                Some(response)
            });
            let error = match command {
                Command::Create | Command::PcrRead => seal.wrap(&random::key()).await.err(),
                _ => seal.unwrap(&wrapped).await.err(),
            };
            assert_eq!(error.unwrap().class, SealErrorClass::Unreachable, "{command:?} {at}");
        }
    }
    interposer.change(|_, response| Some(response));
    assert!(seal.unwrap(&wrapped).await.is_ok());
}

#[tokio::test]
async fn responses_of_a_wrong_length_are_refused() {
    let Some(mut on) = on_swtpm(&[]) else { return };
    let interposer = Interposer::before(&on.tpm);
    let seal = seal_at(&interposer.path(), &[]);
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    let damages: Vec<fn(Vec<u8>) -> Vec<u8>> = vec![
        // The header alone, and every field cut.
        |response| [&response[..2], &10_u32.to_be_bytes()[..], &response[6..10]].concat(),
        |response| [&response[..2], &20_u32.to_be_bytes()[..], &response[6..20]].concat(),
        |response| {
            let end = response.len() - 1;
            [&response[..2], &u32::try_from(end).unwrap().to_be_bytes()[..], &response[6..end]].concat()
        },
        // More than the size says.
        |response| [&response[..], &[0]].concat(),
        // More than the size says, and the size with it.
        |response| {
            let size = u32::try_from(response.len() + 3).unwrap();
            [&response[..2], &size.to_be_bytes()[..], &response[6..], &[0; 3]].concat()
        },
        |response| [&response[..2], &u32::MAX.to_be_bytes()[..], &response[6..]].concat(),
        |response| [&response[..2], &4097_u32.to_be_bytes()[..], &response[6..], &[0; 4096]].concat(),
        |response| [&response[..2], &9_u32.to_be_bytes()[..], &response[6..]].concat(),
        |response| [&[0x12, 0x34][..], &response[2..]].concat(),
        // The length of the first parameter exceeds the response.
        |mut response| {
            let at = response.len().min(15);
            response[at - 1] = 0xff;
            response
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        for command in [Command::CreatePrimary, Command::StartAuthSession, Command::Load, Command::Unseal] {
            interposer
                .change(move |code, response| Some(if code == command.code() { damage(response) } else { response }));
            let error = seal.unwrap(&wrapped).await.err().unwrap_or_else(|| panic!("{number} {command:?}"));
            assert_eq!(error.class, SealErrorClass::Unreachable, "{number} {command:?}: {error}");
            assert!(interposer.commands().contains(&command.code()));
            // `swtpm` keeps what it had loaded before such a response.
            on.tpm.restart();
        }
    }
    interposer.change(|_, response| Some(response));
    assert!(seal.unwrap(&wrapped).await.is_ok());
}

#[tokio::test]
async fn a_tpm_that_hangs_fails_the_call_after_the_timeout() {
    let Some(on) = on_swtpm(&[]) else { return };
    let interposer = Interposer::before(&on.tpm);
    let path = interposer.path().display().to_string();
    let seal = build_within(Duration::from_millis(500), "tpm", &[("device", &path)], &[]).unwrap();
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    interposer.change(|_, _| None);
    for _ in 0..2 {
        assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::Unreachable);
    }
    interposer.change(|_, response| Some(response));
    let recovered = async {
        while let Err(error) = seal.unwrap(&wrapped).await {
            assert_eq!(error.class, SealErrorClass::Unreachable, "{error}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.unwrap();
}

#[tokio::test]
async fn nothing_stays_loaded_after_a_call() {
    let Some(on) = on_swtpm(&[PCRS, AUTH]) else { return };
    let wrapped = on.wrap(&random::key()).await.unwrap();
    on.unwrap(&wrapped).await.unwrap();
    on.current_key().await.unwrap();
    assert_eq!(on.tpm.loaded(), 0);
    assert!(seal_at(&on.tpm.path(), &[("auth", "hidden-other")]).unwrap(&wrapped).await.is_err());
    assert_eq!(on.tpm.loaded(), 0);
    on.tpm.extend(7);
    assert!(on.unwrap(&wrapped).await.is_err());
    assert_eq!(on.tpm.loaded(), 0);
}

#[tokio::test]
async fn a_device_that_is_missing_or_no_tpm_is_an_error_of_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (path, class) in [
        (directory.path().join("none"), SealErrorClass::Unreachable),
        (file, SealErrorClass::Misconfigured),
        (directory.path().to_owned(), SealErrorClass::Misconfigured),
        // It reads as the end of a file.
        ("/dev/null".into(), SealErrorClass::Unreachable),
        // Its responses have no valid size.
        ("/dev/zero".into(), SealErrorClass::Unreachable),
    ] {
        let error = seal_at(&path, &[]).wrap(&random::key()).await.err().unwrap();
        assert_eq!(error.class, class, "{}: {error}", path.display());
    }
}

#[test]
fn the_stanza_is_checked() {
    let (long, sha1) = ("x".repeat(33), format!("0004{}", "ab".repeat(32)));
    for (key, value) in [
        ("key_handle", "7"),
        ("key_handle", "0x40000001"),
        ("key_handle", "0x181000001"),
        ("key_name", "000b12"),
        ("key_name", sha1.as_str()),
        ("pcrs", "24"),
        ("pcrs", "0,1,2,3,4,5,6,7,8"),
        ("auth", long.as_str()),
        ("key_auth", long.as_str()),
        ("auth", "\0"),
        ("auth", "env://NONE"),
    ] {
        let error = build("tpm", &[(key, value)], &[]).err().unwrap().to_string();
        assert!(error.contains(key) && !error.contains(&long), "{error}");
    }
    let default = build("tpm", &[], &[]).unwrap();
    assert_eq!(default.description(), [("device", DEVICE.to_owned())]);
    let variables = [("VAULT_TPM_SEAL_DEVICE", "/d"), ("VAULT_TPM_SEAL_PCRS", "7"), ("VAULT_TPM_SEAL_AUTH", "hidden")];
    let shown = format!("{:?}", build("tpm", &[("key_handle", "0x81000001")], &variables).unwrap().description());
    assert!(shown.contains("/d") && shown.contains("0x81000001") && !shown.contains("hidden"), "{shown}");
}
