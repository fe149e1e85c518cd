//! The seal with programs that are missing, end, hang or send garbage. `tests/it/pkcs11.rs` has an HSM in software.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::suite::{build, build_within};

/// A program of this text for the shell.
fn script(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("helper");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = path.display().to_string();
    (directory, path)
}

fn keys(program: &str) -> Vec<(&str, &str)> {
    vec![("lib", "/none.so"), ("pin", "hidden"), ("key_label", "k"), ("helper_program", program)]
}

#[tokio::test]
async fn a_program_that_fails_is_an_error_of_the_call_only() {
    let frame = |text: &str| format!("printf '\\000\\000\\000\\{:03o}%s' '{text}'; exec /bin/sleep 100", text.len());
    for (text, class) in [
        ("exit 3".to_owned(), SealErrorClass::Crashed),
        ("exec /bin/sleep 100".to_owned(), SealErrorClass::Unreachable),
        ("printf 'garbage that is no frame'; exec /bin/sleep 100".to_owned(), SealErrorClass::Crashed),
        (frame("not json"), SealErrorClass::Crashed),
        (frame(r#"{"failed":{"class":"misconfigured","cause":"c"}}"#), SealErrorClass::Misconfigured),
        (frame(r#"{"failed":{"class":"pin_refused","cause":"c"}}"#), SealErrorClass::Denied),
    ] {
        let (_directory, path) = script(&text);
        let seal = build_within(Duration::from_millis(300), "pkcs11", &keys(&path), &[]).unwrap();
        let error = seal.wrap(&Key256::zeroed()).await.err().unwrap();
        assert_eq!(error.class, class, "{text}: {error}");
        assert!(!error.to_string().contains("hidden"), "{error}");
        // The next call waits, or the PIN is not tried again.
        let next = seal.wrap(&Key256::zeroed()).await.err().unwrap();
        assert!(matches!(next.class, SealErrorClass::Crashed | SealErrorClass::Denied), "{text}: {next}");
    }
    let missing = build("pkcs11", &keys("/none/helper"), &[]).unwrap();
    assert_eq!(missing.wrap(&Key256::zeroed()).await.err().unwrap().class, SealErrorClass::Misconfigured);
}

#[tokio::test]
async fn the_program_gets_the_variables_of_libraries_only() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    let (_directory, path) = script(&format!("/usr/bin/env > {}", list.display()));
    let mut keys = keys(&path);
    keys.push(("library_variables", "OTHER, MISSING"));
    let variables = [("SOFTHSM2_CONF", "/c"), ("OTHER", "o"), ("HIDDEN", "h"), ("VAULT_HSM_PIN", "hidden")];
    let seal = build("pkcs11", &keys, &variables).unwrap();
    let _ = seal.wrap(&Key256::zeroed()).await;
    let seen = std::fs::read_to_string(list).unwrap();
    let names: Vec<&str> = seen.lines().map(|line| line.split('=').next().unwrap()).collect();
    let own = ["PWD", "SHLVL", "_", "OLDPWD"];
    let passed: Vec<&str> = names.into_iter().filter(|name| !own.contains(name)).collect();
    assert!(passed.len() == 2 && passed.contains(&"SOFTHSM2_CONF") && passed.contains(&"OTHER"), "{passed:?}");
}

#[test]
fn the_stanza_needs_library_pin_and_key() {
    for (change, cause) in [
        (("lib", ""), "lib, the path"),
        (("pin", ""), "pin is required"),
        (("key_label", ""), "key_label or key_id"),
        (("slot", "first"), "slot must be"),
        (("key_id", "xyz"), "key_id must be hex"),
        (("mechanism", "0x1085"), "mechanism must be"),
    ] {
        let mut keys = keys("/none");
        keys.retain(|(key, _)| *key != change.0);
        keys.push(change);
        let error = build("pkcs11", &keys, &[]).err().unwrap().to_string();
        assert!(error.contains(cause) && !error.contains("hidden"), "{error}");
    }
    let mut oaep = keys("/none");
    oaep.extend([("mechanism", "9"), ("rsa_oaep_hash", "md5")]);
    assert!(build("pkcs11", &oaep, &[]).err().unwrap().to_string().contains("rsa_oaep_hash"));
}

#[test]
fn frames_are_bounded() {
    assert!(protocol::read_frame(&mut &[0, 0, 16, 1, 0][..]).is_err());
    assert!(protocol::read_frame(&mut &[0xff; 8][..]).is_err());
    assert!(protocol::read_frame(&mut &[0, 0, 0, 2, 1][..]).is_err());
    assert_eq!(protocol::read_frame(&mut &[0, 0, 0, 2, 1, 2, 3][..]).unwrap(), [1, 2]);
    assert!(protocol::write_frame(&mut Vec::new(), &[0; 4097]).is_err());
}
