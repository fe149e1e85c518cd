//! `kv …`.

use crate::server::{Server, without_times};

#[test]
fn a_versioned_key_is_written_deleted_and_destroyed() {
    let server = Server::find();
    let kv = server.kv(2);
    let key = format!("{kv}/app");
    let heading = |text: &str| {
        format!(
            "{} {text} {}",
            "=".repeat((key.len() + 5 - text.len() - 2).div_ceil(2)),
            "=".repeat((key.len() + 5 - text.len() - 2).div_ceil(2))
        )
    };
    let written = |version: u32, extra: &str| {
        format!(
            "{}\n{kv}/data/app\n\n======= Metadata =======\nKey                Value\n---                -----\n\
             created_time       <time>\ncustom_metadata    <nil>\ndeletion_time      n/a\ndestroyed          false\nversion            {version}\n{extra}",
            heading("Secret Path")
        )
    };
    assert_eq!(without_times(&server.ok(&["kv", "put", &key, "user=u", "password=p"])), written(1, ""));
    let shown = without_times(&server.ok(&["kv", "get", &key]));
    assert_eq!(
        shown,
        written(1, "\n====== Data ======\nKey         Value\n---         -----\npassword    p\nuser        u\n")
    );
    assert_eq!(without_times(&server.ok(&["kv", "patch", &key, "user=w"])), written(2, ""));
    assert_eq!(
        without_times(&server.ok(&["kv", "patch", "-method=rw", "-remove-data=password", &key])),
        written(3, "")
    );
    assert_eq!(server.ok(&["kv", "get", "-format=json", "-field=user", &key]), "\"w\"");
    server.fails(&["kv", "get", "-field=password", &key], 1, "Field \"password\" not present in map");
    assert_eq!(server.ok(&["kv", "get", "-version=1", "-field=password", "-mount", &kv, "app"]), "p");
    let rolled = without_times(&server.ok(&["kv", "rollback", "-version=1", &key]));
    assert!(rolled.ends_with("version            4\n"), "{rolled}");
    assert_eq!(server.ok(&["kv", "get", "-field=password", &key]), "p");

    assert_eq!(
        server.ok(&["kv", "delete", &key]),
        format!("Success! Data deleted (if it existed) at: {kv}/data/app\n")
    );
    let deleted = server.ok(&["kv", "get", &key]);
    assert!(deleted.contains("version            4") && !deleted.contains("Data ="), "{deleted}");
    server.fails(&["kv", "get", "-field=user", &key], 2, &format!("No data found at {kv}/data/app"));
    assert_eq!(
        server.ok(&["kv", "undelete", "-versions=4", &key]),
        format!("Success! Data written to: {kv}/undelete/app\n")
    );
    assert_eq!(server.ok(&["kv", "get", "-field=user", &key]), "u");
    assert_eq!(
        server.ok(&["kv", "destroy", "-versions=1,2", &key]),
        format!("Success! Data written to: {kv}/destroy/app\n")
    );
    server.fails(&["kv", "rollback", "-version=1", &key], 2, "");
    assert_eq!(
        server.ok(&["kv", "metadata", "delete", &key]),
        format!("Success! Data deleted (if it existed) at: {kv}/metadata/app\n")
    );
    server.fails(&["kv", "get", &key], 2, &format!("No value found at {kv}/data/app"));
}

#[test]
fn a_write_with_an_old_version_is_refused() {
    let server = Server::find();
    let key = format!("{}/k", server.kv(2));
    server.ok(&["kv", "put", "-cas=0", &key, "a=1"]);
    server.fails(&["kv", "put", "-cas=0", &key, "a=2"], 2, "check-and-set parameter did not match the current version");
    // A flag after the arguments is a flag, never data.
    assert_eq!(server.ok(&["kv", "put", &key, "a=3", "-cas=1", "-field=version"]), "2");
}

