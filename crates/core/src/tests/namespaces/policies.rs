//! Policies act in their own namespace and below it, by the path relative to it.

use serde_json::{Value, json};

use super::tenants::{create, mount_kv, set, token_of, within};
use crate::tests::fixture::{ROOT, TestServer};

/// The namespaces of the tests; each has `kv/x`.
const ALL: [&str; 4] = ["", "a", "a/b", "c"];

async fn tree() -> TestServer {
    let server = TestServer::new().await;
    for path in ["a", "a/b", "c"] {
        create(&server, path).await;
    }
    for path in ALL {
        mount_kv(&server, path).await;
        set(&server, path, "kv/x", json!({ "k": "v" })).await;
    }
    server
}

fn read(path: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n")
}

fn deny(path: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [\"deny\"] }}\n")
}

/// The namespaces whose `kv/x` a token of `home` with this policy reads.
async fn readable(server: &TestServer, home: &str, policy: &str) -> Vec<&'static str> {
    set(server, home, "sys/policies/acl/p", json!({ "policy": policy })).await;
    let token = token_of(server, home, json!({ "policies": ["p"], "no_default_policy": true })).await;
    let mut out = Vec::new();
    for path in ALL {
        let by_header = within(server, path, ("GET", "kv/x"), &token, Value::Null).await.status;
        if !path.is_empty() {
            let by_path = within(server, "", ("GET", &format!("{path}/kv/x")), &token, Value::Null).await.status;
            assert_eq!(by_path, by_header, "{path}: {policy}");
        }
        match by_header {
            200 => out.push(path),
            403 => {}
            other => panic!("{path} {policy}: {other}"),
        }
    }
    out
}

#[tokio::test]
async fn sec_ac12_rules_of_root_match_paths_relative_to_root() {
    let server = tree().await;
    for (rule, expected) in [
        ("*", &["", "a", "a/b", "c"][..]),
        ("+/*", &["", "a", "a/b", "c"]),
        ("+", &[]),
        ("a/kv/*", &["a"]),
        ("a/kv/x", &["a"]),
        ("/a/kv/x", &["a"]),
        ("+/kv/*", &["a", "c"]),
        ("+/kv/x", &["a", "c"]),
        ("+/+/+", &["a", "c"]),
        ("+/+/kv/x", &["a/b"]),
        ("a/b/*", &["a/b"]),
        ("a/+/kv/x", &["a/b"]),
        ("+/+/+/+", &["a/b"]),
        ("a/*", &["a", "a/b"]),
        ("kv/*", &[""]),
        ("kv/x", &[""]),
        ("+/+", &[""]),
        ("a+", &[]),
        ("*x", &[]),
        ("a/", &[]),
        ("A/kv/x", &[]),
        ("root/kv/x", &[]),
        ("c/../a/kv/x", &[]),
    ] {
        assert_eq!(readable(&server, "", &read(rule)).await, expected, "{rule}");
    }
}

#[tokio::test]
async fn sec_ac12_rules_of_a_namespace_never_reach_above_or_beside_it() {
    let server = tree().await;
    for (rule, expected) in [
        ("*", &["a", "a/b"][..]),
        ("+/*", &["a", "a/b"]),
        ("kv/*", &["a"]),
        ("kv/x", &["a"]),
        ("b/kv/x", &["a/b"]),
        ("+/kv/x", &["a/b"]),
        ("b/*", &["a/b"]),
        ("a/kv/x", &[]),
        ("c/kv/x", &[]),
        ("../kv/x", &[]),
        ("/kv/x", &["a"]),
        ("root/kv/x", &[]),
        ("+/+/kv/x", &[]),
    ] {
        assert_eq!(readable(&server, "a", &read(rule)).await, expected, "{rule}");
    }
    assert_eq!(readable(&server, "c", &read("*")).await, ["c"]);
    assert_eq!(readable(&server, "a/b", &read("*")).await, ["a/b"]);
}

#[tokio::test]
async fn sec_ac12_denials_cross_like_grants() {
    let server = tree().await;
    for (policy, expected) in [
        (read("*") + &deny("a/*"), &["", "c"][..]),
        (read("*") + &deny("a*"), &["", "c"]),
        (read("*") + &deny("a/b/*"), &["", "a", "c"]),
        (read("*") + &deny("+/kv/x"), &["", "a/b"]),
        (deny("*") + &read("a/*"), &["a", "a/b"]),
        (deny("kv/x") + &read("*"), &["a", "a/b", "c"]),
        (read("*") + &deny("A/KV/X"), &["", "a/b", "c"]),
    ] {
        assert_eq!(readable(&server, "", &policy).await, expected, "{policy}");
    }
}

