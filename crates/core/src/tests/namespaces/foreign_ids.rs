//! An id of another namespace acts as an unknown one, and nothing changes.

use serde_json::{Value, json};

use super::tenants::{
    Tenant, dump, log_in, mount_kv, mount_userpass, plain, records_of, set, tenant, with_users, within, wrapped_within,
};
use crate::tests::fixture::{ROOT, TestServer};

/// The ids of one namespace.
struct Ids {
    token: String,
    accessor: String,
    lease: String,
    entity: String,
    alias: String,
    group: String,
    group_alias: String,
    wrapping: String,
    mount_accessor: String,
}

impl Ids {
    /// Ids of the same form that belong to nothing: each with other characters before the suffix.
    fn unknown(&self) -> Self {
        let other = |id: &String| {
            let (own, suffix) = id.rsplit_once('.').unwrap_or((id, ""));
            let keep = own.rfind('/').map_or(4, |at| at + 2);
            let scrambled: String = own
                .char_indices()
                .map(|(at, c)| match c {
                    _ if at < keep => c,
                    '0'..='8' | 'a'..='e' | 'g'..='y' | 'A'..='Y' => char::from(c as u8 + 1),
                    '9' => '0',
                    'f' => 'a',
                    'z' => 'g',
                    'Z' => 'A',
                    c => c,
                })
                .collect();
            if suffix.is_empty() { scrambled } else { format!("{scrambled}.{suffix}") }
        };
        Ids {
            token: other(&self.token),
            accessor: other(&self.accessor),
            lease: other(&self.lease),
            entity: other(&self.entity),
            alias: other(&self.alias),
            group: other(&self.group),
            group_alias: other(&self.group_alias),
            wrapping: other(&self.wrapping),
            mount_accessor: other(&self.mount_accessor),
        }
    }