#[test]
fn metadata_of_a_key_is_set_and_patched() {
    let server = Server::find();
    let kv = server.kv(2);
    let key = format!("{kv}/m");
    server.ok(&["kv", "put", &key, "a=1"]);
    server.ok(&["kv", "put", &key, "a=2"]);
    let path = format!("{kv}/metadata/m");
    let success = format!("Success! Data written to: {path}\n");
    assert_eq!(
        server.ok(&[
            "kv",
            "metadata",
            "put",
            "-max-versions=5",
            "-delete-version-after=90m",
            "-custom-metadata=a=1",
            "-custom-metadata=b=2",
            &key
        ]),
        success
    );
    assert_eq!(server.ok(&["kv", "metadata", "patch", "-remove-custom-metadata=a", "-cas-required", &key]), success);
    let shown = without_times(&server.ok(&["kv", "metadata", "get", &key]));
    for line in [
        "cas_required                true",
        "custom_metadata             map[b:2]",
        "delete_version_after        1h30m0s",
        "max_versions                5",
        "current_version             2",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let version = "Key              Value\n---              -----\ncreated_time     <time>\ndeletion_time    <time>\ndestroyed        false\n";
    assert!(shown.contains("\n====== Version 1 ======\n") || shown.contains(version), "{shown}");
    server.fails(&["kv", "put", &key, "a=3"], 2, "check-and-set parameter required");
    server.fails(
        &["kv", "metadata", "get", &format!("{kv}/none")],
        2,
        &format!("No value found at {kv}/metadata/none"),
    );
}

#[test]
fn an_unversioned_engine_refuses_version_commands() {
    let server = Server::find();
    let kv = server.kv(1);
    let key = format!("{kv}/a");
    assert_eq!(server.ok(&["kv", "put", &key, "b=c"]), format!("Success! Data written to: {key}\n"));
    assert_eq!(server.ok(&["kv", "get", &key]), "== Data ==\nKey    Value\n---    -----\nb      c\n");
    assert_eq!(server.ok(&["kv", "get", "-mount", &kv, "-field=b", "a"]), "c");
    assert_eq!(
        server.ok(&["read", &key]),
        "Key                 Value\n---                 -----\nrefresh_interval    768h\nb                   c\n"
    );
    server.fails(&["kv", "patch", &key, "x=y"], 2, "K/V engine mount must be version 2 for patch support");
    server.fails(&["kv", "metadata", "get", &key], 1, "Metadata not supported on KV Version 1");
    server.fails(&["kv", "undelete", "-versions=1", &key], 1, "Undelete not supported on KV Version 1");
    assert_eq!(server.ok(&["kv", "list", &kv]), "Keys\n----\na\n");
    assert_eq!(server.ok(&["kv", "delete", &key]), format!("Success! Data deleted (if it existed) at: {key}\n"));
    assert_eq!(server.ok(&["kv", "enable-versioning", &kv]), format!("Success! Tuned the secrets engine at: {kv}/\n"));
}

#[test]
fn lists_and_scans_names() {
    let server = Server::find();
    let kv = server.kv(2);
    for key in ["a", "b", "dir/c", "dir/sub/d"] {
        server.ok(&["kv", "put", "-mount", &kv, key, "x=y"]);
    }
    assert_eq!(server.ok(&["kv", "list", &kv]), "Keys\n----\na\nb\ndir/\n");
    assert_eq!(server.ok(&["kv", "list", "-mount", &kv, "dir/"]), "Keys\n----\nc\nsub/\n");
    assert_eq!(server.ok(&["kv", "scan", &kv]), "Keys\n----\na\nb\ndir/c\ndir/sub/d\n");
    let metadata = format!("{kv}/metadata");
    assert_eq!(server.ok(&["list", "-limit=1", "-after=a", "-format=json", &metadata]), "[\n  \"b\"\n]\n");
    assert_eq!(server.ok(&["scan", "-format=yaml", &metadata]), "- a\n- b\n- dir/c\n- dir/sub/d\n");
    server.fails(&["kv", "list", "-mount", &kv, "none"], 2, &format!("No value found at {metadata}/none"));
    let nothing = server.run(&["kv", "list", "-format=json", "-mount", &kv, "none"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, "{}\n"));
}

/// OpenBao, which the environment may select, rounds such numbers; Keepfast must not.
#[test]
fn numbers_keep_every_digit() {
    let server = Server::find();
    let key = format!("{}/n", server.kv(2));
    let own = [("VAULT_TOKEN", server.token())];
    let value = r#"{"account": 12345678901234567890123, "price": 1.10}"#;
    assert_eq!(server.run_with(&["kv", "put", &key, "-"], &own, value).code, 0);
    let account = server.ok(&["kv", "get", "-field=account", &key]);
    if server.is_given() && account == "1.2345678901234568e+22" {
        return;
    }
    assert_eq!(account, "12345678901234567890123");
    server.ok(&["kv", "patch", "-method=rw", &key, "x=y"]);
    server.ok(&["kv", "rollback", "-version=2", &key]);
    let json = server.ok(&["kv", "get", "-format=json", "-field=price", &key]);
    assert_eq!((json.as_str(), server.ok(&["kv", "get", "-field=account", &key])), ("1.10", account));
    assert!(server.ok(&["kv", "get", "-format=yaml", &key]).contains("    account: 12345678901234567890123\n"));
}

#[test]
fn data_and_metadata_are_fields_too() {
    let server = Server::find();
    let key = format!("{}/parts", server.kv(2));
    server.ok(&["kv", "put", &key, "a=b"]);
    assert_eq!(server.ok(&["kv", "get", "-field=data", &key]), "map[a:b]");
    assert!(server.ok(&["kv", "get", "-field=metadata", &key]).contains("version:1"));
    server.fails(&["kv", "get", "-field=nope", &key], 1, "Field \"nope\" not present in map");
    let mount = key.trim_end_matches("/parts");
    let detailed = server.ok(&["list", "-format=json", "-detailed", &format!("{mount}/metadata")]);
    assert!(detailed.contains("\"keys\": ["), "{detailed}");
}
