//! `status`, `operator …`.

use std::path::Path;

use crate::server::Server;
use crate::wrong_server::always;

#[test]
fn status_of_an_unsealed_server() {
    let server = Server::find();
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
    let server = Server::find();
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
fn unseal_without_a_share_needs_a_terminal() {
    let server = Server::find();
    server.fails(&["operator", "unseal"], 1, "Unseal Key is needed");
}

#[test]
fn a_server_is_initialized_unsealed_and_sealed() {
    let server = Server::fresh();
    let run = |arguments: &[&str]| server.run_with(arguments, &[], "");
    let before = run(&["operator", "init", "-status"]);
    assert_eq!((before.code, before.stdout.as_str()), (2, "Vault is not initialized\n"), "{before:?}");
    let sealed = run(&["status"]);
    assert!(sealed.code == 2 && sealed.stdout.contains("Sealed             true\n"), "{sealed:?}");

    let made = run(&["operator", "init", "-n", "3", "-t=2"]);
    assert_eq!(made.code, 0, "{made:?}");
    let after = |start: &str| made.stdout.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
    let (keys, token) = (["Unseal Key 1: ", "Unseal Key 3: "].map(after), after("Initial Root Token: "));
    assert!(!made.stdout.contains("Unseal Key 4"));

    let first = run(&["operator", "unseal", &keys[0]]);
    assert!(first.code == 0 && first.stdout.contains("Unseal Progress    1/2\n"), "{first:?}");
    assert!(run(&["operator", "unseal", "-reset"]).stdout.contains("Unseal Progress    0/2\n"));
    assert_eq!(run(&["operator", "unseal", "no key"]).code, 2);
    run(&["operator", "unseal", &keys[0]]);
    let last = run(&["operator", "unseal", "-format=json", &keys[1]]);
    assert!(last.code == 0 && last.stdout.contains("\"sealed\": false"), "{last:?}");
    assert_eq!(run(&["status"]).code, 0);

    let own = [("VAULT_TOKEN", token.as_str())];
    assert_eq!(server.run_with(&["secrets", "enable", "-path=secret", "-version=2", "kv"], &own, "").code, 0);
    assert_eq!(server.run_with(&["kv", "put", "secret/a", "b=c"], &own, "").code, 0);
    let seal = server.run_with(&["operator", "seal"], &own, "");
    assert_eq!((seal.code, seal.stdout.as_str()), (0, "Success! Vault is sealed.\n"), "{seal:?}");
    let refused = server.run_with(&["kv", "get", "secret/a"], &own, "");
    assert!(refused.code == 2 && refused.stderr.contains("Code: 503. Errors:\n\n* Vault is sealed"), "{refused:?}");
    keys.iter().for_each(|key| drop(run(&["operator", "unseal", key])));
    assert_eq!(server.run_with(&["kv", "get", "-field=b", "secret/a"], &own, "").stdout, "c");
}

#[test]
fn a_tls_server_is_trusted_only_with_its_ca() {
    let (server, authority) = Server::with_tls();
    let authority = authority.to_str().unwrap();
    let run = |variables: &[(&str, &str)], arguments: &[&str]| server.run_with(arguments, variables, "");
    let untrusted = run(&[], &["status"]);
    assert!(untrusted.code == 1 && untrusted.stderr.contains("failed to verify certificate"), "{untrusted:?}");
    assert_eq!(run(&[("VAULT_CACERT", authority)], &["status", "-field=sealed"]).stdout, "false");
    assert_eq!(run(&[], &["status", "-field=sealed", "-ca-cert", authority]).stdout, "false");
    assert_eq!(run(&[("BAO_SKIP_VERIFY", "1")], &["status", "-field=sealed"]).stdout, "false");
    assert_eq!(run(&[("VAULT_SKIP_VERIFY", "1")], &["status", "-tls-skip-verify=false"]).code, 1);
}

#[test]
fn old_shares_create_new_shares_and_a_root_token() {
    let server = Server::fresh();
    let made = server.run_with(&["operator", "init", "-n", "3", "-t=2"], &[], "");
    let after = |text: &str, start: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(start))
            .unwrap_or_else(|| panic!("no {start} in {text}"))
            .to_owned()
    };
    let old = ["Unseal Key 1: ", "Unseal Key 2: "].map(|start| after(&made.stdout, start));
    let token = after(&made.stdout, "Initial Root Token: ");
    let own = [("VAULT_TOKEN", token.as_str())];
    let run = |arguments: &[&str], input: &str| {
        let done = server.run_with(&[&["operator"], arguments].concat(), &own, input);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done.stdout
    };
    old.iter().for_each(|key| drop(run(&["unseal", key], "")));

    assert!(run(&["generate-root", "-status"], "").contains("Started       false\n"));
    let otp = run(&["generate-root", "-generate-otp"], "");
    assert!(run(&["generate-root", "-init", "-otp", &otp], "").contains("Progress      0/2\n"));
    assert!(run(&["generate-root", &old[0]], "").contains("Progress    1/2\n"), "the nonce comes from the server");
    let done = run(&["generate-root", "-format=json", "-"], &format!("{}\n", old[1]));
    let encoded = after(&done, "  \"encoded_token\": \"").trim_end_matches("\",").to_owned();
    let second = run(&["generate-root", "-decode", &encoded, "-otp", &otp], "");
    let lookup = server.run_with(&["token", "lookup", "-field=path"], &[("VAULT_TOKEN", &second)], "");
    assert_eq!((lookup.code, lookup.stdout.as_str()), (0, "auth/token/root"), "{lookup:?}");

    assert!(run(&["rotate-keys", "-init", "-n=2", "-t=2", "-verify"], "").contains("Verification Required    true\n"));
    run(&["rotate-keys", &old[0]], "");
    let shown = run(&["rekey", &old[1]], "");
    let new = ["Key 1: ", "Key 2: "].map(|start| after(&shown, start));
    assert!(run(&["rotate-keys", "-verify", &new[0]], "").contains("Progress         1/2\n"));
    assert!(run(&["rotate-keys", "-verify", &new[1]], "").contains("Success!"));
    run(&["seal"], "");
    let stale = old.iter().map(|key| server.run_with(&["operator", "unseal", key], &own, "").code).max();
    assert_eq!(stale, Some(2), "the old shares are invalid");
    new.iter().for_each(|key| drop(run(&["unseal", key], "")));
    assert_eq!(server.run_with(&["status"], &own, "").code, 0);
}

