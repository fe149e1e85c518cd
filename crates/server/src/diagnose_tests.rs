//! Each check finds what it is for, and changes nothing.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The checks of a configuration in this directory, as `status name: message`, except for those that depend on the machine.
async fn lines(dir: &Path, text: &str, skipped: &[Part]) -> (Status, Vec<String>) {
    let file = dir.join("c.hcl");
    std::fs::write(&file, text).unwrap();
    let diagnosis = diagnose(&[file], &Environment::of(&[]), skipped).await;
    let mut lines = Vec::new();
    let system = |check: &&Check| check.name != "Check Operating System";
    diagnosis.root.children.iter().filter(system).for_each(|check| collect(check, &mut lines));
    let statuses = diagnosis.root.children.iter().filter(system).map(|check| check.status);
    (statuses.max().unwrap(), lines)
}

fn collect(check: &Check, lines: &mut Vec<String>) {
    lines.push(format!("{:?} {}: {}", check.status, check.name, check.message));
    check.children.iter().for_each(|child| collect(child, lines));
}

fn config(dir: &Path, seals: &str) -> String {
    let data = dir.join("data");
    format!(
        "storage \"file\" {{\n path = {data:?}\n}}\nlistener \"tcp\" {{\n address = \"127.0.0.1:0\"\n tls_disable = 1\n}}\n{seals}"
    )
}

fn static_seal(name: &str, key: &str) -> String {
    format!("seal \"static\" {{\n name = \"{name}\"\n current_key_id = \"1\"\n current_key = \"{key}\"\n}}\n")
}

#[tokio::test]
async fn each_seal_wraps_and_unwraps_and_one_that_works_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let missing = format!("file://{}", dir.path().join("key").display());
    for (seals, status, expected) in [
        (static_seal("a", KEY), Status::Warn, "Ok Check Seal \"a\" (static): it wraps under 1"),
        (
            static_seal("a", &missing),
            Status::Fail,
            "Fail Check Seal \"a\" (static): unreachable: current_key: cannot read",
        ),
        (
            static_seal("a", &missing) + &static_seal("b", KEY),
            Status::Warn,
            "Warn Check Seal \"a\" (static): unreachable: current_key: cannot read",
        ),
        (String::new(), Status::Warn, "Skipped Check Autounseal Encryption: there is no seal"),
    ] {
        let (worst, lines) = lines(dir.path(), &config(dir.path(), &seals), &[]).await;
        assert_eq!(worst, status, "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains(KEY)));
    }
    assert!(!dir.path().join("data").exists(), "nothing is created");
}

#[tokio::test]
async fn permissions_and_the_format_of_the_storage_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let of_storage = async || {
        let (_, lines) = lines(dir.path(), &config(dir.path(), ""), &[Part::Listener, Part::AutoUnseal]).await;
        lines.into_iter().filter(|line| line.contains("Folder") || line.contains("Open Storage")).collect::<Vec<_>>()
    };
    assert!(of_storage().await[0].contains("the first start creates it"));
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(of_storage().await[0].starts_with("Warn Check Folder Permissions: too many permissions"));
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let found = of_storage().await;
    assert!(found[0].starts_with("Ok") && found[1].contains("it is empty"), "{found:?}");
    std::fs::write(data.join("meta.json"), "{\"format\":9}").unwrap();
    let found = of_storage().await;
    assert!(found[1].starts_with("Fail Open Storage") && found[1].contains("it has format 9"), "{found:?}");
}

#[tokio::test]
async fn parts_can_be_left_out_and_a_bad_configuration_ends_the_checks() {
    let dir = tempfile::tempdir().unwrap();
    let all = [Part::Listener, Part::Storage, Part::AutoUnseal];
    let (worst, lines) = lines(dir.path(), &config(dir.path(), &static_seal("a", KEY)), &all).await;
    let skipped = lines.iter().filter(|line| line.starts_with("Skipped")).count();
    assert_eq!((worst, skipped), (Status::Ok, 3), "{lines:?}");
    let file = dir.path().join("bad.hcl");
    std::fs::write(&file, "storage \"file\" {").unwrap();
    let diagnosis = diagnose(&[file], &Environment::of(&[]), &[]).await;
    assert!(!diagnosis.has_configuration && diagnosis.root.status == Status::Fail);
    let parsed = ["listener", "Storage", "autounseal", "x"].map(Part::parse);
    assert_eq!(parsed, [Some(all[0]), Some(all[1]), Some(all[2]), None]);
}

#[test]
fn the_json_has_the_fields_of_openbao() {
    let check = Check::group("Diagnose", vec![Check::new("x", Status::Warn, "y").advised("z")]);
    let json = serde_json::to_value(check).unwrap();
    assert_eq!((&json["status"], &json["name"], &json["Advice"]), (&"warn".into(), &"Diagnose".into(), &"".into()));
    assert_eq!((&json["children"][0]["message"], &json["children"][0]["Advice"]), (&"y".into(), &"z".into()));
    assert!(json["time"].is_string() && json.get("millis").is_none());
}
