//! Tokens, leases and cubbyholes across namespaces.

use serde_json::{Value, json};

use super::tenants::{
    ExternalUsers, chief, create, delete, dump, log_in, mount_kv, mount_userpass, restart, set, tenant, token_of,
    with_users, within, wrapped_within,
};
use crate::tests::fixture::{ROOT, TestServer};
use crate::unsealed::NamespaceHost as _;

/// The namespaces `a`, `a/b` and `c` with all rights for the policy `everything` of each and of root.
async fn tree() -> (TestServer, ExternalUsers) {
    let (server, external) = with_users().await;
    for path in ["a", "a/b", "c"] {
        create(&server, path).await;
    }
    for path in ["", "a", "a/b", "c"] {
        mount_kv(&server, path).await;
        set(&server, path, "kv/x", json!({ "at": path })).await;
        set(&server, path, "sys/mounts/users", json!({ "type": "users" })).await;
        set(&server, path, "sys/policies/acl/everything", json!({ "policy": super::tenants::EVERYTHING })).await;
    }
    (server, external)
}

async fn accepts(server: &TestServer, header: &str, token: &str) -> bool {
    let read = within(server, header, ("GET", "kv/x"), token, Value::Null).await;
    match read.status {
        200 => true,
        403 => false,
        other => panic!("{other}: {read:?}"),
    }
}

/// A token that another one creates.
async fn child(server: &TestServer, header: &str, parent: &str, body: Value) -> String {
    within(server, header, ("POST", "auth/token/create"), parent, body).await.ok().token()
}

fn everything() -> Value {
    json!({ "policies": ["everything"] })
}

/// Lets other tasks run until `done`.
async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{what} does not happen");
}

#[tokio::test]
async fn a_parent_above_takes_its_children_in_namespaces_with_it() {
    let (server, _) = tree().await;
    let parent = token_of(&server, "", everything()).await;
    let in_a = child(&server, "a", &parent, everything()).await;
    let in_b = child(&server, "a/b", &in_a, everything()).await;
    let batch = child(&server, "a/b", &in_a, json!({ "policies": ["everything"], "type": "batch" })).await;
    let orphan = child(&server, "a", &parent, json!({ "policies": ["everything"], "no_parent": true })).await;
    let other = token_of(&server, "a/b", everything()).await;
    for (header, token) in [("a", &in_a), ("a/b", &in_b), ("a/b", &batch), ("a", &orphan), ("a/b", &other)] {
        assert!(accepts(&server, header, token).await);
    }
    server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
    for (header, token) in [("a", &in_a), ("a/b", &in_b), ("a/b", &batch)] {
        assert!(!accepts(&server, header, token).await, "{header}");
        server.post("auth/token/lookup", ROOT, json!({ "token": token })).await.is(403);
    }
    assert!(accepts(&server, "a", &orphan).await && accepts(&server, "a/b", &other).await);
    let left = dump(&server).await;
    assert!(!left.keys().any(|key| key.starts_with("token/child/") && left.len() < 2), "{left:#?}");
    // By its own end, and by its expiry.
    let parent = token_of(&server, "a", json!({ "policies": ["everything"], "ttl": "1m" })).await;
    let in_b = child(&server, "a/b", &parent, json!({ "policies": ["everything"], "ttl": "1h" })).await;
    assert!(accepts(&server, "a/b", &in_b).await);
    server.pass(61).await;
    assert!(!accepts(&server, "a/b", &in_b).await);
    let parent = token_of(&server, "a", everything()).await;
    let in_b = child(&server, "a/b", &parent, everything()).await;
    within(&server, "c", ("POST", "auth/token/revoke-self"), &parent, Value::Null).await.is(204);
    assert!(!accepts(&server, "a/b", &in_b).await && !accepts(&server, "a", &parent).await);
}

