//! Tables, JSON, YAML and single fields.

use crate::server::Server;

const VALUE: &str =
    r#"{"b": true, "f": 1.5, "l": [1, "a", {"q": null}], "n": 5, "o": {"x": "1"}, "s": "a\nb<>&", "y": "yes"}"#;

#[test]
fn prints_a_value_in_every_format() {
    let server = Server::find();
    let key = format!("{}/v", server.kv(1));
    let root = server.token().to_owned();
    let put = server.run_with(&["kv", "put", &key, "-"], &[("VAULT_TOKEN", &root)], VALUE);
    assert_eq!(put.code, 0, "{put:?}");

    let table = "== Data ==\nKey    Value\n---    -----\nb      true\nf      1.5\nl      [1 a map[q:<nil>]]\nn      5\no      map[x:1]\ns      a\nb<>&\ny      yes\n";
    assert_eq!(server.ok(&["kv", "get", &key]), table);

    let json = server.ok(&["kv", "get", "-format=json", &key]);
    let expected = concat!(
        "  \"lease_id\": \"\",\n  \"lease_duration\": 2764800,\n  \"renewable\": false,\n  \"data\": {\n    \"b\": true,\n    \"f\": 1.5,\n    \"l\": [\n      1,\n",
        "      \"a\",\n      {\n        \"q\": null\n      }\n    ],\n    \"n\": 5,\n    \"o\": {\n      \"x\": \"1\"\n    },\n",
        "    \"s\": \"a\\nb\\u003c\\u003e\\u0026\",\n    \"y\": \"yes\"\n  },\n  \"warnings\": null\n}\n"
    );
    assert!(json.starts_with("{\n  \"request_id\": \"") && json.ends_with(expected), "{json}");

    let yaml = server.ok(&["kv", "get", "-format=yaml", &key]);
    let expected = concat!(
        "data:\n  b: true\n  f: 1.5\n  l:\n  - 1\n  - a\n  - q: null\n  \"n\": 5\n  o:\n    x: \"1\"\n  s: |-\n    a\n    b<>&\n",
        "  \"y\": \"yes\"\nlease_duration: 2764800\nlease_id: \"\"\nrenewable: false\nrequest_id: "
    );
    assert!(yaml.starts_with(expected) && yaml.ends_with("\nwarnings: null\n"), "{yaml}");

    assert_eq!(server.ok(&["kv", "get", "-field=o", "-format=json", &key]), "{\n  \"x\": \"1\"\n}");
    assert_eq!(server.ok(&["kv", "get", "-field=o", "-format=yaml", &key]), "x: \"1\"\n");
    assert_eq!(server.ok(&["read", "-field=l", &key]), "[1 a map[q:<nil>]]");
    server.fails(&["read", "-field=none", &key], 1, "Field \"none\" not present in secret");
}

#[test]
fn the_format_flag_goes_before_the_environment() {
    let server = Server::find();
    let kv = server.kv(1);
    server.ok(&["kv", "put", &format!("{kv}/a"), "b=c"]);
    let root = server.token();
    for variable in ["VAULT_FORMAT", "BAO_FORMAT", "KEEPFAST_FORMAT"] {
        let done = server.run_with(&["kv", "list", &kv], &[("VAULT_TOKEN", root), (variable, "json")], "");
        assert_eq!(done.stdout, "[\n  \"a\"\n]\n", "{variable}");
    }
    let done =
        server.run_with(&["kv", "list", "-format=yaml", &kv], &[("VAULT_TOKEN", root), ("VAULT_FORMAT", "json")], "");
    assert_eq!(done.stdout, "- a\n");
}

#[test]
fn raw_prints_the_body_unchanged() {
    let server = Server::find();
    let raw = server.ok(&["read", "-format=raw", "auth/token/lookup-self"]);
    assert!(raw.starts_with("{\"request_id\":\"") && raw.contains("\"data\":{"), "{raw}");
    server.fails(&["kv", "get", "-format=raw", "a/b"], 1, "This command does not support the -format=raw option.");
}

#[test]
fn a_pipe_gets_no_colours() {
    let server = Server::find();
    let kv = server.kv(2);
    let written = server.run(&["kv", "delete", &format!("{kv}/none")]);
    let refused = server.run(&["read", "-nope", "x"]);
    assert!(!(written.stdout + &refused.stderr).contains('\x1b'));
}
