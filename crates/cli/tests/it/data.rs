//! Data from arguments, files and stdin, as the server receives it.

use crate::server::Server;

#[test]
fn a_value_comes_from_arguments_files_or_stdin() {
    let server = Server::find();
    let key = format!("{}/d", server.kv(1));
    let file = server.home().join("value.txt");
    std::fs::write(&file, "from a file\n").unwrap();
    let from_file = format!("file=@{}", file.display());
    let root = server.token();
    let put = server.run_with(
        &["write", &key, "plain=x=y", "many=1", "many=2", &from_file, "stdin=-", "at=\\@x"],
        &[("VAULT_TOKEN", root)],
        "from stdin",
    );
    assert_eq!((put.code, put.stdout.as_str()), (0, format!("Success! Data written to: {key}\n").as_str()), "{put:?}");
    let json = server.ok(&["kv", "get", "-format=json", &key]);
    let data = "\"data\": {\n    \"at\": \"@x\",\n    \"file\": \"from a file\\n\",\n    \"many\": [\n      \"1\",\n      \"2\"\n    ],\n    \"plain\": \"x=y\",\n    \"stdin\": \"from stdin\"\n  }";
    assert!(json.contains(data), "{json}");
}

#[test]
fn a_file_can_hold_all_data() {
    let server = Server::find();
    let key = format!("{}/d", server.kv(2));
    let file = server.home().join("value.json");
    std::fs::write(&file, r#"{"n": 5, "o": {"x": [true]}}"#).unwrap();
    server.ok(&["kv", "put", &key, &format!("@{}", file.display())]);
    assert_eq!(server.ok(&["kv", "get", "-field=o", &key]), "map[x:[true]]");
}

#[test]
fn arguments_of_a_read_are_a_query() {
    let server = Server::find();
    let kv = server.kv(2);
    server.ok(&["kv", "put", &format!("{kv}/q"), "a=1"]);
    server.ok(&["kv", "put", &format!("{kv}/q"), "a=2"]);
    assert_eq!(server.ok(&["read", "-field=data", &format!("{kv}/data/q"), "version=1"]), "map[a:1]");
}