#[tokio::test]
async fn revoke_orphan_from_above_leaves_children_below() {
    let (server, _) = tree().await;
    let parent = token_of(&server, "a", everything()).await;
    let in_b = child(&server, "a/b", &parent, everything()).await;
    let looked = server.post("auth/token/lookup", ROOT, json!({ "token": in_b })).await.ok();
    assert_eq!(looked.data()["orphan"], false);
    server.post("auth/token/revoke-orphan", ROOT, json!({ "token": parent })).await.is(204);
    assert!(!accepts(&server, "a", &parent).await && accepts(&server, "a/b", &in_b).await);
    let looked = server.post("auth/token/lookup", ROOT, json!({ "token": in_b })).await.ok();
    assert_eq!((&looked.data()["orphan"], &looked.data()["namespace_path"]), (&json!(true), &json!("a/b/")));
}

#[tokio::test]
async fn rows_about_the_own_token_run_in_its_namespace() {
    let (server, _) = tree().await;
    let token = token_of(&server, "a", json!({ "policies": ["default"], "ttl": "1h" })).await;
    for header in ["", "a", "a/b", "c"] {
        let own = within(&server, header, ("GET", "auth/token/lookup-self"), &token, Value::Null).await.ok();
        assert_eq!(own.data()["namespace_path"], "a/", "{header}");
        within(&server, header, ("POST", "auth/token/renew-self"), &token, json!({})).await.ok();
    }
    within(&server, "none", ("GET", "auth/token/lookup-self"), &token, Value::Null).await.is(404);
    within(&server, "c", ("POST", "auth/token/revoke-self"), &token, Value::Null).await.is(204);
    within(&server, "a", ("GET", "auth/token/lookup-self"), &token, Value::Null).await.is(403);
    let root = within(&server, "a", ("GET", "auth/token/lookup-self"), ROOT, Value::Null).await.ok();
    assert_eq!(root.data().get("namespace_path"), None);
}

#[tokio::test]
async fn a_token_with_another_suffix_is_no_token() {
    let (server, _) = tree().await;
    let (a, c) = (tenant(&server, "x").await, tenant(&server, "y").await);
    let batch = token_of(&server, "x", json!({ "policies": ["everything"], "type": "batch" })).await;
    for token in [&a.token, &batch] {
        within(&server, "x", ("GET", "sys/mounts"), token, Value::Null).await.ok();
        let own = token.rsplit_once('.').unwrap().0;
        let spellings =
            [own.to_owned(), format!("{own}.{}", c.id), format!("{own}.zzzzzz"), format!("{token}.{}", a.id)];
        for spelling in spellings.iter().chain([&format!("{own}."), &format!("{own}.{}x", a.id)]) {
            for header in ["", "x", "y"] {
                within(&server, header, ("GET", "sys/mounts"), spelling, Value::Null).await.is(403);
                within(&server, header, ("GET", "auth/token/lookup-self"), spelling, Value::Null).await.is(403);
                let looked = within(&server, header, ("POST", "auth/token/lookup"), ROOT, json!({ "token": spelling }));
                looked.await.is(403);
            }
        }
    }
    // A root token with a suffix neither.
    within(&server, "x", ("GET", "sys/mounts"), &format!("{ROOT}.{}", a.id), Value::Null).await.is(403);
    within(&server, "x", ("GET", "sys/mounts"), &a.token, Value::Null).await.ok();
}

#[tokio::test]
async fn a_batch_token_of_a_deleted_or_locked_namespace_is_refused() {
    let (server, _) = tree().await;
    let batch = token_of(&server, "a/b", json!({ "policies": ["everything"], "type": "batch" })).await;
    assert!(accepts(&server, "a/b", &batch).await);
    set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await;
    for header in ["", "c"] {
        let status = within(&server, header, ("GET", "auth/token/lookup-self"), &batch, Value::Null).await.status;
        assert!(matches!(status, 403 | 503), "{header}: {status}");
    }
    within(&server, "", ("POST", "sys/namespaces/api-lock/unlock/a"), ROOT, json!({})).await.ok();
    assert!(accepts(&server, "a/b", &batch).await);
    delete(&server, "a/b").await;
    for header in ["", "a", "c"] {
        within(&server, header, ("GET", "auth/token/lookup-self"), &batch, Value::Null).await.is(403);
        within(&server, header, ("POST", "auth/token/lookup"), ROOT, json!({ "token": batch })).await.is(403);
    }
}