    fn all(&self) -> Vec<&str> {
        [
            &self.token,
            &self.accessor,
            &self.lease,
            &self.entity,
            &self.alias,
            &self.group,
            &self.group_alias,
            &self.wrapping,
            &self.mount_accessor,
        ]
        .map(String::as_str)
        .to_vec()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A namespace with an object of each kind.
async fn filled(server: &TestServer, path: &str) -> (Tenant, Ids) {
    let tenant = tenant(server, path).await;
    mount_kv(server, path).await;
    set(server, path, "kv/x", json!({ "k": "v" })).await;
    set(server, path, "sys/mounts/users", json!({ "type": "users" })).await;
    let mount_accessor = mount_userpass(server, path, json!(["everything"])).await;
    let made = set(server, path, "auth/token/create", json!({ "policies": ["everything"], "ttl": "1h" })).await;
    let login = log_in(server, path, "right").await.ok();
    let entity = text(&login.body["auth"]["entity_id"]);
    let read = within(server, path, ("GET", &format!("identity/entity/id/{entity}")), ROOT, Value::Null).await.ok();
    let alias = text(&read.data()["aliases"][0]["id"]);
    let group = json!({ "name": "g", "type": "external", "policies": ["everything"] });
    let group = text(&set(server, path, "identity/group", group).await.data()["id"]);
    let group_alias = json!({ "name": "ga", "mount_accessor": mount_accessor, "canonical_id": group });
    let group_alias = text(&set(server, path, "identity/group-alias", group_alias).await.data()["id"]);
    let creds = within(server, path, ("GET", "users/creds/u"), &tenant.token, Value::Null).await.ok();
    let wrapped = wrapped_within(server, path, ("GET", "kv/x"), &tenant.token, Value::Null).await.ok();
    let ids = Ids {
        token: made.token(),
        accessor: made.accessor(),
        lease: text(&creds.body["lease_id"]),
        entity,
        alias,
        group,
        group_alias,
        wrapping: wrapped.wrapping(),
        mount_accessor,
    };
    (tenant, ids)
}

/// A request with an id.
type Probe = (&'static str, String, Value);

/// Every request that takes an id: `everything` also those about wrapping tokens, which act without a caller.
fn probes(ids: &Ids, everything: bool) -> Vec<Probe> {
    let mut out: Vec<Probe> = Vec::new();
    let mut post = |path: &str, body: Value| out.push(("POST", path.to_owned(), body));
    for action in ["lookup", "renew", "revoke", "revoke-orphan"] {
        post(&format!("auth/token/{action}"), json!({ "token": ids.token }));
        post(&format!("auth/token/{action}"), json!({ "token": ids.accessor }));
    }
    for action in ["lookup-accessor", "renew-accessor", "revoke-accessor"] {
        post(&format!("auth/token/{action}"), json!({ "accessor": ids.accessor }));
    }
    post("sys/capabilities", json!({ "token": ids.token, "paths": ["kv/x"] }));
    post("sys/capabilities-accessor", json!({ "accessor": ids.accessor, "paths": ["kv/x"] }));
    post("sys/policies/explain", json!({ "token": ids.token, "path": "kv/x", "operation": "read" }));
    post("sys/policies/explain", json!({ "accessor": ids.accessor, "path": "kv/x", "operation": "read" }));
    post("sys/policies/explain", json!({ "entity_id": ids.entity, "path": "kv/x", "operation": "read" }));
    for action in ["leases/lookup", "leases/renew", "leases/revoke", "renew", "revoke"] {
        post(&format!("sys/{action}"), json!({ "lease_id": ids.lease }));
        post(&format!("sys/{action}"), json!({ "lease_id": ids.lease, "sync": true }));
        if action != "leases/lookup" {
            post(&format!("sys/{action}/{}", ids.lease), Value::Null);
        }
    }
    for action in ["leases/revoke-prefix", "leases/revoke-force", "revoke-prefix", "revoke-force"] {
        post(&format!("sys/{action}/{}", ids.lease), Value::Null);
    }
    for (kind, id) in [
        ("entity", &ids.entity),
        ("entity-alias", &ids.alias),
        ("alias", &ids.alias),
        ("persona", &ids.alias),
        ("group", &ids.group),
        ("group-alias", &ids.group_alias),
    ] {
        let path = format!("identity/{kind}/id/{id}");
        post(&path, json!({ "name": "taken", "policies": ["p"], "metadata": { "k": "v" } }));
        post(&format!("identity/{kind}"), json!({ "id": id, "name": "taken", "policies": ["p"] }));
        if kind == "entity" || kind == "group" {
            for field in ["id", "alias_id"] {
                post(&format!("identity/lookup/{kind}"), json!({ field: id }));
            }
        }
    }
    post("identity/lookup/entity", json!({ "alias_id": ids.alias }));
    post("identity/lookup/group", json!({ "alias_id": ids.group_alias }));
    for (kind, name) in [("entity", "anna"), ("group", "ga")] {
        let body = json!({ "alias_name": name, "alias_mount_accessor": ids.mount_accessor });
        post(&format!("identity/lookup/{kind}"), body);
    }
    post("identity/entity/batch-delete", json!({ "entity_ids": [ids.entity] }));
    post("identity/entity-alias", json!({ "name": "new", "canonical_id": ids.entity, "mount_accessor": "none" }));
    post("identity/group", json!({ "name": "new", "member_entity_ids": [ids.entity] }));
    post("identity/group", json!({ "name": "new", "member_group_ids": [ids.group] }));
    post(&format!("sys/locked-users/{}/unlock/anna", ids.mount_accessor), json!({}));
    post(&format!("sys/locked-users?mount_accessor={}", ids.mount_accessor), json!({}));
    if everything {
        for action in ["lookup", "unwrap", "rewrap"] {
            post(&format!("sys/wrapping/{action}"), json!({ "token": ids.wrapping }));
        }
    }
    for (kind, id) in [
        ("entity", &ids.entity),
        ("entity-alias", &ids.alias),
        ("alias", &ids.alias),
        ("persona", &ids.alias),
        ("group", &ids.group),
        ("group-alias", &ids.group_alias),
    ] {
        for method in ["GET", "DELETE"] {
            out.push((method, format!("identity/{kind}/id/{id}"), Value::Null));
        }
    }
    out.push(("GET", format!("sys/locked-users?mount_accessor={}", ids.mount_accessor), Value::Null));
    out
}

/// The responses to the requests with these ids must equal those with unknown ones, and change nothing.
async fn compare(
    server: &TestServer,
    (caller, header): (&Tenant, &str),
    (owner, ids): (&Tenant, &Ids),
    everything: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    let unknown = ids.unknown();
    let before = records_of(&dump(server).await, &owner.id);
    for ((method, path, body), (_, other_path, other_body)) in
        probes(ids, everything).into_iter().zip(probes(&unknown, everything))
    {
        let named = format!("{} by header {header:?} with ids of {}: {method} {path} {body}", caller.path, owner.path);
        let foreign = within(server, header, (method, &path), &caller.token, body).await;
        let none = within(server, header, (method, &other_path), &caller.token, other_body).await;
        let (foreign, none) = (plain(&foreign, &ids.all()), plain(&none, &unknown.all()));
        if foreign != none {
            faults.push(format!("{named}: {foreign:?}, unknown: {none:?}"));
        }
        if foreign.0 >= 500 {
            faults.push(format!("{named}: {foreign:?}"));
        }
    }
    let after = records_of(&dump(server).await, &owner.id);
    for (key, value) in &before {
        if after.get(key) != Some(value) {
            faults.push(format!("{} by header {header:?} has changed {key}", caller.path));
        }
    }
    faults
}

#[tokio::test]
async fn sec_ns03_foreign_ids_act_as_unknown_ones() {
    let (server, _) = with_users().await;
    let (a, of_a) = filled(&server, "a").await;
    let (b, of_b) = filled(&server, "b").await;
    let (c, of_c) = filled(&server, "a/c").await;
    let mut faults = Vec::new();
    for (caller, owner, ids) in [(&b, &a, &of_a), (&a, &b, &of_b), (&b, &c, &of_c), (&c, &a, &of_a), (&c, &b, &of_b)] {
        for header in [caller.path.as_str(), owner.path.as_str(), ""] {
            faults.extend(compare(&server, (caller, header), (owner, ids), header == caller.path).await);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    for (tenant, ids) in [(&a, &of_a), (&b, &of_b), (&c, &of_c)] {
        let unwrap = json!({ "token": ids.wrapping });
        within(&server, &tenant.path, ("POST", "sys/wrapping/unwrap"), &tenant.token, unwrap).await.ok();
    }
}

/// From above the texts of tokens, leases and wrapping tokens are found; ids and accessors are not.
#[tokio::test]
async fn sec_ns03_from_above_only_texts_and_leases_are_found() {
    let (server, _) = with_users().await;
    let (a, _) = filled(&server, "a").await;
    let (_, of_c) = filled(&server, "a/c").await;
    for (header, token) in [("a", a.token.as_str()), ("", ROOT), ("a", ROOT)] {
        let post = async |path: &str, body: Value| within(&server, header, ("POST", path), token, body).await;
        let found = post("auth/token/lookup", json!({ "token": of_c.token })).await.ok();
        assert_eq!(found.data()["namespace_path"], "a/c/");
        post("auth/token/renew", json!({ "token": of_c.token })).await.ok();
        let lease = post("sys/leases/lookup", json!({ "lease_id": of_c.lease })).await.ok();
        assert_eq!(lease.data()["namespace_path"], "a/c/");
        post("sys/leases/renew", json!({ "lease_id": of_c.lease })).await.ok();
        post("sys/wrapping/lookup", json!({ "token": of_c.wrapping })).await.ok();
        for action in ["lookup", "renew"] {
            post(&format!("auth/token/{action}-accessor"), json!({ "accessor": of_c.accessor })).await.is(400);
        }
        let entity = format!("identity/entity/id/{}", of_c.entity);
        within(&server, header, ("GET", &entity), token, Value::Null).await.is(404);
    }
    // A token of `a` without rights below is refused there.
    set(&server, "a", "sys/policies/acl/here", json!({ "policy": r#"path "auth/token/*" { capabilities = ["update"] } path "sys/leases/*" { capabilities = ["update"] }"# })).await;
    let weak = super::tenants::token_of(&server, "a", json!({ "policies": ["here"] })).await;
    for (path, body) in [
        ("auth/token/lookup", json!({ "token": of_c.token })),
        ("auth/token/renew", json!({ "token": of_c.token })),
        ("auth/token/revoke", json!({ "token": of_c.token })),
        ("sys/leases/lookup", json!({ "lease_id": of_c.lease })),
        ("sys/leases/revoke", json!({ "lease_id": of_c.lease })),
    ] {
        within(&server, "a", ("POST", path), &weak, body).await.is(403);
    }
    within(&server, "a/c", ("GET", "auth/token/lookup-self"), &of_c.token, Value::Null).await.ok();
}

/// A token of `a` may use rows about tokens and leases in `a` only: a reference to a namespace below needs the right there,
/// in whatever part of the request it is.
#[tokio::test]
async fn sec_ns03_a_reference_anywhere_needs_the_right_below() {
    let (server, external) = with_users().await;
    filled(&server, "a").await;
    let (_, of_c) = filled(&server, "a/c").await;
    let (b, _) = filled(&server, "b").await;
    let here = r#"path "auth/token/*" { capabilities = ["read", "update", "sudo"] }
        path "sys/leases/*" { capabilities = ["read", "update", "list", "sudo"] }
        path "sys/revoke*" { capabilities = ["update", "sudo"] }
        path "sys/renew*" { capabilities = ["update", "sudo"] }
        path "sys/capabilities*" { capabilities = ["update"] }"#;
    set(&server, "a", "sys/policies/acl/here", json!({ "policy": here })).await;
    let weak = super::tenants::token_of(&server, "a", json!({ "policies": ["here"], "no_default_policy": true })).await;
    let id_of_c = of_c.token.rsplit_once('.').unwrap().1;
    let mut before = records_of(&dump(&server).await, id_of_c);
    let (token, lease) = (&of_c.token, &of_c.lease);
    let mut faults = Vec::new();
    for (method, path, body) in [
        ("GET", format!("auth/token/lookup?token={token}"), Value::Null),
        ("POST", format!("auth/token/lookup?token={token}"), json!({})),
        ("POST", format!("auth/token/renew?token={token}"), json!({})),
        ("POST", format!("auth/token/revoke?token={token}"), json!({})),
        ("POST", format!("auth/token/revoke-orphan?token={token}"), json!({})),
        ("POST", "auth/token/revoke".to_owned(), json!({ "token": token, "Token": "x" })),
        ("POST", "auth/token/renew".to_owned(), json!({ "token": token })),
        ("POST", format!("sys/leases/lookup?lease_id={lease}"), json!({})),
        ("POST", format!("sys/leases/renew?lease_id={lease}"), json!({})),
        ("POST", format!("sys/leases/revoke?lease_id={lease}"), json!({})),
        ("POST", format!("sys/leases/revoke/{lease}"), Value::Null),
        ("POST", format!("sys/leases/revoke/{lease}"), json!({ "lease_id": "" })),
        ("POST", format!("sys/leases/revoke/{lease}"), json!({ "lease_id": "users/creds/u/x" })),
        ("POST", "sys/leases/revoke/users/creds/u/x".to_owned(), json!({ "lease_id": lease })),
        ("POST", format!("sys/revoke/{lease}"), Value::Null),
        ("POST", format!("sys/renew/{lease}"), Value::Null),
        ("POST", format!("sys/leases/revoke-prefix/{lease}"), Value::Null),
        ("POST", format!("sys/revoke-force/{lease}"), Value::Null),
    ] {
        let response = within(&server, "a", (method, &path), &weak, body.clone()).await;
        let text = response.body.to_string();
        if text.contains("a/c/") || (response.status == 200 && text.contains("creation_time")) {
            faults.push(format!("{method} {path} {body}: {response:?}"));
        }
        let after = records_of(&dump(&server).await, id_of_c);
        if after != before {
            faults.push(format!("{method} {path} {body} has changed records: {response:?}"));
            before = after;
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(external.lock().len(), 3);
    // Nor does a row without authentication find a wrapped response of a namespace beside it.
    for header in ["b", "a/c"] {
        let path = format!("sys/wrapping/lookup?token={}", of_c.wrapping);
        for caller in ["", &b.token] {
            let found = within(&server, header, ("GET", &path), caller, Value::Null).await.status;
            assert_eq!(found == 200, header == "a/c", "{header}: {found}");
            let body = json!({ "token": of_c.wrapping });
            let found = within(&server, header, ("POST", "sys/wrapping/lookup"), caller, body).await.status;
            assert_eq!(found == 200, header == "a/c", "{header}: {found}");
        }
    }
}

#[tokio::test]
async fn sec_ns04_rows_of_old_names_act_as_the_new_ones() {
    let (server, external) = with_users().await;
    let (a, of_a) = filled(&server, "a").await;
    let (b, of_b) = filled(&server, "b").await;
    assert_eq!(external.lock().len(), 2);
    for path in ["sys/revoke", "sys/leases/revoke"] {
        for header in ["b", ""] {
            let body = json!({ "lease_id": of_a.lease, "sync": true });
            within(&server, header, ("POST", path), &b.token, body).await;
            within(&server, header, ("POST", &format!("{path}/{}", of_a.lease)), &b.token, Value::Null).await;
        }
    }
    let prefixes = ["a/users", "a/users/creds/u", "a/auth", "a"];
    for path in ["sys/revoke-prefix", "sys/revoke-force", "sys/leases/revoke-prefix", "sys/leases/revoke-force"] {
        for prefix in prefixes {
            within(&server, "b", ("POST", &format!("{path}/{prefix}")), &b.token, Value::Null).await;
        }
    }
    let lookup = json!({ "lease_id": of_a.lease });
    within(&server, "a", ("POST", "sys/leases/lookup"), &a.token, lookup.clone()).await.ok();
    assert_eq!(external.lock().iter().filter(|user| user.starts_with("users/")).count(), 2);
    // The prefix of every path is that of its own namespace only; the last token to go is the caller's.
    within(&server, "b", ("POST", "sys/revoke-prefix/users"), ROOT, Value::Null).await.ok();
    assert_eq!(external.lock().len(), 1);
    within(&server, "b", ("POST", "sys/leases/lookup"), ROOT, json!({ "lease_id": of_b.lease })).await.is(400);
    within(&server, "a", ("POST", "sys/leases/lookup"), &a.token, lookup).await.ok();
    within(&server, "", ("POST", "sys/leases/revoke-prefix/users"), ROOT, Value::Null).await.ok();
    within(&server, "", ("POST", "sys/leases/revoke-prefix/a/users"), ROOT, Value::Null).await.ok();
    assert_eq!(external.lock().len(), 1, "root has no lease at these paths");
    // A path that is not in the table has no other name.
    for path in ["sys/lease/revoke", "sys/revoke-all", "auth/token/revoke-prefix/x", "sys/leases/revoke-all/users"] {
        within(&server, "b", ("POST", path), ROOT, json!({})).await.is(404);
    }
}

#[tokio::test]
async fn sec_ns07_a_foreign_id_in_a_batch_is_as_an_unknown_one() {
    let (server, _) = with_users().await;
    let (a, of_a) = filled(&server, "a").await;
    let (b, _) = filled(&server, "b").await;
    let entity = async || text(&set(&server, "b", "identity/entity", json!({})).await.data()["id"]);
    let before = records_of(&dump(&server).await, &a.id);
    let mut responses = Vec::new();
    for foreign in [of_a.entity.clone(), of_a.unknown().entity] {
        let own = entity().await;
        let body = json!({ "entity_ids": [own, foreign] });
        let deleted = within(&server, "b", ("POST", "identity/entity/batch-delete"), &b.token, body).await;
        within(&server, "b", ("GET", &format!("identity/entity/id/{own}")), &b.token, Value::Null).await.is(404);
        let (one, two) = (entity().await, entity().await);
        let body = json!({ "from_entity_ids": [two, foreign], "to_entity_id": one });
        let merged = within(&server, "b", ("POST", "identity/entity/merge"), &b.token, body).await.is(400);
        within(&server, "b", ("GET", &format!("identity/entity/id/{two}")), &b.token, Value::Null).await.ok();
        let body = json!({ "from_entity_ids": [one], "to_entity_id": foreign });
        let into = within(&server, "b", ("POST", "identity/entity/merge"), &b.token, body).await;
        assert!(into.status >= 400, "{into:?}");
        let body = json!({ "name": "mixed", "member_entity_ids": [one, foreign] });
        let group = within(&server, "b", ("POST", "identity/group"), &b.token, body).await;
        assert!((400..500).contains(&group.status), "{group:?}");
        within(&server, "b", ("GET", "identity/group/name/mixed"), &b.token, Value::Null).await.is(404);
        let hidden = [own.as_str(), &one, &two, &foreign];
        responses.push([&deleted, &merged, &into, &group].map(|response| plain(response, &hidden)));
    }
    assert_eq!(responses[0], responses[1]);
    assert_eq!(records_of(&dump(&server).await, &a.id), before);
    within(&server, "a", ("GET", &format!("identity/entity/id/{}", of_a.entity)), &a.token, Value::Null).await.ok();
}
