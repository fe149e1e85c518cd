//! `secrets …`, `auth …`, `audit list`, `path-help`.

use crate::server::{Server, unique};

#[test]
fn an_engine_is_mounted_tuned_moved_and_unmounted() {
    let server = Server::find();
    let (path, other) = (unique("engine"), unique("engine"));
    let enable = [
        "secrets",
        "enable",
        &format!("-path={path}"),
        "-description=mine",
        "-default-lease-ttl=1h",
        "-version=2",
        "kv",
    ];
    assert_eq!(server.ok(&enable), format!("Success! Enabled the kv secrets engine at: {path}/\n"));
    server.fails(&enable, 2, &format!("path is already in use at {path}/"));
    let listed = server.ok(&["secrets", "list"]);
    assert!(
        listed.starts_with("Path ") && listed.contains(&format!("{path}/ ")) && listed.contains("    mine\n"),
        "{listed}"
    );
    assert!(listed.contains("cubbyhole/") && listed.contains("per-token private secret storage"), "{listed}");
    assert_eq!(
        server.ok(&["secrets", "tune", "-max-lease-ttl=2h", "-description=ours", &path]),
        format!("Success! Tuned the secrets engine at: {path}/\n")
    );
    let json = server.ok(&["secrets", "list", "-format=json"]);
    let mount = format!("  \"{path}/\": {{\n    \"uuid\": \"");
    assert!(json.contains(&mount), "{json}");
    let mount = &json[json.find(&mount).unwrap()..];
    let config = "    \"config\": {\n      \"default_lease_ttl\": 3600,\n      \"max_lease_ttl\": 7200,\n      \"force_no_cache\": false\n    },\n    \"options\": {\n      \"version\": \"2\"\n    },\n";
    assert!(
        mount.contains("    \"type\": \"kv\",\n    \"description\": \"ours\",\n    \"accessor\": \"kv_")
            && mount.contains(config),
        "{mount}"
    );
    let detailed = server.ok(&["secrets", "list", "-detailed"]);
    let row = detailed.lines().find(|line| line.starts_with(&format!("{path}/"))).unwrap();
    assert!(row.contains("    3600 ") && row.contains("    map[version:2]    ours "), "{row}");
    let moved = server.ok(&["secrets", "move", &path, &other]);
    assert!(
        moved.contains(&format!("Success! Finished moving secrets engine {path}/ to {other}/, with migration ID ")),
        "{moved}"
    );
    assert_eq!(
        server.ok(&["secrets", "disable", &other]),
        format!("Success! Disabled the secrets engine (if it existed) at: {other}/\n")
    );
    assert!(!server.ok(&["secrets", "list"]).contains(&other));
    server.fails(&["secrets", "enable", "no-such-engine"], 2, "Error enabling: Error making API request.");
}

#[test]
fn an_auth_method_is_mounted_tuned_and_unmounted() {
    let server = Server::find();
    let path = unique("method");
    assert_eq!(
        server.ok(&["auth", "enable", &format!("-path={path}"), "-token-type=batch", "approle"]),
        format!("Success! Enabled approle auth method at: {path}/\n")
    );
    assert_eq!(
        server.ok(&["auth", "tune", "-default-lease-ttl=2h", "-listing-visibility=unauth", &path]),
        format!("Success! Tuned the auth method at: {path}/\n")
    );
    let listed = server.ok(&["auth", "list"]);
    let row = listed.lines().find(|line| line.starts_with(&path)).unwrap();
    assert!(row.contains("approle") && row.ends_with("n/a"), "{listed}");
    let detailed = server.ok(&["auth", "list", "-detailed"]);
    let row = detailed.lines().find(|line| line.starts_with(&path)).unwrap();
    assert!(row.contains("    7200           system     batch "), "{detailed}");
    assert!(server.ok(&["auth", "help", "approle"]).contains("role_id=<string>"));
    assert_eq!(server.ok(&["auth", "help", &path]), server.ok(&["auth", "help", "approle"]));
    assert_eq!(
        server.ok(&["auth", "disable", &path]),
        format!("Success! Disabled the auth method (if it existed) at: {path}/\n")
    );
    server.fails(&["auth", "help", &path], 1, "No auth method available on the server at");
}

#[test]
fn path_help_comes_from_the_server() {
    let server = Server::find();
    let help = server.ok(&["path-help", "auth/token/lookup-self"]);
    assert!(help.len() > 20, "{help}");
    server.fails(&["path-help", "no-such-mount"], 2, "Error retrieving help: Error making API request.");
}

#[test]
fn audit_devices_are_listed() {
    let server = Server::find();
    let table = server.run(&["audit", "list"]);
    let json = server.ok(&["audit", "list", "-format=json"]);
    match json.as_str() {
        "{}\n" => assert_eq!((table.code, table.stdout.as_str()), (2, "No audit devices are enabled.\n")),
        _ => assert!(
            table.code == 0 && table.stdout.starts_with("Path ") && json.contains("\"type\""),
            "{table:?} {json}"
        ),
    }
}