/// The design of namespaces: a `*` inside a segment grants nothing in a namespace, so that a rule for the paths of
/// root that begin with some letters does not grant in a namespace that is created later.
#[tokio::test]
async fn a_star_inside_a_segment_also_enters_namespaces() {
    let server = tree().await;
    assert_eq!(readable(&server, "", &read("a*")).await, ["a", "a/b"]);
    assert_eq!(readable(&server, "a", &read("b*")).await, ["a/b"]);
    assert_eq!(readable(&server, "", &read("k*")).await, [""]);
    assert_eq!(readable(&server, "", &read("a/k*")).await, ["a"]);
    assert_eq!(readable(&server, "", &read("a/b*")).await, ["a/b"]);
}

#[tokio::test]
async fn sec_ns01_rules_written_before_grant_nothing_in_a_later_namespace() {
    let server = TestServer::new().await;
    create(&server, "p").await;
    mount_kv(&server, "p").await;
    for (n, rule) in
        ["kv/*", "kv/x", "kv/+", "team/kv", "kv/team/*", "sys/*", "+/x", "sys/mounts/+"].into_iter().enumerate()
    {
        let name = format!("early{n}");
        set(&server, "p", &format!("sys/policies/acl/{name}"), json!({ "policy": read(rule) })).await;
        let token = token_of(&server, "p", json!({ "policies": [name], "no_default_policy": true })).await;
        let late = format!("p/late{n}");
        create(&server, &late).await;
        mount_kv(&server, &late).await;
        set(&server, &late, "kv/x", json!({ "k": "v" })).await;
        for path in ["kv/x", "sys/mounts", "sys/mounts/kv", "sys/policies/acl/default", "auth/token/lookup-accessor"] {
            within(&server, &late, ("GET", path), &token, Value::Null).await.is(403);
            within(&server, "", ("GET", &format!("{late}/{path}")), &token, Value::Null).await.is(403);
        }
    }
    // The policy `default` of a namespace does not reach below it.
    let token = token_of(&server, "p", json!({})).await;
    for path in ["cubbyhole/x", "sys/internal/ui/resultant-acl", "sys/capabilities-self"] {
        within(&server, "p/late0", ("GET", path), &token, Value::Null).await.is(403);
    }
}

#[tokio::test]
async fn sudo_crosses_with_its_rule_only() {
    let server = tree().await;
    let rule = |path: &str, sudo: bool| {
        let more = if sudo { ", \"sudo\"" } else { "" };
        format!("path \"{path}\" {{ capabilities = [\"read\", \"list\", \"update\"{more}] }}\n")
    };
    let path = ("LIST", "auth/token/accessors");
    for (policy, allowed) in [
        (rule("*", false), false),
        (rule("*", true), true),
        (rule("a/auth/token/accessors/", true), true),
        (rule("auth/token/accessors/", true) + &rule("*", false), false),
        (rule("a/*", false) + &rule("*", true), false),
    ] {
        set(&server, "", "sys/policies/acl/p", json!({ "policy": policy })).await;
        let token = token_of(&server, "", json!({ "policies": ["p"] })).await;
        let status = within(&server, "a", path, &token, Value::Null).await.status;
        // An empty list is 404.
        assert_eq!(status == 404, allowed, "{policy}: {status}");
        assert!(matches!(status, 403 | 404), "{policy}: {status}");
    }
}

#[tokio::test]
async fn capabilities_are_those_of_the_path_in_the_namespace_of_the_request() {
    let server = tree().await;
    let policy = read("a/kv/x") + r#"path "+/sys/capabilities-self" { capabilities = ["update"] }"#;
    set(&server, "", "sys/policies/acl/p", json!({ "policy": policy })).await;
    let token = token_of(&server, "", json!({ "policies": ["p"] })).await;
    let ask = json!({ "paths": ["kv/x", "a/kv/x"] });
    let here = within(&server, "", ("POST", "sys/capabilities-self"), &token, ask.clone()).await.ok();
    assert_eq!((&here.body["kv/x"], &here.body["a/kv/x"]), (&json!(["deny"]), &json!(["read"])));
    let there = within(&server, "a", ("POST", "sys/capabilities-self"), &token, ask.clone()).await.ok();
    assert_eq!((&there.body["kv/x"], &there.body["a/kv/x"]), (&json!(["read"]), &json!(["deny"])));
    within(&server, "a/b", ("POST", "sys/capabilities-self"), &token, ask.clone()).await.is(403);
    let root = within(&server, "a/b", ("POST", "sys/capabilities-self"), ROOT, ask).await.ok();
    assert_eq!(root.body["kv/x"], json!(["root"]));
}