#[tokio::test]
async fn uses_are_counted_in_every_namespace() {
    let (server, _) = tree().await;
    let token = token_of(&server, "a", json!({ "policies": ["everything"], "num_uses": 4 })).await;
    assert!(accepts(&server, "a", &token).await && accepts(&server, "a/b", &token).await);
    // A request that another namespace refuses counts no use.
    assert!(!accepts(&server, "c", &token).await && !accepts(&server, "", &token).await);
    within(&server, "a/b", ("POST", "auth/token/create"), &token, everything()).await.is(400);
    assert!(accepts(&server, "a/b", &token).await && !accepts(&server, "a/b", &token).await);
    assert!(!accepts(&server, "a", &token).await);
    let left = dump(&server).await;
    let uses = |value: &String| {
        serde_json::from_str::<Value>(value).is_ok_and(|v| v["num_uses"].as_i64().is_some_and(|n| n != 0))
    };
    assert!(!left.iter().any(|(key, value)| key.starts_with("token/id/") && uses(value)), "the spent token is deleted");
}

#[tokio::test]
async fn a_cubbyhole_is_of_one_token_in_one_namespace() {
    let (server, _) = tree().await;
    let token = token_of(&server, "a", everything()).await;
    let callers = [("", ROOT), ("a", ROOT), ("a/b", ROOT), ("c", ROOT), ("a", token.as_str()), ("a/b", token.as_str())];
    for (n, (header, caller)) in callers.into_iter().enumerate() {
        within(&server, header, ("GET", "cubbyhole/x"), caller, Value::Null).await.is(404);
        within(&server, header, ("POST", "cubbyhole/x"), caller, json!({ "canary": n })).await.ok();
    }
    for (n, (header, caller)) in callers.into_iter().enumerate() {
        let read = within(&server, header, ("GET", "cubbyhole/x"), caller, Value::Null).await.ok();
        assert_eq!(read.data()["canary"], n, "{header}");
    }
    let other = chief(&server, "a").await;
    within(&server, "a", ("GET", "cubbyhole/x"), &other, Value::Null).await.is(404);
    let batch = token_of(&server, "a", json!({ "policies": ["everything"], "type": "batch" })).await;
    let refused = within(&server, "a", ("POST", "cubbyhole/x"), &batch, json!({ "k": "v" })).await.is(400);
    assert_eq!(refused.error(), "cubbyhole operations are only supported by 'service' type tokens");
    server.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
    let kept = dump(&server).await;
    let canaries: Vec<_> = kept.iter().filter(|(_, value)| value.contains("canary")).collect();
    assert_eq!(canaries.len(), 4, "those of the root token: {canaries:#?}");
    delete(&server, "a/b").await;
    let kept = dump(&server).await;
    assert_eq!(kept.values().filter(|value| value.contains("canary")).count(), 3);
    assert_eq!(within(&server, "c", ("GET", "cubbyhole/x"), ROOT, Value::Null).await.ok().data()["canary"], 3);
}

