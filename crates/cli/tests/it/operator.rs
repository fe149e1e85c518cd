//! `status`, `operator …`.

use crate::server::server;

#[test]
fn an_unsealed_server() {
    let server = server!();
    let table = server.ok(&["status"]);
    for line in ["Key ", "Seal Type ", "Initialized ", "Sealed ", "Total Shares ", "Threshold ", "Version "] {
        assert!(table.lines().any(|given| given.starts_with(line)), "{line} is missing in {table}");
    }
    assert!(!table.contains("Unseal Progress"), "{table}");
    let json = server.ok(&["status", "-format=json"]);
    assert!(json.starts_with("{\n  \"type\": \"shamir\",\n  \"initialized\": true,\n  \"sealed\": false,\n  \"t\": 1,\n  \"n\": 1,\n  \"progress\": 0,\n"), "{json}");
    assert_eq!(server.ok(&["status", "-field=sealed"]), "false");
    assert_eq!(server.ok(&["operator", "init", "-status"]), "Vault is initialized\n");
    server.fails(&["operator", "init"], 2, "Vault is already initialized");
}

#[test]
fn the_encryption_key_is_rotated() {
    let server = server!();
    let term = |json: &str| -> u32 {
        let after = json.split("\"term\": ").nth(1).unwrap();
        after.split(',').next().unwrap().parse().unwrap()
    };
    let before = term(&server.ok(&["operator", "key-status", "-format=json"]));
    let shown = server.ok(&["operator", "rotate"]);
    assert!(shown.starts_with("Success! Rotated key\n\nKey Term            "), "{shown}");
    assert!(term(&server.ok(&["operator", "key-status", "-format=json"])) > before);
    let table = server.ok(&["operator", "key-status"]);
    let names: Vec<&str> = table.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(names, ["Key Term", "Install Time", "Encryption Count"]);
    assert!(table.contains(" UTC\n"), "{table}");
}

#[test]
fn no_share_no_terminal_no_unseal() {
    let server = server!();
    server.fails(&["operator", "unseal"], 1, "Unseal Key is needed");
}