#[tokio::test]
async fn a_change_of_a_policy_counts_below_at_the_next_request() {
    let server = tree().await;
    set(&server, "a", "sys/policies/acl/p", json!({ "policy": read("b/kv/x") })).await;
    let token = token_of(&server, "a", json!({ "policies": ["p"] })).await;
    let reads = async |header: &str| within(&server, header, ("GET", "kv/x"), &token, Value::Null).await.status;
    assert_eq!((reads("a").await, reads("a/b").await), (403, 200));
    set(&server, "a", "sys/policies/acl/p", json!({ "policy": read("kv/x") })).await;
    assert_eq!((reads("a").await, reads("a/b").await), (200, 403));
    // A policy of this name in another namespace has no effect.
    for other in ["", "a/b", "c"] {
        set(&server, other, "sys/policies/acl/p", json!({ "policy": read("*") })).await;
    }
    assert_eq!((reads("a").await, reads("a/b").await, reads("").await), (200, 403, 403));
    within(&server, "a", ("DELETE", "sys/policies/acl/p"), ROOT, Value::Null).await.ok();
    assert_eq!((reads("a").await, reads("a/b").await), (403, 403));
}

#[tokio::test]
async fn identity_policies_are_those_of_the_namespace_of_the_token() {
    let server = tree().await;
    super::tenants::mount_userpass(&server, "a", json!([])).await;
    for other in ["", "a/b", "c"] {
        set(&server, other, "sys/policies/acl/team", json!({ "policy": read("*") })).await;
    }
    set(
        &server,
        "a",
        "sys/policies/acl/team",
        json!({ "policy": read("kv/x") + &read("b/kv/{{identity.entity.name}}") }),
    )
    .await;
    let login = super::tenants::log_in(&server, "a", "right").await.ok();
    let (token, entity) = (login.token(), login.body["auth"]["entity_id"].as_str().unwrap().to_owned());
    let statuses = async || {
        let mut out = Vec::new();
        for path in ALL {
            out.push(within(&server, path, ("GET", "kv/x"), &token, Value::Null).await.status);
        }
        out
    };
    assert_eq!(statuses().await, [403, 403, 403, 403]);
    let group = json!({ "name": "g", "policies": ["team"], "member_entity_ids": [entity] });
    set(&server, "a", "identity/group", group.clone()).await;
    assert_eq!(statuses().await, [403, 200, 403, 403]);
    set(&server, "a", &format!("identity/entity/id/{entity}"), json!({ "name": "x" })).await;
    assert_eq!(statuses().await, [403, 200, 200, 403], "the template names a path below");
    set(&server, "a", &format!("identity/entity/id/{entity}"), json!({ "disabled": true })).await;
    assert_eq!(statuses().await, [403, 403, 403, 403]);
}

#[tokio::test]
async fn explanations_agree_with_decisions_across_namespaces() {
    let server = tree().await;
    let everything = super::tenants::EVERYTHING;
    for (home, policy) in
        [("", read("a/kv/x")), ("", read("*") + &deny("a/b/*")), ("a", read("+/kv/x")), ("a", read("kv/*"))]
    {
        set(&server, home, "sys/policies/acl/p", json!({ "policy": policy })).await;
        let explain = r#"path "+/sys/policies/explain" { capabilities = ["update"] } path "sys/policies/explain" { capabilities = ["update"] } path "a/b/sys/policies/explain" { capabilities = ["update"] } path "b/sys/policies/explain" { capabilities = ["update"] }"#;
        set(&server, home, "sys/policies/acl/explain", json!({ "policy": explain })).await;
        let token = token_of(&server, home, json!({ "policies": ["p", "explain"], "no_default_policy": true })).await;
        for path in ALL {
            let read = within(&server, path, ("GET", "kv/x"), &token, Value::Null).await.status == 200;
            let ask = json!({ "path": "kv/x", "operation": "read" });
            let explained = within(&server, path, ("POST", "sys/policies/explain"), &token, ask).await;
            if explained.status == 200 {
                assert_eq!(explained.data()["allowed"], json!(read), "{home} {path} {policy}: {explained:?}");
            }
        }
    }
    assert!(!everything.is_empty());
}
