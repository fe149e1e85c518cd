//! Wrapped responses.

use crate::server::Server;

#[test]
fn a_wrapped_response_is_unwrapped_once() {
    let server = Server::find();
    let key = format!("{}/w", server.kv(2));
    server.ok(&["kv", "put", &key, "a=b"]);
    let shown = server.ok(&["kv", "get", "-wrap-ttl=60", &key]);
    for line in [
        "wrapping_token: ",
        "wrapping_accessor: ",
        "wrapping_token_ttl:              1m\n",
        "wrapping_token_creation_time: ",
        "wrapping_token_creation_path: ",
    ] {
        assert!(shown.contains(line), "{line} is missing in {shown}");
    }
    let token = server.ok(&["read", "-wrap-ttl=60s", "-field=wrapping_token", &key.replace("/w", "/data/w")]);
    let opened = server.ok(&["unwrap", "-field=data", &token]);
    assert_eq!(opened, "map[a:b]");
    server.fails(&["unwrap", &token], 2, "Error unwrapping: Error making API request.");
}

#[test]
fn a_wrapped_token_is_printed_as_a_login() {
    let server = Server::find();
    let wrapped = server.ok(&["token", "create", "-wrap-ttl=5m", "-field=wrapping_token"]);
    // The wrapping token can also be the current token.
    let opened = server.run_with(&["unwrap", "-field=token"], &[("VAULT_TOKEN", &wrapped)], "");
    assert_eq!(opened.code, 0, "{opened:?}");
    assert_eq!(server.ok(&["token", "lookup", "-field=path", &opened.stdout]), "auth/token/create");
    // Unwrapping needs no other token.
    let wrapped = server.ok(&["write", "-f", "-wrap-ttl=5m", "-field=wrapping_token", "auth/token/create"]);
    let opened = server.run_with(&["unwrap", "-format=json", &wrapped], &[], "");
    assert!(opened.code == 0 && opened.stdout.contains("\"client_token\": \""), "{opened:?}");
}

#[test]
fn the_default_wrapping_ttl_is_300_seconds() {
    let server = Server::find();
    let wrapped = server.ok(&["write", "-field=wrapping_token", "sys/wrapping/wrap", "a=b"]);
    assert_eq!(server.ok(&["write", "-field=creation_ttl", "sys/wrapping/lookup", &format!("token={wrapped}")]), "300");
    assert_eq!(server.ok(&["unwrap", "-field=a", &wrapped]), "b");
}