#[test]
fn lists_members_versions_and_plugins() {
    let server = Server::find();
    let members = server.ok(&["operator", "members"]);
    let header = "Host Name    API Address";
    assert!(members.starts_with(header) && members.contains("    true           0.1.0"), "{members}");
    assert!(server.ok(&["operator", "members", "-format=json"]).starts_with("{\n  \"Nodes\": [\n    {"));
    let versions = server.ok(&["version-history"]);
    assert!(versions.starts_with("Version    Installation Time") && versions.contains("\n0.1.0      20"), "{versions}");
    assert!(server.ok(&["plugin", "list"]).starts_with("Name                            Type        Version\n"));
    let databases = server.ok(&["plugin", "list", "-format=json", "Database"]);
    let expected = "{\n  \"database\": [\n    \"mysql-aurora-database-plugin\",";
    assert!(databases.starts_with(expected) && !databases.contains("approle"), "{databases}");
    let detail =
        "\"details\": [\n    {\n      \"type\": \"database\",\n      \"name\": \"mysql-aurora-database-plugin\",";
    assert!(databases.contains(detail), "{databases}");
    assert_eq!(server.ok(&["plugin", "info", "-field=name", "secret", "kv"]), "kv");
    server.fails(&["plugin", "list", "nope"], 2, "\"nope\" is not a supported plugin type");
    server.fails(&["plugin", "info", "secret", "nope"], 2, "No value found for plugin \"nope\"");
}

#[test]
fn configuration_is_checked_without_a_server() {
    let server = Server::find();
    let check = |text: &str| {
        let file = server.home().join("checked.hcl");
        std::fs::write(&file, text).unwrap();
        server.run(&["operator", "validate-config", &format!("-config={}", file.display())])
    };
    let listener = "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_disable = true\n}\n";
    let good = check(&format!("storage \"inmem\" {{}}\n{listener}"));
    assert_eq!((good.code, good.stdout.as_str()), (0, "Success! The configuration is valid.\n"), "{good:?}");
    let odd = check(&format!("storage \"inmem\" {{}}\n{listener}nonsense = 1\n"));
    assert!(odd.code == 2 && odd.stdout.contains("nonsense"), "{odd:?}");
    let bad = check("storage \"inmem\" {}\nlistener \"tcp\" { tls_min_version = \"x\" }\n");
    assert!(bad.code == 1 && bad.stderr.contains("tls_min_version"), "{bad:?}");
    let missing = "tls_cert_file = \"/nonexistent/c.pem\"\n  tls_key_file = \"/nonexistent/k.pem\"";
    let bad = check(&format!(
        "storage \"file\" {{\n  path = \"/dev/null/data\"\n}}\n{}",
        listener.replace("tls_disable = true", missing)
    ));
    assert!(bad.code == 1 && bad.stderr.contains("/nonexistent/c.pem"), "{bad:?}");
    assert!(bad.stderr.contains("storage path: /dev/null: not a directory"), "every error is printed: {bad:?}");
    server.fails(&["operator", "validate-config"], 1, "Must specify a configuration file using -config.");
}

