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
