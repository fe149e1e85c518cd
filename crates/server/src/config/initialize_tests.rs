//! The `initialize` stanzas.

#![allow(clippy::unwrap_used)]

use crate::config::{Config, ConfigError, Environment, load};

const BASE: &str = "storage \"raft\" { path = \"/d\" }\nlistener \"tcp\" { tls_disable = 1 }\n";
const SEAL: &str =
    "seal \"static\" { current_key_id = \"1\" current_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\" }\n";

fn read_over(base: &str, stanzas: &str, extension: &str) -> Result<(Config, Vec<String>), ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.hcl"), dir.path().join(format!("b.{extension}")));
    std::fs::write(&first, base).unwrap();
    std::fs::write(&second, stanzas).unwrap();
    let loaded = load(&[first, second], &Environment::of(&[]));
    loaded.map(|(config, warnings)| (config, warnings.iter().map(|warning| warning.message.clone()).collect()))
}

fn read(stanzas: &str) -> Result<(Config, Vec<String>), ConfigError> {
    read_over(&format!("{BASE}{SEAL}"), stanzas, "hcl")
}

fn error(stanzas: &str) -> String {
    read(stanzas).err().map(|error| error.to_string()).unwrap_or_default()
}

fn request(keys: &str) -> String {
    format!("initialize \"one\" {{ request \"x\" {{ {keys} }} }}")
}

#[test]
fn the_stanzas_of_the_documentation_of_openbao_are_read() {
    let (config, warnings) = read(
        r#"
initialize "identity" {
  request "userpass-add-admin" {
    operation = "update"
    path = "auth/userpass/users/admin"
    data = {
      "password" = { eval_type = "string" eval_source = "env" env_var = "ADMIN_PASSWORD" require_present = true }
      "token_policies" = ["superuser"]
    }
  }
  request "login" {
    operation = "update"
    path = "auth/userpass/login/admin"
    data { password { eval_type = "string" eval_source = "request" initialize_name = "identity"
      request_name = "userpass-add-admin" field_selector = ["data", "password"] } }
    allow_failure = true
  }
}
initialize "example" {
  request "use-auth" {
    operation = "read"
    path = { eval_type = "string" eval_source = "file" path = "/etc/path" }
    token = { eval_type = "string" eval_source = "response" initialize_name = "identity" response_name = "login"
      field_selector = ["auth", "client_token"] }
  }
}"#,
    )
    .unwrap();
    assert_eq!((format!("{:?}", config.self_init), warnings), ("3 requests".to_owned(), Vec::new()));
    let json = r#"{"initialize": [{"audit": {"request": [
        {"kv": {"operation": "update", "path": "sys/mounts/kv", "data": {"type": "kv"}}},
        {"read": {"operation": "read", "path": "sys/mounts"}}]}}]}"#;
    let (config, _) = read_over(&format!("{BASE}{SEAL}"), json, "json").unwrap();
    assert_eq!(format!("{:?}", config.self_init), "2 requests");
}

#[test]
fn stanzas_need_a_seal_that_unseals_by_itself() {
    let stanzas = request("operation = \"read\" path = \"sys/mounts\"");
    let refused = read_over(BASE, &stanzas, "hcl").err().unwrap().to_string();
    assert!(refused.starts_with("self-initialization requires auto-unseal as there is no way to persist"), "{refused}");
    let disabled = SEAL.replace("{ current", "{ disabled = true current");
    assert!(read_over(&format!("{BASE}{disabled}"), &stanzas, "hcl").is_err());
    assert!(read_over(BASE, "", "hcl").unwrap().0.self_init.is_empty());
}