#[test]
fn a_data_directory_is_downgraded_once() {
    let server = Server::find();
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../storage/tests/golden/local-v2"));
    let data = server.home().join("data");
    std::fs::create_dir_all(data.join("log")).unwrap();
    let file = server.home().join("storage.hcl");
    let text = format!("storage \"file\" {{\n  path = {:?}\n}}\nlistener \"tcp\" {{\n  tls_disable = true\n}}\n", data);
    std::fs::write(&file, text).unwrap();
    let config = format!("-config={}", file.display());
    let arguments = ["operator", "storage", "downgrade", &config];
    server.fails(&arguments, 1, "it has no meta.json");
    for name in ["meta.json", "log/00000000000000000001.log"] {
        std::fs::copy(golden.join(name), data.join(name)).unwrap();
    }
    assert_eq!(server.ok(&arguments), format!("Success! Changed the format of {}.\n", data.display()));
    assert!(std::fs::read_to_string(data.join("meta.json")).unwrap().starts_with(r#"{"format":1,"#));
    assert!(data.join("log/00000000000000000005.seg").exists());
    server.fails(&arguments, 1, "it has format 1 already");
    server.fails(&["operator", "storage", "downgrade"], 1, "Must specify a configuration file using -config.");
}

/// The seal status and the leader of a node of a cluster, in one document.
fn node_of_cluster(leader: &str) -> Server {
    let body = r#"{"type":"shamir","initialized":true,"sealed":false,"t":2,"n":3,"progress":0,"nonce":"","recovery_seal":false,
        "version":"0.1.0","commit_date":"2026-11-23T00:00:00Z","migration":false,"cluster_name":"blue",
        "cluster_id":"5e30c41e-3de1-465d-aa16-6783341ec448","storage_type":"raft","ha_enabled":true,LEADER
        "raft_committed_index":36,"raft_applied_index":35}"#;
    always("200 OK", "application/json", &body.replace("LEADER", leader))
}

const LEADER: &str = r#""is_self":true,"active_time":"2026-11-30T15:11:31.260245826Z",
    "leader_address":"http://127.0.0.1:8200","leader_cluster_address":"https://127.0.0.1:8201","#;
const STANDBY: &str = r#""is_self":false,"leader_address":"http://127.0.0.1:8200",
    "leader_cluster_address":"https://127.0.0.1:8201","#;

/// The expected outputs are those of `bao` 2.7.2 for the same responses.
#[test]
fn the_status_of_a_node_of_a_cluster_is_printed_as_by_openbao() {
    let begin = "\
Key                     Value
---                     -----
Seal Type               shamir
Initialized             true
Sealed                  false
Total Shares            3
Threshold               2
Version                 0.1.0
Commit Date             2026-11-23T00:00:00Z
Storage Type            raft
Cluster Name            blue
Cluster ID              5e30c41e-3de1-465d-aa16-6783341ec448
HA Enabled              true
";
    let end = "Raft Committed Index    36\nRaft Applied Index      35\n";
    for (leader, of_role) in [
        (
            LEADER,
            "\
HA Cluster              https://127.0.0.1:8201
HA Mode                 active
Active Since            2026-11-30T15:11:31.260245826Z
",
        ),
        (
            STANDBY,
            "\
HA Cluster              https://127.0.0.1:8201
HA Mode                 standby
Active Node Address     http://127.0.0.1:8200
",
        ),
        ("\"is_self\":false,", "HA Cluster              n/a\nHA Mode                 standby\n"),
    ] {
        assert_eq!(node_of_cluster(leader).ok(&["status"]), format!("{begin}{of_role}{end}"));
    }
    let json = node_of_cluster(LEADER).ok(&["status", "-format=json"]);
    let of_leader = "  \"ha_enabled\": true,\n  \"is_self\": true,\n  \"active_time\": \"2026-11-30T15:11:31.260245826Z\",\n  \
                     \"leader_address\": \"http://127.0.0.1:8200\",\n  \"leader_cluster_address\": \"https://127.0.0.1:8201\",\n  \
                     \"raft_committed_index\": 36,\n  \"raft_applied_index\": 35\n}\n";
    assert!(json.ends_with(of_leader), "{json}");
}

#[test]
fn the_nodes_of_a_cluster_are_listed_as_by_openbao() {
    let node = |name: &str, port: u16, leads: bool, echo: &str| {
        format!(
            r#"{{"hostname":"{name}","api_address":"http://127.0.0.1:{port}","cluster_address":"https://127.0.0.1:{}",
            "active_node":{leads},"last_echo":{echo},"version":"0.1.0","upgrade_version":"0.1.0"}}"#,
            port + 1
        )
    };
    let nodes =
        [node("vm", 8200, true, "null"), node("n2", 8210, false, "\"2026-11-30T15:12:15.812778758Z\"")].join(",");
    let server = always("200 OK", "application/json", &format!(r#"{{"data":{{"nodes":[{nodes}]}}}}"#));
    let expected = "\
Host Name    API Address              Cluster Address           Active Node    Version    Upgrade Version    Last Echo
---------    -----------              ---------------           -----------    -------    ---------------    ---------
vm           http://127.0.0.1:8200    https://127.0.0.1:8201    true           0.1.0      0.1.0              n/a
n2           http://127.0.0.1:8210    https://127.0.0.1:8211    false          0.1.0      0.1.0              2026-11-30T15:12:15Z
";
    assert_eq!(server.ok(&["operator", "members"]), expected);
    let json = server.ok(&["operator", "members", "-format=json"]);
    assert!(json.contains("\"last_echo\": \"2026-11-30T15:12:15.812778758Z\""), "{json}");
}
