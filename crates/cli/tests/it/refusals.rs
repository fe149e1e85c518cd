//! Errors, exit codes, and printing a request instead of sending it.

use crate::server::Server;

#[test]
fn an_error_names_its_request() {
    let server = Server::find();
    let kv = server.kv(2);
    let token = server.ok(&["token", "create", "-policy=default", "-ttl=1m", "-field=token"]);
    let path = format!("{kv}/data/x");
    let refused = server.run_with(&["read", &path], &[("VAULT_TOKEN", &token)], "");
    let expected = format!(
        "Error reading {path}: Error making API request.\n\nURL: GET {}/v1/{path}\nCode: 403. Errors:\n\n* ",
        server.address()
    );
    assert!(
        refused.code == 2 && refused.stderr.starts_with(&expected) && refused.stderr.contains("permission denied"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains(&token));
    server.fails(&["read", "no-such-mount/x"], 2, "* no handler for route");
    server.fails(&["delete", "no-such-mount/x"], 2, "Error deleting no-such-mount/x: Error making API request.");
}

#[test]
fn an_unreachable_server_is_named() {
    let server = Server::find();
    let nowhere = [("VAULT_ADDR", "http://127.0.0.1:1")];
    let status = server.run_with(&["status"], &nowhere, "");
    let reason = "Get \"http://127.0.0.1:1/v1/sys/seal-status\": dial tcp 127.0.0.1:1: connect: connection refused\n";
    assert_eq!((status.code, status.stderr), (1, format!("Error checking seal status: {reason}")));
    assert_eq!(server.run_with(&["read", "a/b"], &nowhere, "").code, 2);
    // Flags take precedence over variables and may be anywhere after the command.
    let found =
        server.run_with(&["status", "-field", "initialized", &format!("-address={}", server.address())], &nowhere, "");
    assert_eq!(found.stdout, "true");
}

#[test]
fn a_request_can_be_printed_instead_of_sent() {
    let server = Server::find();
    let kv = server.kv(2);
    let address = server.address();
    let curl = server.ok(&["kv", "put", "-output-curl-string", &format!("{kv}/a"), "x=it's", "y=$(z)"]);
    let expected = format!(
        "curl -X PUT -H \"X-Vault-Request: true\" -H \"X-Vault-Token: $(keepfast print token)\" \
         -d '{{\"data\":{{\"x\":\"it'\"'\"'s\",\"y\":\"$(z)\"}},\"options\":{{}}}}' \"{address}/v1/{kv}/data/a\"\n"
    );
    assert_eq!(curl, expected);
    assert_eq!(
        server.ok(&["kv", "list", "-output-policy", &kv]),
        format!("path \"{kv}/metadata\" {{\n  capabilities = [\"list\"]\n}}\n")
    );
    let sudo = server.ok(&["auth", "enable", "-output-policy", "userpass"]);
    assert_eq!(sudo, "path \"sys/auth/userpass\" {\n  capabilities = [\"create\", \"update\", \"sudo\"]\n}\n");
    let factors = server.ok(&["read", "-output-curl-string", "-policy-override", "-mfa=m:1", "-mfa=n", "a/b"]);
    assert!(
        factors.contains("-H \"X-Vault-Policy-Override: true\"") && factors.contains("-H \"X-Vault-Mfa: "),
        "{factors}"
    );
    server.fails(&["kv", "get", &format!("{kv}/a")], 2, "No value found at");
}

#[test]
fn warnings_go_to_stderr() {
    let server = Server::find();
    let kv = server.kv(2);
    let done = server.run(&["list", &format!("{kv}/wrong")]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    assert!(done.stderr.starts_with("WARNING! The following warnings were returned from the server:\n\n  * Invalid path for a versioned K/V secrets engine."), "{done:?}");
}

#[test]
fn an_argument_of_invalid_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(b"password=\xff");
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_keepfast"))
        .args(["kv", "put", "a/b"])
        .arg(argument)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().starts_with("An argument is not valid UTF-8"));
}

#[test]
fn an_invalid_setting_fails_with_code_2() {
    let server = Server::find();
    let root = server.token();
    for (name, value) in [
        ("VAULT_SKIP_VERIFY", "perhaps"),
        ("VAULT_CLIENT_TIMEOUT", "soon"),
        ("VAULT_CACERT", "/nonexistent"),
        ("VAULT_RATE_LIMIT", "fast"),
    ] {
        let done = server.run_with(&["read", "a/b"], &[("VAULT_TOKEN", root), (name, value)], "");
        assert_eq!(done.code, 2, "{name}: {done:?}");
    }
    assert_eq!(server.run_with(&["status"], &[("VAULT_SKIP_VERIFY", "perhaps")], "").code, 1);
    // A flag with an empty value counts as unset.
    assert_eq!(server.run(&["token", "lookup", "-address=", "-field=id"]).stdout, root);
}

#[test]
fn a_missing_value_is_named_by_the_command() {
    let server = Server::find();
    let kv = server.kv(1);
    server.fails(&["scan", &format!("{kv}/none")], 2, "No entries found at");
    server.fails(&["policy", "read", "root"], 2, "No policy named: root");
    server.fails(&["auth", "enable", "nonsense"], 2, "Error enabling nonsense auth: Error making API request.");
    server.fails(&["status", "-field=nope"], 1, "Field \"nope\" not present in seal status");
    server.ok(&["write", &format!("{kv}/a"), "x=1"]);
    let done =
        server.run_with(&["write", &format!("{kv}/b"), "-"], &[("VAULT_TOKEN", server.token())], "{\"z\": null}");
    assert_eq!(done.code, 0);
    server.fails(&["read", "-field=z", &format!("{kv}/b")], 1, "Field \"z\" not present in secret");
    server.fails(&["kv", "get", "-field=no", &format!("{kv}/a")], 1, "Field \"no\" not present in secret");
    server.fails(&["kv", "get", "-field=z", &format!("{kv}/b")], 1, "Field \"z\" not present in secret");
}

#[test]
fn audit_enable_is_refused_by_default() {
    let server = Server::find();
    server.fails(&["audit", "enable", "file", "file_path=/tmp/x"], 2, "Error enabling audit device: ");
    let done = server.ok(&["audit", "disable", "none"]);
    assert_eq!(done, "Success! Disabled audit device (if it was enabled) at: none/\n");
}