#[test]
fn an_invalid_request_is_an_error_with_its_position() {
    for (keys, why) in [
        ("path = \"a\"", "At 1:20: request \"x\" needs an operation"),
        ("operation = \"read\"", "request \"x\" needs a path"),
        ("operation = \"write\" path = \"a\"", "unknown operation \"write\"; there are create, update"),
        ("operation = 5 path = \"a\"", "operation must be a string or a source"),
        ("operation = \"read\" path = \"a/../b\"", "relative paths not supported"),
        ("operation = \"read\" path = \"a\" data = \"x\"", "data must be an object or a source"),
        ("operation = \"read\" path = \"a\" data = { a = 1 a = 2 }", "a is set twice"),
        ("operation = \"read\" path = \"a\" allow_failure = \"perhaps\"", "allow_failure must be"),
        ("operation = \"read\" path = { eval_source = \"env\" env_var = \"X\" }", "a source needs eval_type"),
        ("operation = \"read\" path = { eval_type = \"string\" env_var = \"X\" }", "a source needs eval_source"),
        (
            "operation = \"read\" path = { eval_source = \"env\" eval_type = \"str\" env_var = \"X\" }",
            "unknown eval_type \"str\"; there are string, int",
        ),
        ("operation = \"read\" path = { eval_source = \"vault\" eval_type = \"string\" }", "unknown eval_source"),
        ("operation = \"read\" path = { eval_source = \"file\" eval_type = \"string\" }", "a source needs path"),
        (
            "operation = \"read\" path = { eval_source = \"response\" eval_type = \"string\" initialize_name = \"one\" response_name = \"y\" }",
            "field_selector must be",
        ),
        (
            "operation = \"read\" path = { eval_source = \"response\" eval_type = \"string\" initialize_name = \"one\" response_name = \"x\" field_selector = \"data\" }",
            "one.x is not an earlier request",
        ),
    ] {
        let refused = error(&request(keys));
        assert!(refused.contains(why), "{keys}: {refused}");
    }
}

#[test]
fn names_are_unique_and_plain() {
    let plain = "operation = \"read\" path = \"a\"";
    assert!(
        error(&format!("initialize \"1a\" {{ request \"x\" {{ {plain} }} }}")).contains("must begin with a letter")
    );
    assert!(
        error(&format!("initialize \"a\" {{ request \"x y\" {{ {plain} }} }}")).contains("must begin with a letter")
    );
    let twice = format!("initialize \"a\" {{ request \"x\" {{ {plain} }} request \"x\" {{ {plain} }} }}");
    assert!(error(&twice).contains("two requests are named a.x"), "{}", error(&twice));
    assert!(error("initialize \"a\" {}\ninitialize \"a\" {}").contains("two initialize stanzas are named \"a\""));
    assert!(!error("initialize { request \"x\" {} }").is_empty());
}

#[test]
fn unknown_fields_are_warned_of() {
    let keys = "operation = \"read\" path = { eval_source = \"env\" eval_type = \"string\" env_var = \"X\" require = true } headers = {}";
    let (_, warnings) = read(&request(keys)).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("unknown field require of the source env")));
    assert!(warnings.iter().any(|warning| warning.contains("headers")));
}

#[test]
fn a_recovery_block_has_a_possible_shape_and_an_absolute_path() {
    let recovery = |keys: &str| format!("initialize \"a\" {{ recovery {{ {keys} }} }}");
    let good = "shares = 3 threshold = 2 output = \"/run/keys.json\"";
    assert!(!read(&recovery(good)).unwrap().0.self_init.is_empty());
    assert!(error(&recovery("shares = 3 threshold = 2")).contains("absolute path of a file"));
    assert!(error(&recovery("shares = 3 threshold = 2 output = \"keys\"")).contains("absolute path of a file"));
    assert!(error(&recovery("shares = 3 threshold = 4 output = \"/k\"")).contains("threshold cannot be larger"));
    assert!(error(&recovery("threshold = 4 output = \"/k\"")).contains("shares must be at least one"));
    assert!(error(&recovery(&format!("{good} pgp_keys = [\"/a\"]"))).contains("one file for each of the shares"));
    let twice = format!("initialize \"a\" {{ recovery {{ {good} }} }}\ninitialize \"b\" {{ recovery {{ {good} }} }}");
    assert!(error(&twice).contains("one recovery block"));
}

#[test]
fn a_node_that_joins_does_not_initialize_itself() {
    let stanzas = request("operation = \"read\" path = \"sys/mounts\"");
    assert!(super::runs(&read(&stanzas).unwrap().0));
    let joins =
        BASE.replace("path = \"/d\"", "path = \"/d\"\nretry_join { leader_api_addr = \"http://127.0.0.1:1\" }\n");
    assert!(!super::runs(&read_over(&format!("{joins}{SEAL}"), &stanzas, "hcl").unwrap().0));
}
