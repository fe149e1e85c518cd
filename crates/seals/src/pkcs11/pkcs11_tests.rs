//! The seal with programs that are missing, end, hang or send garbage. `tests/it/pkcs11.rs` has an HSM in software.

use std::os::unix::fs::PermissionsExt;

use keepfast_framework::clock::TestClock;
use tokio::sync::MutexGuard;

use super::*;
use crate::SealStanza;
use crate::stanza::tests::{Variables, options};
use crate::suite::{build, build_within};

/// A program of a test in a directory of its own. One exists at a time: a file that a process which is starting has open for
/// writing cannot be executed.
struct Script(tempfile::TempDir, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

static SCRIPTS: Mutex<()> = Mutex::const_new(());

/// A program of this text for the shell, and its path.
async fn script(text: &str) -> (Script, String) {
    let script = Script(tempfile::tempdir().unwrap(), SCRIPTS.lock().await);
    let path = script.0.path().join("helper");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = path.display().to_string();
    (script, path)
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
        let (_directory, path) = script(&text).await;
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

/// A seal with this program and a clock.
fn with_clock(program: &str, timeout: Duration) -> (Pkcs11, TestClock) {
    let (options, time) = (options(&keys(program)), TestClock::default());
    let clock: Arc<dyn Clock> = Arc::new(time.clone());
    let stanza = SealStanza { timeout, ..SealStanza::new("pkcs11", "s", &options) };
    (read(&Stanza::new(&stanza, KEYS, &Variables::default(), &clock)).unwrap(), time)
}

/// Calls the seal until this holds, then drops the call; the class where it fails before.
async fn call_until(seal: &Pkcs11, holds: impl Fn() -> bool) -> Option<SealErrorClass> {
    let key = Key256::zeroed();
    let mut call = std::pin::pin!(seal.wrap(&key));
    while !holds() {
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(1), &mut call).await {
            return outcome.err().map(|error| error.class);
        }
    }
    None
}

#[tokio::test]
async fn the_status_of_a_program_that_ends_is_in_the_cause() {
    for (text, cause) in [("exit 3", "keepfast-pkcs11 ended with status 3"), ("kill -SEGV $$", "ended by signal 11")] {
        let (_directory, path) = script(text).await;
        let error = with_clock(&path, Duration::from_secs(5)).0.wrap(&Key256::zeroed()).await.err().unwrap();
        assert!(error.class == SealErrorClass::Crashed && error.cause.ends_with(cause), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_counts_as_a_failure() {
    let (directory, path) = script("echo x >> \"${0%/*}/starts\"; exec /bin/sleep 100").await;
    let (seal, time) = with_clock(&path, Duration::from_secs(60));
    let starts = || std::fs::read_to_string(directory.0.path().join("starts")).unwrap_or_default().lines().count();
    let call = async || {
        let before = starts();
        call_until(&seal, || starts() > before).await
    };
    assert_eq!(call().await, None);
    assert_eq!(call().await, Some(SealErrorClass::Crashed), "the next start waits");
    time.advance(Duration::from_secs(2));
    assert_eq!(call().await, None);
    time.advance(Duration::from_secs(599));
    assert_eq!(call().await, Some(SealErrorClass::Crashed), "two logins without a response");
    time.advance(Duration::from_secs(2));
    while seal.threads.are_full() {
        tokio::task::yield_now().await;
    }
    assert_eq!(call().await, None);
    assert_eq!(starts(), 3);
}

#[tokio::test]
async fn the_processes_that_a_program_started_end_with_it() {
    let (directory, path) = script("/bin/sleep 100 & echo \"$! \" > \"${0%/*}/child\"; wait").await;
    let (seal, _) = with_clock(&path, Duration::from_secs(60));
    let child = || std::fs::read_to_string(directory.0.path().join("child")).unwrap_or_default();
    assert_eq!(call_until(&seal, || child().ends_with('\n')).await, None);
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child().trim())).unwrap_or_default();
    // A zombie has ended, too.
    while !(state().is_empty() || state().contains(") Z ")) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn threads_that_do_not_end_are_few() {
    let threads = Threads::default();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    for _ in 0..4 {
        assert!(!threads.are_full());
        let held = held.clone();
        threads.spawn_for_test(move || assert!(held.lock().unwrap().recv().is_err()));
    }
    assert!(threads.are_full());
    drop(hold);
    while threads.are_full() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn the_program_gets_the_variables_of_libraries_only() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    let (_directory, path) = script(&format!("/usr/bin/env > {}", list.display())).await;
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
    assert!(protocol::read_frame(&mut &[0, 1, 0, 1, 0][..]).is_err());
    assert!(protocol::read_frame(&mut &[0xff; 8][..]).is_err());
    assert!(protocol::read_frame(&mut &[0, 0, 0, 2, 1][..]).is_err());
    assert_eq!(protocol::read_frame(&mut &[0, 0, 0, 2, 1, 2, 3][..]).unwrap(), [1, 2]);
    assert!(protocol::write_frame(&mut Vec::new(), &[0; protocol::MAX_FRAME + 1]).is_err());
}
