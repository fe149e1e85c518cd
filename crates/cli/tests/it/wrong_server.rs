//! Commands against another program at the address: none of its responses counts as an empty one.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::server::Server;

/// A program that sends the same response to every request.
pub(crate) fn always(status: &str, kind: &str, body: &str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(response.as_bytes());
        }
    });
    Server::at(&address)
}

/// Commands with a path that every server has, and their exit codes on an error.
const FIXED: &[(&[&str], i32)] = &[
    (&["operator", "init", "-status"], 1),
    (&["status"], 1),
    (&["secrets", "list"], 2),
    (&["auth", "list"], 2),
    (&["audit", "list"], 2),
    (&["policy", "list"], 2),
    (&["plugin", "list"], 2),
    (&["version-history"], 2),
    (&["operator", "key-status"], 2),
    (&["operator", "members"], 2),
    (&["operator", "raft", "join", "http://a"], 2),
    (&["operator", "raft", "list-peers"], 2),
    (&["operator", "raft", "autopilot", "get-config"], 2),
    (&["operator", "raft", "autopilot", "state"], 2),
    (&["operator", "unseal", "a"], 2),
    (&["operator", "generate-root", "-status"], 2),
    (&["namespace", "create", "a"], 2),
    (&["namespace", "lock"], 2),
    (&["namespace", "patch", "-custom-metadata=a=b", "a"], 2),
    (&["token", "lookup"], 2),
    (&["token", "capabilities", "a"], 2),
    (&["lease", "quarantine"], 2),
    (&["login", "-no-store", "root"], 2),
];

#[test]
fn a_path_of_every_server_is_never_empty() {
    for (status, kind, body) in [
        ("404 Not Found", "application/json", "{\"errors\":[]}"),
        ("404 Not Found", "text/html", "<html>nope</html>"),
        ("404 Not Found", "text/plain", ""),
        ("200 OK", "text/plain", ""),
        ("200 OK", "text/html", "<html>a login page</html>"),
        ("200 OK", "application/json", "{\"message\":\"welcome\"}"),
        ("502 Bad Gateway", "text/html", "<html>bad gateway</html>"),
    ] {
        let server = always(status, kind, body);
        for (command, code) in FIXED {
            let done = server.run(command);
            assert_eq!(done.code, *code, "{status} {body:?} {command:?}: {done:?}");
            assert!(done.stdout.is_empty() && done.stderr.contains("/v1/"), "{status} {body:?} {command:?}: {done:?}");
        }
    }
}

#[test]
fn a_page_of_another_program_is_not_a_missing_secret() {
    for body in ["<html>nope</html>", "404 page not found", "", "{\"message\":\"no\"}"] {
        let server = always("404 Not Found", "text/html", body);
        for command in [
            &["read", "secret/a"][..],
            &["list", "secret/"],
            &["kv", "get", "secret/a"],
            &["kv", "list", "secret/"],
            &["policy", "read", "a"],
            &["unwrap", "token"],
            &["namespace", "list"],
            &["namespace", "lookup", "a"],
            &["namespace", "delete", "a"],
            &["delete", "secret/a"],
        ] {
            let done = server.run(command);
            assert!(done.code == 2 && done.stderr.contains("Code: 404"), "{body:?} {command:?}: {done:?}");
        }
    }
    let server = always("404 Not Found", "application/json", "{\"errors\":[]}");
    server.fails(&["read", "secret/a"], 2, "No value found at secret/a");
}

#[test]
fn a_denied_request_without_a_token_suggests_login() {
    let server = always("403 Forbidden", "application/json", "{\"errors\":[\"permission denied\"]}");
    let done = server.run_with(&["read", "secret/a"], &[], "");
    assert!(done.code == 2 && done.stderr.contains("login\" or set VAULT_TOKEN"), "{done:?}");
    let done = server.run(&["read", "secret/a"]);
    assert!(done.code == 2 && !done.stderr.contains("VAULT_TOKEN"), "{done:?}");
}

#[test]
fn a_refused_default_address_suggests_vault_addr() {
    let server = Server::at("");
    let done = server.run(&["status"]);
    assert!(done.code == 1, "{done:?}");
    // A server may listen at port 8200 of a developer's machine; then the connection was not refused.
    if done.stderr.contains("connection refused") {
        assert!(done.stderr.contains("is the default; VAULT_ADDR names another server"), "{done:?}");
    }
}