#[tokio::test]
async fn leases_below_are_revoked_with_the_token_from_above() {
    let (server, external) = tree().await;
    let above = token_of(&server, "", everything()).await;
    let own = token_of(&server, "a", everything()).await;
    let mut ids = Vec::new();
    for (header, token) in [("a", &above), ("a/b", &above), ("a/b", &own), ("", &above)] {
        let made = within(&server, header, ("GET", "users/creds/u"), token, Value::Null).await.ok();
        ids.push(made.body["lease_id"].as_str().unwrap().to_owned());
    }
    assert!(ids[0].matches('.').count() == 1 && ids[3].matches('.').count() == 0, "{ids:?}");
    assert_eq!(external.lock().len(), 4);
    server.post("auth/token/revoke", ROOT, json!({ "token": above })).await.ok();
    server.clock.advance(std::time::Duration::from_secs(1));
    until("the revocation of three leases", || external.lock().len() == 1).await;
    server.post("auth/token/revoke", ROOT, json!({ "token": own })).await.ok();
    server.clock.advance(std::time::Duration::from_secs(1));
    until("the revocation of the last lease", || external.lock().is_empty()).await;
    let left = dump(&server).await;
    assert!(!left.keys().any(|key| key.contains("/held/") || key.contains("/users/creds/")), "{left:#?}");
}

