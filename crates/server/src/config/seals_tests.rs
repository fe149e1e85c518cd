//! `seal` stanzas in the forms of Vault and OpenBao.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::config::{Config, load};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn static_seal(more: &str) -> String {
    format!("seal \"static\" {{\n current_key = \"{KEY}\"\n current_key_id = \"1\"\n {more}\n}}\n")
}

/// Reads a configuration with this text; returns the seals and the warnings.
fn seals(text: &str, environment: &[(&str, &str)]) -> Result<(Vec<SealSettings>, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.hcl");
    std::fs::write(&file, format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = 1 }}\n{text}")).unwrap();
    let (config, warnings) = load(&[file], &Environment::of(environment)).map_err(|error| error.to_string())?;
    Ok((config.seals, warnings.iter().map(|warning| warning.message.clone()).collect()))
}

fn names(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    seals(text, environment).unwrap().0.iter().map(|seal| format!("{} {}", seal.seal.kind(), seal.name)).collect()
}

#[test]
fn several_seals_are_read_with_their_general_keys() {
    let text = static_seal(
        "name = \"b\"\n priority = \"2\"\n enroll = \"manual\"\n timeout = \"3s\"\n health_check_interval = \"20m\"\n \
         health_check_interval_unhealthy = \"2m\"\n health_check_timeout = 30\n health_check_enabled = \"false\"",
    ) + &static_seal("name = \"c\"\n disabled = \"true\"")
        + &static_seal("name = \"a\"");
    assert_eq!(names(&text, &[]), ["static c", "static a", "static b"]);
    let (seals, warnings) = seals(&text, &[]).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(seals.iter().map(|seal| seal.disabled).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((seals[1].timing, seals[1].enroll_manually), (SealTiming::default(), false));
    let timing = seals[2].timing;
    let seconds = [timing.timeout, timing.health_check_interval, timing.health_check_interval_unhealthy];
    assert_eq!(seconds.map(|time| time.as_secs()), [3, 1200, 120]);
    assert_eq!((timing.health_check_timeout.as_secs(), timing.health_check_enabled), (30, false));
    assert!(seals[2].enroll_manually && seals[2].priority == 2);
    let configured = seals[2].configured();
    assert_eq!((configured.name.as_str(), configured.priority, configured.timing), ("b", 2, timing));
}

#[test]
fn no_seal_and_shamir_need_no_stanza() {
    for text in
        ["", "seal \"shamir\" {}", "seal \"Shamir\" { disabled = \"true\" }", "seal \"oldkms\" { disabled = true }"]
    {
        assert!(seals(text, &[]).unwrap().0.is_empty(), "{text}");
    }
    let migrated = static_seal("") + "seal \"shamir\" { disabled = \"true\" }\n";
    assert_eq!(names(&migrated, &[]), ["static static"]);
}

#[test]
fn an_invalid_seal_is_refused_at_its_place() {
    for (text, cause) in [
        ("seal \"statik\" {}", "did you mean \"static\"?"),
        ("seal \"static\" {}", "c.hcl: At 3:1: seal \"static\": current_key and current_key_id are required"),
        (&static_seal("priority = 0"), "priority must be"),
        (&static_seal("priority = 70000"), "priority must be"),
        (&static_seal("enroll = \"never\""), "enroll must be"),
        (&static_seal("timeout = 0"), "timeout must be at least 1s and at most 60s"),
        (&static_seal("health_check_interval = \"0s\""), "health_check_interval must be at least 1s"),
        (&static_seal("name = \"a b\""), "the name of a seal"),
        (&static_seal("current_key_id = \"2\""), "current_key_id is set twice"),
        (&(static_seal("") + &static_seal("")), "two seals are named \"static\""),
        (&(static_seal("") + "seal \"shamir\" {}"), "seal \"shamir\" is enabled beside another seal"),
    ] {
        let error = seals(text, &[]).unwrap_err();
        assert!(error.contains(cause) && !error.contains(KEY), "{text}: {error}");
    }
}

#[test]
fn there_are_at_most_sixteen_seals() {
    let text = |count: usize| (0..count).map(|n| static_seal(&format!("name = \"s{n}\""))).collect::<String>();
    assert_eq!(seals(&text(16), &[]).unwrap().0.len(), 16);
    assert_eq!(seals(&text(17), &[]).unwrap_err(), "more than 16 seals");
    let two = Config { seals: seals(&text(2), &[]).unwrap().0, ..Config::default() };
    assert_eq!(format!("{:?}", two.seal_set().unwrap()), r#"["s0", "s1"]"#);
}

#[test]
fn unknown_keys_of_a_seal_are_warnings() {
    let (_, warnings) = seals(&static_seal("curent_key = \"x\""), &[]).unwrap();
    assert_eq!(warnings, ["seal \"static\": unknown key curent_key has no effect"]);
}

#[test]
fn the_environment_is_a_stanza() {
    let key = [("BAO_STATIC_SEAL_CURRENT_KEY", KEY), ("BAO_STATIC_SEAL_CURRENT_KEY_ID", "e")];
    let with = |kind| [("VAULT_SEAL_TYPE", kind), key[0], key[1]];
    assert_eq!(names("", &with("static")), ["static static"]);
    assert_eq!(seals("", &with("static")).unwrap().0[0].source, "the environment");
    assert_eq!(names("", &with("shamir")), [""; 0]);
    // It belongs to the stanza of its type, and conflicts with another one.
    assert_eq!(names(&static_seal(""), &with("static")), ["static static"]);
    let error = seals(&static_seal(""), &with("transit")).unwrap_err();
    assert!(error.contains("VAULT_SEAL_TYPE is \"transit\", and the configuration has seal \"static\""), "{error}");
    let error = seals("", &with("none")).unwrap_err();
    assert!(error.contains("seal \"none\" is not supported"), "{error}");
}

#[test]
fn the_name_of_the_seal_of_the_environment_depends_on_no_stanza() {
    let key = [("BAO_STATIC_SEAL_CURRENT_KEY", KEY), ("BAO_STATIC_SEAL_CURRENT_KEY_ID", "e")];
    let of_kind = [("VAULT_SEAL_TYPE", "static"), key[0], key[1]];
    let named = [("VAULT_SEAL_TYPE", "static"), ("BAO_SEAL_NAME", "new"), key[0], key[1]];
    // During a migration from the file to the environment, and after it.
    let disabled = static_seal("disabled = true");
    assert_eq!(names(&disabled, &named), ["static static", "static new"]);
    assert_eq!(names("", &named), ["static new"]);
    assert_eq!(names(&static_seal("name = \"old\"\n disabled = true"), &of_kind), ["static old", "static static"]);
    let error = seals(&disabled, &of_kind).unwrap_err();
    assert_eq!(error, "VAULT_SEAL_TYPE: a stanza is named \"static\"; set VAULT_SEAL_NAME, and keep it");
    let error = seals("", &[("VAULT_SEAL_TYPE", "static"), ("VAULT_SEAL_NAME", "a b"), key[0], key[1]]).unwrap_err();
    assert!(error.contains("the name of a seal"), "{error}");
}

#[test]
fn two_seals_of_one_type_share_no_variables() {
    let both = |one: &str, other: &str| {
        static_seal(&format!("name = \"{one}\"")) + &static_seal(&format!("name = \"{other}\""))
    };
    for (one, other) in [("a-b", "a.b"), ("a_b", "a-b"), ("a.b", "a_b")] {
        let error = seals(&both(one, other), &[]).unwrap_err();
        assert!(error.contains("have the same suffix of variables, _a_b"), "{error}");
    }
    assert_eq!(names(&both("a-b", "a-c"), &[]), ["static a-b", "static a-c"]);
}

#[test]
fn the_summary_of_a_seal_has_no_key() {
    let (seals, _) = seals(&static_seal("name = \"a\""), &[]).unwrap();
    let text = format!("{} {:?}", seals[0], seals[0]);
    assert!(text.contains("static (name: \"a\", current_key_id: \"1\"") && !text.contains(KEY), "{text}");
}
