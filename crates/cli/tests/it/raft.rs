//! `operator raft …` and `operator step-down`. The expected outputs are those of `bao` 2.7.2 for the same responses.

use crate::server::Server;
use crate::wrong_server::always;

fn responding(body: &str) -> Server {
    always("200 OK", "application/json", body)
}

#[test]
fn the_members_are_listed_as_by_openbao() {
    let body = r#"{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":{"config":{"servers":[
        {"node_id":"node-a","address":"127.0.0.1:8301","leader":true,"protocol_version":"3","voter":true},
        {"node_id":"node-c","address":"127.0.0.1:8321","leader":false,"protocol_version":"3","voter":false}],"index":0}},
        "wrap_info":null,"warnings":null,"auth":null}"#;
    let server = responding(body);
    let expected = "\
Node      Address           State       Voter
----      -------           -----       -----
node-a    127.0.0.1:8301    leader      true
node-c    127.0.0.1:8321    follower    false
";
    assert_eq!(server.ok(&["operator", "raft", "list-peers"]), expected);
    let json = server.ok(&["operator", "raft", "list-peers", "-format=json"]);
    assert!(json.contains("      \"index\": 0,\n      \"servers\": [\n"), "{json}");
}

#[test]
fn the_configuration_of_autopilot_is_printed_as_by_openbao() {
    let body = r#"{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":{"cleanup_dead_servers":false,
        "dead_server_last_contact_threshold":"24h0m0s","last_contact_threshold":"10s","max_trailing_logs":1000,
        "min_quorum":1,"server_stabilization_time":"10s"},"wrap_info":null,"warnings":null,"auth":null}"#;
    let server = responding(body);
    let expected = "\
Key                                   Value
---                                   -----
Cleanup Dead Servers                  false
Last Contact Threshold                10s
Dead Server Last Contact Threshold    24h0m0s
Server Stabilization Time             10s
Min Quorum                            1
Max Trailing Logs                     1000
";
    assert_eq!(server.ok(&["operator", "raft", "autopilot", "get-config"]), expected);
    let expected = "\
{
  \"cleanup_dead_servers\": false,
  \"dead_server_last_contact_threshold\": \"24h0m0s\",
  \"last_contact_threshold\": \"10s\",
  \"max_trailing_logs\": 1000,
  \"min_quorum\": 1,
  \"server_stabilization_time\": \"10s\"
}
";
    assert_eq!(server.ok(&["operator", "raft", "autopilot", "get-config", "-format=json"]), expected);
}

#[test]
fn a_join_prints_whether_a_leader_responded() {
    let server = responding("{\"joined\":true}");
    let join = |more: &[&str]| server.ok(&[&["operator", "raft", "join"], more].concat());
    assert_eq!(join(&["http://127.0.0.1:8200"]), "Key       Value\n---       -----\nJoined    true\n");
    assert_eq!(join(&["-format=json", "http://127.0.0.1:8200"]), "{\n  \"joined\": true\n}\n");
    let missing = &["operator", "raft", "join", "-leader-ca-cert=@/nonexistent", "http://127.0.0.1:8200"];
    server.fails(missing, 1, "-leader-ca-cert: cannot read /nonexistent");
    let printed = server.ok(&["operator", "raft", "join", "-output-curl-string", "provider=aws region=x"]);
    assert!(
        printed.contains("\"auto_join\":\"provider=aws region=x\"") && printed.contains("\"leader_api_addr\":\"\"")
    );
}

#[test]
fn changes_of_members_name_what_they_did() {
    let server = always("204 No Content", "application/json", "");
    for (command, expected) in [
        (&["remove-peer", "node-c"][..], "Peer removed successfully!\n"),
        (&["promote", "node-c"], "Server promoted successfully!\n"),
        (&["demote", "node-c"], "Server demoted successfully!\n"),
        (&["autopilot", "set-config", "-min-quorum=3", "-cleanup-dead-servers=true"], ""),
    ] {
        assert_eq!(server.ok(&[&["operator", "raft"], command].concat()), expected);
    }
    let printed = server.ok(&[
        "operator",
        "raft",
        "autopilot",
        "set-config",
        "-output-curl-string",
        "-cleanup-dead-servers=false",
        "-server-stabilization-time=90s",
        "-max-trailing-logs=7",
    ]);
    let body = r#"{"cleanup_dead_servers":false,"server_stabilization_time":"1m30s","max_trailing_logs":7}"#;
    assert!(printed.contains(body), "{printed}");
    server.fails(&["operator", "raft", "remove-peer"], 1, "Not enough arguments (expected 1, got 0)");
}

#[test]
fn a_server_without_a_cluster_has_no_members_and_no_snapshots() {
    let server = Server::find();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.snap");
    let file = file.to_str().unwrap();
    for command in [&["list-peers"][..], &["autopilot", "get-config"], &["autopilot", "state"]] {
        server.fails(&[&["operator", "raft"], command].concat(), 2, "No raft cluster configuration found");
    }
    server.fails(&["operator", "raft", "join", "http://127.0.0.1:1"], 2, "raft backend not in use");
    server.fails(&["operator", "raft", "snapshot", "save", file], 2, "Error taking the snapshot: ");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    std::fs::write(file, "junk").unwrap();
    server.fails(&["operator", "raft", "snapshot", "restore", file], 2, "Error installing the snapshot: ");
    server.fails(&["operator", "raft", "snapshot", "restore", "/nonexistent"], 2, "Error opening snapshot file: ");
    server.fails(&["operator", "raft", "snapshot", "inspect", file], 2, "Error inspecting the snapshot: failed to ");
    server.fails(
        &["operator", "raft", "snapshot", "get", file, "secret/a"],
        2,
        "Error reading the snapshot: failed to ",
    );
    for arguments in [&[][..], &["-stored=a", file]] {
        let command = [&["operator", "raft", "snapshot", "restore"], arguments].concat();
        server.fails(&command, 1, "Give either a FILE or -stored.");
    }
    let stepped = server.ok(&["operator", "step-down"]);
    assert_eq!(stepped, format!("Success! Stepped down: {}\n", server.address()));
}

#[test]
fn a_damaged_snapshot_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.snap");
    let server = always("200 OK", "application/gzip", "not a snapshot");
    let text = "Error taking the snapshot: the server has sent a damaged file: ";
    server.fails(&["operator", "raft", "snapshot", "save", file.to_str().unwrap()], 2, text);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_restore_that_is_redirected_or_fails_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.snap");
    std::fs::write(&file, "a snapshot").unwrap();
    let restore = ["operator", "raft", "snapshot", "restore", file.to_str().unwrap()];
    assert_eq!(always("204 No Content", "application/json", "").ok(&restore), "");
    let standby = always("307 Temporary Redirect", "text/plain\r\nLocation: /v1/elsewhere", "");
    standby.fails(&restore, 2, "the server redirects to /v1/elsewhere: set VAULT_ADDR to the address of the leader");
    always("304 Not Modified", "text/plain", "").fails(&restore, 2, "the server redirects: set VAULT_ADDR");
    always("503 Service Unavailable", "application/json", "{\"errors\":[\"no leader\"]}").fails(
        &restore,
        2,
        "no leader",
    );
}
