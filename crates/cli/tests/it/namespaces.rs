//! `namespace …`, and `-namespace` of every command.

use crate::recorder::{Seen, response, start};
use crate::server::{Done, Server, unique};

const TEAM: &str = r#"{"custom_metadata":{"owner":"sally"},"id":"wsC8yb","locked":false,"path":"team/","tainted":false,"uuid":"9544"}"#;
const TEAM_TABLE: &str = "Key                Value\n---                -----\ncustom_metadata    map[owner:sally]\nid                 wsC8yb\n\
     locked             false\npath               team/\ntainted            false\nuuid               9544\n";
const TEAM_JSON: &str = "{\n  \"custom_metadata\": {\n    \"owner\": \"sally\"\n  },\n  \"id\": \"wsC8yb\",\n  \"locked\": false,\n  \
     \"path\": \"team/\",\n  \"tainted\": false,\n  \"uuid\": \"9544\"\n}\n";
const NAMES: &str =
    r#"{"data":{"key_info":{"team/":{"id":"b","path":"team/"},"a/":{"id":"c","path":"a/"}},"keys":["team/","a/"]}}"#;

/// A response with this data.
fn data(data: &str) -> String {
    response(200, "", &format!(r#"{{"data":{data}}}"#))
}

/// Runs a command against a server that sends one response, and returns the request, too.
fn exchange(response: String, arguments: &[&str]) -> (Done, Seen) {
    let (address, seen) = start(vec![response]);
    let done = Server::at(&address).run(arguments);
    let seen =
        seen.lock().unwrap().first().cloned().unwrap_or_else(|| panic!("{arguments:?} sends no request: {done:?}"));
    (done, seen)
}

#[test]
fn a_namespace_is_created_patched_and_looked_up() {
    let create = ["namespace", "create", "-custom-metadata=owner=sally", "-custom-metadata", "k=v=w", "/team/"];
    let (done, seen) = exchange(data(TEAM), &create);
    assert_eq!((done.code, done.stdout.as_str()), (0, TEAM_TABLE), "{done:?}");
    assert_eq!(seen.line, "POST /v1/sys/namespaces/team HTTP/1.1");
    assert_eq!(seen.body, r#"{"custom_metadata":{"owner":"sally","k":"v=w"}}"#);
    let (done, seen) = exchange(data(TEAM), &["namespace", "create", "-format=json", "team"]);
    assert_eq!((done.stdout.as_str(), seen.body.as_str()), (TEAM_JSON, r#"{"custom_metadata":{}}"#));
    let (done, _) = exchange(data(TEAM), &["namespace", "create", "-field=id", "team"]);
    assert_eq!(done.stdout, "wsC8yb");
    let (done, _) = exchange(data(TEAM), &["namespace", "create", "-field=nope", "team"]);
    assert_eq!((done.code, done.stderr.as_str()), (1, "Field \"nope\" not present in map\n"));

    let patch = ["namespace", "patch", "-custom-metadata=a=1", "-remove-custom-metadata=b", "team"];
    let (done, seen) = exchange(data(TEAM), &patch);
    assert_eq!((done.code, done.stdout.as_str()), (0, TEAM_TABLE), "{done:?}");
    assert_eq!(seen.line, "PATCH /v1/sys/namespaces/team HTTP/1.1");
    assert_eq!(seen.body, r#"{"custom_metadata":{"a":"1","b":null}}"#);

    let (done, seen) = exchange(data(TEAM), &["namespace", "lookup", "team/"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, TEAM_TABLE), "{done:?}");
    assert_eq!(seen.line, "GET /v1/sys/namespaces/team HTTP/1.1");
    let (done, _) = exchange(data(TEAM), &["namespace", "lookup", "-format=yaml", "team"]);
    assert!(done.stdout.starts_with("custom_metadata:\n  owner: sally\nid: wsC8yb\n"), "{done:?}");
    let (done, _) = exchange(response(404, "", r#"{"errors":[]}"#), &["namespace", "lookup", "absent"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (2, "", "Namespace not found\n"));
}

#[test]
fn namespaces_are_listed_in_order() {
    let (done, seen) = exchange(response(200, "", NAMES), &["namespace", "list"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Keys\n----\na/\nteam/\n"));
    assert_eq!(seen.line, "GET /v1/sys/namespaces?list=true HTTP/1.1");
    let (done, seen) = exchange(response(200, "", NAMES), &["namespace", "scan", "-format=json"]);
    assert_eq!(done.stdout, "[\n  \"a/\",\n  \"team/\"\n]\n");
    assert_eq!(seen.line, "GET /v1/sys/namespaces?scan=true HTTP/1.1");
    let (done, _) = exchange(response(200, "", NAMES), &["namespace", "list", "-detailed"]);
    assert_eq!(done.stdout, "Keys     id    path\n----     --    ----\na/       c     a/\nteam/    b     team/\n");
    let (done, _) = exchange(response(200, "", NAMES), &["namespace", "scan", "-detailed", "-format=yaml"]);
    assert_eq!(done.stdout, "a/:\n  id: c\n  path: a/\nteam/:\n  id: b\n  path: team/\n");
}

#[test]
fn a_list_without_namespaces_fails_with_code_2() {
    for command in ["list", "scan"] {
        let (done, _) = exchange(response(404, "", r#"{"errors":[]}"#), &["namespace", command]);
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (2, "", "No namespaces found\n"));
        let (done, _) = exchange(response(404, "", r#"{"errors":[]}"#), &["namespace", command, "-format=json"]);
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (2, "{}\n", ""));
    }
    let absent = response(404, "", r#"{"errors":["namespace not found"]}"#);
    let (done, _) = exchange(absent, &["namespace", "list", "-ns=absent"]);
    assert!(done.code == 2 && done.stderr.contains("Namespace: absent/\nURL: GET "), "{done:?}");
    assert!(done.stderr.ends_with("Code: 404. Errors:\n\n* namespace not found\n"), "{done:?}");
}

#[test]
fn a_deleted_namespace_is_named() {
    let (done, seen) = exchange(data(r#"{"status":"in-progress"}"#), &["namespace", "delete", "team/"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Success! Namespace deletion scheduled: team/\n"));
    assert_eq!(seen.line, "DELETE /v1/sys/namespaces/team HTTP/1.1");
    let (done, _) = exchange(response(204, "", ""), &["namespace", "delete", "team"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Success! Namespace deleted: team/\n"));
    let absent = response(200, "", r#"{"data":null,"warnings":["requested namespace does not exist"]}"#);
    let (done, _) = exchange(absent, &["namespace", "delete", "team"]);
    let expected = (0, "", "Requested namespace does not exist\n");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), expected);
}

#[test]
fn a_namespace_is_locked_and_unlocked() {
    let (done, seen) = exchange(data(r#"{"unlock_key":"k3y"}"#), &["namespace", "lock", "team/app/"]);
    assert!(done.code == 0 && done.stdout.starts_with("Unlock Key: k3y\n\n"), "{done:?}");
    assert_eq!(seen.line, "PUT /v1/sys/namespaces/api-lock/lock/team/app HTTP/1.1");
    let (done, seen) = exchange(data(r#"{"unlock_key":"k3y"}"#), &["namespace", "lock", "-format=json"]);
    assert_eq!(done.stdout, "{\n  \"unlock_key\": \"k3y\"\n}\n");
    assert_eq!(seen.line, "PUT /v1/sys/namespaces/api-lock/lock HTTP/1.1");
    let (done, _) = exchange(data(r#"{"unlock_key":"k3y"}"#), &["namespace", "lock", "-field=unlock_key", "team"]);
    assert_eq!(done.stdout, "k3y");

    let (done, seen) = exchange(response(204, "", ""), &["namespace", "unlock", "-unlock-key=k3y", "team"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Namespace unlocked successfully!\n"));
    assert_eq!(seen.line, "PUT /v1/sys/namespaces/api-lock/unlock/team HTTP/1.1");
    assert_eq!(seen.body, r#"{"unlock_key":"k3y"}"#);
    let sudo = response(200, "", r#"{"data":null,"warnings":["Namespace unlocked using sudo capabilities"]}"#);
    let (done, seen) = exchange(sudo, &["namespace", "unlock"]);
    let expected = (0, "", "Namespace unlocked using sudo capabilities\n");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), expected);
    assert_eq!(seen.line, "PUT /v1/sys/namespaces/api-lock/unlock HTTP/1.1");
    let wrong = response(400, "", r#"{"errors":["incorrect unlock key"]}"#);
    let (done, _) = exchange(wrong, &["namespace", "unlock", "-unlock-key=s3cret", "team"]);
    assert!(
        done.code == 2 && done.stderr.starts_with("Error unlocking namespace: Error making API request."),
        "{done:?}"
    );
    assert!(!done.stderr.contains("s3cret"));
}

#[test]
fn a_wrapped_response_is_printed_as_a_wrapping_token() {
    let wrapped = r#"{"data":null,"wrap_info":{"token":"s.w","accessor":"a","ttl":60,"creation_time":"2026-01-01T00:00:00Z","creation_path":"p"}}"#;
    for command in [
        &["namespace", "create", "-wrap-ttl=60", "team"][..],
        &["namespace", "list", "-wrap-ttl=60"],
        &["namespace", "lookup", "-wrap-ttl=60", "team"],
        &["namespace", "patch", "-wrap-ttl=60", "-custom-metadata=a=1", "team"],
        &["namespace", "delete", "-wrap-ttl=60", "team"],
        &["namespace", "lock", "-wrap-ttl=60", "team"],
        &["namespace", "unlock", "-wrap-ttl=60", "team"],
    ] {
        let (done, seen) = exchange(response(200, "", wrapped), command);
        assert!(done.code == 0 && done.stdout.contains("wrapping_token:                  s.w\n"), "{done:?}");
        assert!(seen.has("x-vault-wrap-ttl: 1m0s"), "{:?}", seen.headers);
    }
}

/// Commands of every group, each with at least one request.
const CALLS: &[&[&str]] = &[
    &["audit", "list"],
    &["auth", "enable", "userpass"],
    &["auth", "list"],
    &["delete", "a/b"],
    &["kv", "get", "a/b"],
    &["kv", "metadata", "put", "a/b"],
    &["kv", "put", "a/b", "c=d"],
    &["lease", "lookup", "a"],
    &["list", "a"],
    &["login", "-method=approle", "role_id=r"],
    &["login", "-method=userpass", "username=u", "password=p"],
    &["login", "-no-store", "root"],
    &["namespace", "create", "a"],
    &["namespace", "lock"],
    &["operator", "key-status"],
    &["operator", "raft", "list-peers"],
    &["operator", "seal"],
    &["patch", "a/b", "c=d"],
    &["path-help", "a"],
    &["plugin", "list"],
    &["policy", "read", "a"],
    &["read", "a/b"],
    &["scan", "a"],
    &["secrets", "enable", "kv"],
    &["status"],
    &["token", "create"],
    &["token", "lookup"],
    &["token", "revoke", "-self"],
    &["transit", "import", "transit/keys/a", "AAAA"],
    &["unwrap"],
    &["version-history"],
    &["write", "a/b", "c=d"],
];

#[test]
fn every_command_sends_the_namespace() {
    for command in CALLS {
        let run = |more: &[&str], variables: &[(&str, &str)]| {
            let (address, seen) = start(vec![response(400, "", r#"{"errors":["no"]}"#)]);
            let server = Server::at(&address);
            let words: Vec<&str> = command.iter().chain(more).copied().collect();
            let variables: Vec<_> = variables.iter().copied().chain([("VAULT_TOKEN", "t")]).collect();
            let done = server.run_with(&words, &variables, "");
            let seen = seen.lock().unwrap().first().cloned();
            seen.unwrap_or_else(|| panic!("{words:?} sends no request: {done:?}"))
        };
        for (more, variables, header) in [
            (&["-namespace=team/app"][..], &[][..], Some("team/app/")),
            (&["-ns", "/team/"], &[("BAO_NAMESPACE", "other")], Some("team/")),
            (&["--ns=éq"], &[], Some("éq/")),
            (&[], &[("VAULT_NAMESPACE", "v")], Some("v/")),
            (&[], &[("BAO_NAMESPACE", "b"), ("VAULT_NAMESPACE", "v")], Some("b/")),
            (&[], &[("KEEPFAST_NAMESPACE", "k/"), ("BAO_NAMESPACE", "b")], Some("k/")),
            (&["-namespace="], &[("VAULT_NAMESPACE", "v")], None),
            (&[], &[], None),
        ] {
            let seen = run(more, variables);
            let sent = seen.headers.iter().find_map(|header| header.strip_prefix("x-vault-namespace: "));
            assert_eq!(sent, header, "{command:?} {more:?} {variables:?}");
        }
    }
}

#[test]
fn a_namespace_that_no_header_can_have_is_refused() {
    let (address, seen) = start(vec![response(204, "", "")]);
    let done = Server::at(&address).run(&["delete", "-ns=team\n", "a/b"]);
    assert_eq!(
        (done.code, done.stderr.as_str()),
        (2, "the namespace contains characters that are invalid in a header\n")
    );
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn names_are_completed_in_the_namespace_of_the_line() {
    let complete = |line: &str, variables: &[(&str, &str)]| {
        let (address, seen) = start(vec![response(200, "", NAMES)]);
        let variables: Vec<_> = variables.iter().copied().chain([("COMP_LINE", line), ("VAULT_TOKEN", "t")]).collect();
        let done = Server::at(&address).run_with(&[], &variables, "");
        let seen = seen.lock().unwrap().first().cloned().unwrap_or_default();
        (done.stdout, seen)
    };
    let (names, seen) = complete("keepfast namespace delete -ns=team t", &[("BAO_NAMESPACE", "b")]);
    assert_eq!((names.as_str(), seen.line.as_str()), ("team/\n", "GET /v1/sys/namespaces?list=true HTTP/1.1"));
    assert!(seen.has("x-vault-namespace: team/"));
    let (_, seen) = complete("keepfast list a/", &[("BAO_NAMESPACE", "b")]);
    assert!(seen.has("x-vault-namespace: b/"), "{seen:?}");
}

#[test]
fn namespaces_of_a_server_are_managed() {
    let server = Server::find();
    let (team, app) = (unique("ns"), "app");
    let ns = format!("-ns={team}");
    let created = server.ok(&["namespace", "create", "-custom-metadata=owner=sally", &team]);
    assert!(created.contains(&format!("path               {team}/\n")), "{created}");
    assert_eq!(server.ok(&["namespace", "create", "-field=path", &ns, app]), format!("{team}/{app}/"));
    assert_eq!(server.ok(&["namespace", "list", &ns]), format!("Keys\n----\n{app}/\n"));
    assert!(server.ok(&["namespace", "scan"]).contains(&format!("\n{team}/\n{team}/{app}/\n")));
    let detailed = server.ok(&["namespace", "list", "-detailed", "-format=json"]);
    assert!(
        detailed.contains(&format!("  \"{team}/\": {{\n    \"custom_metadata\": {{\n      \"owner\": \"sally\"\n")),
        "{detailed}"
    );
    let patch =
        ["namespace", "patch", "-remove-custom-metadata=owner", "-custom-metadata=a=1", "-field=custom_metadata"];
    assert_eq!(server.ok(&[&patch[..], &[&team]].concat()), "map[a:1]");
    assert_eq!(server.ok(&["namespace", "lookup", "-field=custom_metadata", &team]), "map[a:1]");
    server.fails(&["namespace", "lookup", "absent"], 2, "Namespace not found");
    server.fails(&["namespace", "list", &ns, "-namespace=absent"], 2, "namespace not found");

    server.ok(&["secrets", "enable", &ns, "kv"]);
    server.ok(&["kv", "put", &ns, "kv/a", "b=c"]);
    assert_eq!(server.ok(&["kv", "get", &ns, "-field=b", "kv/a"]), "c");
    server.fails(&["kv", "get", "-field=b", "kv/a"], 2, "");

    let key = server.ok(&["namespace", "lock", "-field=unlock_key", &team]);
    server.fails(&["kv", "get", &ns, "kv/a"], 2, &format!("\"{team}/\" must be unlocked to gain access"));
    server.fails(&["namespace", "unlock", "-unlock-key=wrong", &team], 2, "Error unlocking namespace: ");
    let unlocked = server.ok(&["namespace", "unlock", &format!("-unlock-key={key}"), &team]);
    assert_eq!(unlocked, "Namespace unlocked successfully!\n");
    server.ok(&["namespace", "lock", &ns]);
    let done = server.run(&["namespace", "unlock", &ns]);
    assert_eq!((done.code, done.stderr.as_str()), (0, "Namespace unlocked using sudo capabilities\n"));

    server.fails(&["namespace", "delete", &team], 2, "Error deleting namespace: ");
    server.ok(&["namespace", "delete", &ns, app]);
    let absent = server.run(&["namespace", "delete", "absent"]);
    assert_eq!((absent.code, absent.stderr.as_str()), (0, "Requested namespace does not exist\n"));
}
