//! `policy …` on a server.

use crate::server::{Server, unique};

#[test]
fn a_policy_is_uploaded_read_and_deleted() {
    let server = Server::find();
    let name = unique("policy");
    let text = "path \"secret/*\" {\n  capabilities = [\"read\"]\n}";
    let root = server.token();
    let upper = name.to_uppercase();
    let written = server.run_with(&["policy", "write", &upper, "-"], &[("VAULT_TOKEN", root)], text);
    assert_eq!(
        (written.code, written.stdout.as_str()),
        (0, format!("Success! Uploaded policy: {name}\n").as_str()),
        "{written:?}"
    );
    assert_eq!(written.stderr, format!("Policy name was converted from {upper:?} to {name:?}\n"));
    assert_eq!(server.ok(&["policy", "read", &name]), format!("{text}\n"));
    assert_eq!(
        server.ok(&["policy", "read", "-format=yaml", &name]),
        "policy: |-\n  path \"secret/*\" {\n    capabilities = [\"read\"]\n  }\n"
    );
    let names = server.ok(&["policy", "list"]);
    assert!(
        names.starts_with("default\n") && names.contains(&format!("\n{name}\n")) && names.ends_with("\nroot\n"),
        "{names}"
    );
    assert_eq!(server.ok(&["policy", "delete", &name]), format!("Success! Deleted policy: {name}\n"));
    server.fails(&["policy", "read", &name], 2, &format!("No policy named: {name}"));
    let bad = server.run_with(&["policy", "write", &name, "-"], &[("VAULT_TOKEN", root)], "path \"a\" {");
    assert!(
        bad.code == 2
            && bad.stderr.starts_with("Error uploading policy: Error making API request.")
            && bad.stderr.contains("failed to parse policy"),
        "{bad:?}"
    );
}

/// A file in the home directory of the server's user.
fn file(server: &Server, name: &str, text: &str) -> String {
    let path = server.home().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn a_decision_is_explained_with_the_place_of_its_rule() {
    let server = Server::find();
    let text = "path \"kv/data/*\" {\n  capabilities = [\"read\"]\n}\n";
    server.ok(&["policy", "write", "app", &file(&server, "app.hcl", text)]);
    let explained = server.ok(&["policy", "explain", "-policies=app", "kv/data/a", "update"]);
    assert_eq!(
        explained,
        "Denied: update kv/data/a\n\
         the rule for the path does not grant the capability \"update\"\n\
         \x20 app:1:6: path \"kv/data/*\" { capabilities = [read] }\n\
         Note: no mount is at the path: an allowed request fails with 404\n"
    );
    let near = server.ok(&["policy", "explain", "-policies=app", "kv/a", "read"]);
    assert!(
        near.contains("Rules that came close:") && near.contains("(differs in \"data/\" of KV version 2)"),
        "{near}"
    );
    let json = server.ok(&["policy", "explain", "-format=json", "-policies=app", "kv/data/a", "read"]);
    assert!(json.contains("\"allowed\": true") && json.contains("\"cause\": \"granted\""), "{json}");
    let own = server.ok(&["policy", "explain", "kv/data/a", "delete", "x=1"]);
    assert!(own.starts_with("Allowed: delete kv/data/a\nthe subject is a root token"), "{own}");
    server.fails(&["policy", "explain", "-token=x", "kv/a", "read"], 2, "the subject does not exist");
    server.fails(&["policy", "explain", "kv/a", "sing"], 2, "operation must be one of");
    server.fails(&["policy", "explain", "kv/a"], 1, "Not enough arguments");
}

#[test]
fn lint_finds_mistakes_with_and_without_a_server() {
    let server = Server::find();
    let text = "path \"secret/app/*\" {\n  capabilities = [\"read\"]\n}\npath \"secret/*/x\" {\n  capabilities = [\"deny\"]\n}\n";
    let path = file(&server, "mistaken.hcl", text);
    let offline = server.run(&["policy", "lint", "-offline", &path]);
    assert!(offline.code == 1 && offline.stdout.contains("mistaken.hcl:4:6: literal_star"), "{offline:?}");
    assert!(!offline.stdout.contains("kv_data_prefix"), "{offline:?}");
    let online = server.run(&["policy", "lint", &path]);
    assert!(online.code == 1 && online.stdout.contains("mistaken.hcl:1:6: kv_data_prefix"), "{online:?}");
    server.ok(&["policy", "write", "stored", &path]);
    let json = server.run(&["policy", "lint", "-format=json", "stored"]);
    assert!(json.code == 1 && json.stdout.contains("\"check\": \"kv_data_prefix\""), "{json:?}");
    let good = file(&server, "good.hcl", "path \"secret/data/app/*\" {\n  capabilities = [\"read\"]\n}\n");
    assert_eq!(server.ok(&["policy", "lint", &good]), format!("Success! No findings in policy: {good}\n"));
    server.fails(&["policy", "lint", "/no/such/policy"], 2, "No policy file or policy named");
}

#[test]
fn a_simulation_prints_the_requests_that_change() {
    let server = Server::find();
    let entry = |operation: &str, path: &str, allowed: bool| {
        format!(
            "{{\"time\":\"2026-01-01T00:00:00Z\",\"type\":\"request\",\"auth\":{{\"policies\":[\"app\",\"default\"],\
             \"policy_results\":{{\"allowed\":{allowed}}}}},\"request\":{{\"id\":\"1\",\"operation\":\"{operation}\",\
             \"path\":\"{path}\"}}}}\n"
        )
    };
    let log =
        entry("read", "kv/data/a", true) + &entry("read", "kv/data/a", true) + &entry("delete", "kv/data/a", false);
    let log = file(&server, "audit.log", &log);
    let policy = |text: &str| file(&server, "app.hcl", text);
    let same = policy("path \"kv/data/*\" {\n  capabilities = [\"read\"]\n}\n");
    let log_flag = format!("-audit-log={log}");
    let unchanged = server.run(&["policy", "simulate", &log_flag, &same]);
    assert_eq!(
        (unchanged.code, unchanged.stdout.as_str()),
        (0, "0 changed, 0 undecidable, 3 unchanged, 0 by tokens without the policy\n"),
        "{unchanged:?}"
    );
    let other = policy("path \"kv/data/*\" {\n  capabilities = [\"delete\"]\n}\n");
    let changed = server.run(&["policy", "simulate", "-format=json", &log_flag, &other]);
    assert!(changed.code == 1 && changed.stdout.contains("\"changed\": 3"), "{changed:?}");
    assert!(changed.stdout.contains("\"result\": \"allowed, would be denied\""), "{changed:?}");
    let offline = server.run(&["policy", "simulate", "-offline", &log_flag, &other]);
    assert!(offline.code == 0 && offline.stdout.contains("3 undecidable"), "{offline:?}");
    server.fails(&["policy", "simulate", &other], 1, "Must supply -audit-log");
    server.fails(&["policy", "simulate", "-audit-log=/no/such/log", &other], 1, "Error reading audit log");
    server.fails(&["policy", "simulate", &log_flag, &policy("path \"a\" {")], 1, "app.hcl: failed to parse policy");
}