#[tokio::test]
async fn leases_and_tokens_of_a_closed_namespace_expire() {
    let (mut server, external) = tree().await;
    let token = token_of(&server, "a/b", json!({ "policies": ["everything"], "ttl": "2h" })).await;
    let short = token_of(&server, "a/b", json!({ "policies": ["everything"], "ttl": "5m" })).await;
    within(&server, "a/b", ("GET", "users/creds/u"), &token, Value::Null).await.ok();
    within(&server, "a/b", ("POST", "cubbyhole/x"), &short, json!({ "canary": "v" })).await.ok();
    restart(&mut server, &external).await;
    assert_eq!(server.node.lifecycle.namespaces().unwrap().opened().len(), 0);
    server.pass(601).await;
    until("the expiry of the lease", || external.lock().is_empty()).await;
    let left = dump(&server).await;
    assert!(!left.values().any(|value| value.contains("canary")), "the token of five minutes is deleted");
    assert!(accepts(&server, "a/b", &token).await);
    within(&server, "a/b", ("GET", "users/creds/u"), &token, Value::Null).await.ok();
    restart(&mut server, &external).await;
    server.pass(7201).await;
    until("the end of the token", || external.lock().is_empty()).await;
    assert!(!accepts(&server, "a/b", &token).await);
    let left = dump(&server).await;
    let id = server.get("a/sys/namespaces/b", ROOT).await.ok().data()["id"].as_str().unwrap().to_owned();
    let field = format!("\"namespace\":\"{id}\"");
    let of_tokens =
        left.iter().filter(|(key, value)| key.starts_with("token/") && (key.contains(&id) || value.contains(&field)));
    assert_eq!(of_tokens.map(|(key, _)| key).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn leases_of_a_locked_namespace_expire() {
    let (server, external) = tree().await;
    let token = token_of(&server, "a/b", json!({ "policies": ["everything"], "ttl": "2h" })).await;
    within(&server, "a/b", ("GET", "users/creds/u"), &token, Value::Null).await.ok();
    set(&server, "", "sys/namespaces/api-lock/lock/a", Value::Null).await;
    server.pass(601).await;
    until("the expiry of the lease", || external.lock().is_empty()).await;
}

#[tokio::test]
async fn a_quarantine_holds_the_leases_of_all_namespaces() {
    let (server, external) = tree().await;
    let token = token_of(&server, "a/b", json!({ "policies": ["everything"], "ttl": "2h" })).await;
    within(&server, "a/b", ("GET", "users/creds/u"), &token, Value::Null).await.ok();
    within(&server, "a", ("POST", "sys/leases/quarantine"), ROOT, json!({ "enabled": true })).await.is(400);
    set(&server, "", "sys/leases/quarantine", json!({ "enabled": true })).await;
    server.pass(601).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(external.lock().len(), 1);
    set(&server, "", "sys/leases/quarantine", json!({ "enabled": false })).await;
    server.clock.advance(std::time::Duration::from_secs(2));
    until("the expiry of the lease", || external.lock().is_empty()).await;
}

#[tokio::test]
async fn a_wrapped_response_is_unwrapped_in_its_namespace_or_above() {
    let (server, _) = tree().await;
    let wrapped = async || wrapped_within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.ok();
    let unwrap = async |header: &str, caller: &str, token: &str| {
        within(&server, header, ("POST", "sys/wrapping/unwrap"), caller, json!({ "token": token })).await
    };
    let (below, beside) = (chief(&server, "a/b").await, chief(&server, "c").await);
    for (header, by) in [("", ROOT), ("a", ROOT)] {
        let made = wrapped().await;
        assert_eq!(made.body["wrap_info"]["creation_path"], "kv/x");
        for (other, caller) in [("c", ROOT), ("a/b", ROOT), ("c", &beside), ("a/b", &below), ("", &beside)] {
            let refused = unwrap(other, caller, &made.wrapping()).await;
            assert!(matches!(refused.status, 400 | 403), "{other}: {refused:?}");
            let refused =
                within(&server, other, ("POST", "sys/wrapping/rewrap"), caller, json!({ "token": made.wrapping() }));
            assert!(matches!(refused.await.status, 400 | 403), "{other}");
        }
        assert_eq!(unwrap(header, by, &made.wrapping()).await.ok().data()["at"], "a", "{header}: it was not consumed");
        unwrap(header, by, &made.wrapping()).await.is(400);
    }
    // As the caller's token it unwraps itself, whatever the header.
    for header in ["", "a", "a/b", "c"] {
        let made = wrapped().await;
        let own = within(&server, header, ("POST", "sys/wrapping/unwrap"), &made.wrapping(), Value::Null).await;
        assert_eq!(own.ok().data()["at"], "a", "{header}");
    }
    let made = wrapped().await;
    let again =
        within(&server, "a", ("POST", "sys/wrapping/rewrap"), ROOT, json!({ "token": made.wrapping() })).await.ok();
    unwrap("a", ROOT, &made.wrapping()).await.is(400);
    assert_eq!(unwrap("a", ROOT, &again.wrapping()).await.ok().data()["at"], "a");
    // From above as well: the response is not lost.
    let made = wrapped().await;
    let again = server.post("sys/wrapping/rewrap", ROOT, json!({ "token": made.wrapping() })).await.ok();
    assert_eq!(unwrap("", ROOT, &again.wrapping()).await.ok().data()["at"], "a");
    let left = dump(&server).await;
    assert!(!left.keys().any(|key| key.ends_with("/wrapinfo")), "{left:#?}");
}

#[tokio::test]
async fn a_wrapping_token_can_do_nothing_else_in_any_namespace() {
    let (server, _) = tree().await;
    for (header, method, path) in [
        ("a", "GET", "kv/x"),
        ("a/b", "GET", "kv/x"),
        ("", "GET", "kv/x"),
        ("a", "GET", "auth/token/lookup-self"),
        ("c", "GET", "auth/token/lookup-self"),
        ("a", "POST", "auth/token/renew-self"),
        ("a", "GET", "sys/mounts"),
    ] {
        let token = wrapped_within(&server, "a", ("GET", "kv/x"), ROOT, Value::Null).await.ok().wrapping();
        let response = within(&server, header, (method, path), &token, Value::Null).await;
        assert_eq!(response.status, 403, "{header} {path}: {response:?}");
    }
}

#[tokio::test]
async fn accessors_are_listed_by_namespace() {
    let (server, _) = tree().await;
    let made = set(&server, "a", "auth/token/create", json!({})).await;
    let below = set(&server, "a/b", "auth/token/create", json!({})).await;
    for (header, expected) in [("a", vec![made.accessor()]), ("a/b", vec![below.accessor()]), ("c", vec![])] {
        let listed = within(&server, header, ("LIST", "auth/token/accessors"), ROOT, Value::Null).await;
        let keys: Vec<String> = serde_json::from_value(listed.data()["keys"].clone()).unwrap_or_default();
        assert_eq!(keys, expected, "{header}");
    }
    let root = server.list("auth/token/accessors", ROOT).await.ok();
    assert!(!root.body.to_string().contains(&made.accessor()));
}

#[tokio::test]
async fn a_token_of_a_login_ends_with_its_mount_also_below() {
    let (server, _) = tree().await;
    mount_userpass(&server, "a", json!(["everything"])).await;
    mount_userpass(&server, "a/b", json!(["everything"])).await;
    let token = log_in(&server, "a", "right").await.ok().token();
    set(&server, "a", "auth/up/users/anna", json!({ "token_type": "batch" })).await;
    let batch = log_in(&server, "a", "right").await.ok().token();
    assert!(batch.starts_with("hvb."));
    for token in [&token, &batch] {
        assert!(accepts(&server, "a", token).await && accepts(&server, "a/b", token).await);
    }
    within(&server, "a", ("DELETE", "sys/auth/up"), ROOT, Value::Null).await.is(204);
    for token in [&token, &batch] {
        assert!(!accepts(&server, "a", token).await && !accepts(&server, "a/b", token).await);
    }
    log_in(&server, "a/b", "right").await.ok();
}

#[tokio::test]
async fn a_lock_of_a_user_is_of_one_namespace() {
    let (server, _) = tree().await;
    let of_a = mount_userpass(&server, "a", json!([])).await;
    let of_c = mount_userpass(&server, "c", json!([])).await;
    assert_ne!(of_a, of_c);
    for _ in 0..5 {
        log_in(&server, "a", "wrong").await;
    }
    log_in(&server, "a", "right").await.is(403);
    log_in(&server, "c", "right").await.ok();
    for header in ["", "c", "a/b"] {
        let path = format!("sys/locked-users/{of_a}/unlock/anna");
        within(&server, header, ("POST", &path), ROOT, json!({})).await;
        log_in(&server, "a", "right").await.is(403);
    }
    let count = async |header: &str| {
        within(&server, header, ("GET", "sys/locked-users"), ROOT, Value::Null).await.ok().data()["total"].clone()
    };
    assert_eq!(
        (count("").await, count("a").await, count("a/b").await, count("c").await),
        (json!(1), json!(1), json!(0), json!(0))
    );
    set(&server, "a", &format!("sys/locked-users/{of_a}/unlock/anna"), json!({})).await;
    log_in(&server, "a", "right").await.ok();
}

#[tokio::test]
async fn chosen_ids_and_parents_stay_in_their_namespace() {
    let (server, _) = tree().await;
    for id in ["mine", "mine.aaaaaa", "hvs.mine"] {
        let refused = within(&server, "a", ("POST", "auth/token/create"), ROOT, json!({ "id": id })).await.is(400);
        assert_eq!(refused.error(), "token IDs can only be manually specified in the root namespace", "{id}");
    }
    server.post("auth/token/create", ROOT, json!({ "id": "mine.aaaaaa" })).await.is(400);
    // Policies are those of the new token's namespace, named by the request.
    let policy = json!({ "policy": r#"path "kv/x" { capabilities = ["read"] }"# });
    set(&server, "", "sys/policies/acl/of-root", policy.clone()).await;
    let token = token_of(&server, "a", json!({ "policies": ["of-root"] })).await;
    assert!(!accepts(&server, "a", &token).await && !accepts(&server, "", &token).await);
    set(&server, "a", "sys/policies/acl/of-root", policy).await;
    assert!(accepts(&server, "a", &token).await && !accepts(&server, "", &token).await);
    // Inside one namespace the usual rules hold.
    let maker = json!({ "policy": r#"path "auth/token/*" { capabilities = ["update"] }"# });
    set(&server, "a", "sys/policies/acl/maker", maker).await;
    let maker = token_of(&server, "a", json!({ "policies": ["maker"] })).await;
    let refused = within(&server, "a", ("POST", "auth/token/create"), &maker, everything()).await.is(400);
    assert_eq!(refused.error(), "child policies must be subset of parent");
    within(&server, "a/b", ("POST", "auth/token/create"), &maker, everything()).await.is(403);
    within(&server, "c", ("POST", "auth/token/create"), &maker, everything()).await.is(403);
}
