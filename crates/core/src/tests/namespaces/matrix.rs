//! Every row of `sys/`, `identity/`, `auth/token/` and `cubbyhole/`, called by a tenant with all rights with the ids and
//! names of another namespace: nothing of that namespace changes, and no response has its data. Generated from the
//! tables, so a new row is tested once it is declared.

use std::collections::{BTreeMap, BTreeSet};

use keepfast_framework::Operation;
use serde_json::{Map, Value, json};

use super::tenants::{
    Tenant, chief, dump, keys_of, log_in, mount_kv, mount_userpass, set, tenant, with_users, within, wrapped_within,
};
use crate::tests::derived::{Route, routes};
use crate::tests::fixture::{ROOT, TestResponse, TestServer};

/// A text that is stored in the victim's namespace in every kind of record, and that no request of the caller contains.
const CANARY: &str = "canary-2718281828";

/// The mounts whose rows are called.
const MOUNTS: [&str; 4] = ["sys/", "identity/", "auth/token/", "cubbyhole/"];

/// The ids and names of a namespace, by the kind of parameter that takes them.
type Ids = Vec<(&'static str, String)>;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A namespace with the canary in every kind of record.
async fn victim(server: &TestServer, path: &str) -> (Tenant, Ids) {
    let tenant = tenant(server, path).await;
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    set(server, parent, &format!("sys/namespaces/{name}"), json!({ "custom_metadata": { "k": CANARY } })).await;
    mount_kv(server, path).await;
    set(server, path, "kv/x", json!({ "k": CANARY })).await;
    set(server, path, "sys/mounts/users", json!({ "type": "users", "description": CANARY })).await;
    let mount_accessor = mount_userpass(server, path, json!(["everything"])).await;
    set(server, path, "sys/auth/up/tune", json!({ "description": CANARY })).await;
    let policy = format!("# {CANARY}\npath \"kv/x\" {{ capabilities = [\"read\"] }}");
    set(server, path, "sys/policies/acl/of-a", json!({ "policy": policy })).await;
    let password = format!("# {CANARY}\nlength = 20\nrule \"charset\" {{ charset = \"abc\" }}");
    set(server, path, "sys/policies/password/pw-a", json!({ "policy": password })).await;
    set(server, path, "auth/token/roles/role-a", json!({ "path_suffix": CANARY })).await;
    let meta = json!({ "policies": ["everything"], "meta": { "k": CANARY }, "display_name": CANARY, "ttl": "1h" });
    let made = set(server, path, "auth/token/create", meta).await;
    let login = log_in(server, path, "right").await.ok();
    let entity = text(&login.body["auth"]["entity_id"]);
    let of_entity = format!("identity/entity/id/{entity}");
    set(server, path, &of_entity, json!({ "name": "entity-a", "metadata": { "k": CANARY } })).await;
    let read = within(server, path, ("GET", &of_entity), ROOT, Value::Null).await.ok();
    let alias = text(&read.data()["aliases"][0]["id"]);
    let group = json!({ "name": "group-a", "metadata": { "k": CANARY }, "member_entity_ids": [entity] });
    let group = text(&set(server, path, "identity/group", group).await.data()["id"]);
    set(server, path, "identity/oidc/key/key-a", json!({ "allowed_client_ids": "*" })).await;
    set(server, path, "identity/oidc/scope/scope-a", json!({ "template": "{}", "description": CANARY })).await;
    set(server, path, "identity/oidc/assignment/assignment-a", json!({ "entity_ids": [entity] })).await;
    set(server, path, "identity/oidc/client/client-a", json!({ "redirect_uris": [format!("https://{CANARY}")] })).await;
    set(server, path, "identity/oidc/role/role-a", json!({ "key": "key-a", "template": "{}" })).await;
    let creds = within(server, path, ("GET", "users/creds/u"), &tenant.token, Value::Null).await.ok();
    let wrap = json!({ "k": CANARY });
    let wrapped = wrapped_within(server, path, ("POST", "sys/wrapping/wrap"), &tenant.token, wrap).await.ok();
    for token in [&tenant.token, &made.token()] {
        within(server, path, ("POST", "cubbyhole/x"), token, json!({ "k": CANARY })).await.ok();
    }
    for _ in 0..5 {
        log_in(server, path, "wrong").await;
    }
    let ids = vec![
        ("token", made.token()),
        ("accessor", made.accessor()),
        ("lease_id", text(&creds.body["lease_id"])),
        ("entity_id", entity),
        ("alias_id", alias),
        ("group_id", group),
        ("wrapping", wrapped.wrapping()),
        ("mount_accessor", mount_accessor),
        ("mount", format!("{path}/kv")),
        ("auth_mount", format!("{path}/auth/up")),
        ("policy", "of-a".to_owned()),
        ("namespace", path.to_owned()),
        ("namespace_id", tenant.id.clone()),
        ("name", "role-a".to_owned()),
        ("user", "anna".to_owned()),
    ];
    (tenant, ids)
}

/// The path of a row with this text in place of each capture.
fn path_of(route: &Route, id: &str) -> String {
    let mount = MOUNTS.iter().find(|mount| route.path.starts_with(**mount)).unwrap();
    let (mut out, mut rest) = ((*mount).to_owned(), route.pattern.as_str());
    while let Some((before, behind)) = rest.split_once('{') {
        let (capture, behind) = behind.split_once('}').unwrap();
        out.push_str(before);
        out.push_str(capture.split('|').nth(1).unwrap_or(id));
        rest = behind;
    }
    out + rest
}

/// The parameters with this id in every one that takes a text.
fn all_the_same(route: &Route, id: &str) -> Value {
    let value = |schema: &Value| match schema["type"].as_str() {
        Some("array") => json!([id]),
        Some("integer" | "number") => json!(60),
        Some("boolean") => json!(true),
        Some("object") => json!({ "k": id }),
        _ => json!(id),
    };
    Value::Object(route.parameters.iter().map(|(name, schema)| (name.clone(), value(schema))).collect())
}

/// The parameters with the id of the kind that each name has.
fn by_name(route: &Route, ids: &Ids) -> Value {
    let of = |kind: &str| ids.iter().find(|(name, _)| *name == kind).map(|(_, id)| id.clone()).unwrap_or_default();
    let value = |name: &str, schema: &Value| {
        let kind = match name {
            "token" | "id_token" | "client_token" => "token",
            "accessor" => "accessor",
            "lease_id" | "url_lease_id" | "prefix" => "lease_id",
            "entity_id" | "canonical_id" | "to_entity_id" | "from_entity_ids" | "entity_ids" | "member_entity_ids" => {
                "entity_id"
            }
            "id" if route.pattern.contains("group") => "group_id",
            "id" if route.pattern.contains("alias") || route.pattern.contains("persona") => "alias_id",
            "id" => "entity_id",
            "alias_id" => "alias_id",
            "member_group_ids" | "group_ids" | "group_id" => "group_id",
            "mount_accessor" | "alias_mount_accessor" => "mount_accessor",
            "path" | "paths" | "from" | "to" | "mount" => "mount",
            "policies" | "allowed_policies" | "token_policies" | "policy_names" => "policy",
            "name" | "alias_name" => "name",
            _ => "",
        };
        match (kind, schema["type"].as_str()) {
            ("", _) => None,
            (kind, Some("array")) => Some(json!([of(kind)])),
            (kind, _) => Some(json!(of(kind))),
        }
    };
    let mut body: Map<String, Value> =
        route.parameters.iter().filter_map(|(name, schema)| Some((name.clone(), value(name, schema)?))).collect();
    if route.parameters.iter().any(|(name, _)| name == "type") {
        body.insert("type".to_owned(), json!("kv"));
    }
    Value::Object(body)
}

/// The stored bytes of a namespace: a record that is written again with the same content differs.
fn stored_of(server: &TestServer, keys: &BTreeSet<String>, id: &str) -> BTreeMap<String, Vec<u8>> {
    let all = server.backend.memory().records();
    let folder = format!("/{id}/");
    let own = all.into_iter().filter(|(key, _)| keys.contains(key.as_str()) || key.as_str().contains(&folder));
    own.map(|(key, value)| (key.as_str().to_owned(), value.to_vec())).collect()
}

/// A caller with all rights in its namespace.
struct Attacker<'a> {
    server: &'a TestServer,
    path: &'static str,
    token: String,
    requests: usize,
    /// The number of responses with each status.
    statuses: BTreeMap<u16, usize>,
}

impl Attacker<'_> {
    async fn send(&mut self, header: &str, (method, path): (&str, &str), body: Value) -> Option<TestResponse> {
        keepfast_framework::CanonicalPath::new(path.to_owned()).ok()?;
        self.requests += 1;
        let body = if matches!(method, "GET" | "LIST" | "SCAN" | "DELETE" | "HELP") { Value::Null } else { body };
        let response = within(self.server, header, (method, path), &self.token, body).await;
        *self.statuses.entry(response.status).or_default() += 1;
        Some(response)
    }

    /// Repairs the own namespace after requests that have locked it, revoked the token or deleted the policy.
    async fn repair(&mut self) {
        if within(self.server, self.path, ("GET", "sys/policies/acl/everything"), &self.token, Value::Null).await.status
            == 200
        {
            return;
        }
        let (parent, name) = self.path.rsplit_once('/').unwrap_or(("", self.path));
        let unlock = format!("sys/namespaces/api-lock/unlock/{name}");
        within(self.server, parent, ("POST", &unlock), ROOT, json!({})).await;
        self.token = chief(self.server, self.path).await;
    }
}

/// Rows that only take long, and have no parameters of a namespace.
fn is_slow(route: &Route) -> bool {
    route.pattern.starts_with("internal/specs") || route.pattern.starts_with("tools/")
}

async fn attack(server: &TestServer, caller: &Tenant, path: &'static str, victim: &(Tenant, Ids)) -> Vec<String> {
    let (owner, ids) = victim;
    let keys = keys_of(&dump(server).await, &owner.id);
    assert!(keys.len() > 50, "{}", keys.len());
    let before = stored_of(server, &keys, &owner.id);
    let all: Vec<Route> =
        routes(server).into_iter().filter(|route| MOUNTS.iter().any(|mount| route.path.starts_with(mount))).collect();
    assert!(all.len() > 250, "{}", all.len());
    let mut attacker = Attacker { server, path, token: caller.token.clone(), requests: 0, statuses: BTreeMap::new() };
    let mut faults = Vec::new();
    for route in &all {
        let (method, has_capture) = (route.method(), route.pattern.contains('{'));
        let takes_id = has_capture || !route.parameters.is_empty();
        for header in [path, owner.path.as_str(), ""] {
            let mut requests: Vec<(String, Value)> = Vec::new();
            for (_, id) in ids {
                if (!takes_id || is_slow(route)) && !requests.is_empty() {
                    break;
                }
                requests.push((path_of(route, id), by_name(route, ids)));
                let is_own_header = header == path;
                if is_own_header && matches!(route.operation, Operation::Update | Operation::Patch) {
                    requests.push((path_of(route, id), all_the_same(route, id)));
                }
                if !is_own_header && requests.len() >= 4 {
                    break;
                }
            }
            for (to, body) in requests {
                let Some(response) = attacker.send(header, (method, &to), body.clone()).await else { continue };
                let named = || format!("{path} by header {header:?}: {method} {to} {body}");
                if response.body.to_string().contains(CANARY) {
                    faults.push(format!("{}: {response:?}", named()));
                }
                // A server without a cluster responds to a join with 500.
                if response.status >= 500 && response.status != 503 && route.pattern != "storage/raft/join" {
                    faults.push(format!("{}: {response:?}", named()));
                }
            }
            let after = stored_of(server, &keys, &owner.id);
            if after != before {
                let changed: Vec<_> = before
                    .keys()
                    .chain(after.keys())
                    .filter(|key| before.get(*key) != after.get(*key))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect();
                faults.push(format!("{path} by header {header:?}: {} has changed {changed:#?}", route.named()));
                return faults;
            }
            attacker.repair().await;
        }
    }
    println!("{path} against {}: {} requests, {:?}", owner.path, attacker.requests, attacker.statuses);
    assert!(attacker.requests > 2000, "{}", attacker.requests);
    assert!(attacker.statuses.get(&200).is_some_and(|count| *count > 100), "{:?}", attacker.statuses);
    faults
}

#[tokio::test]
async fn sec_ns03_no_row_reaches_a_sibling() {
    let (server, _) = with_users().await;
    let a = victim(&server, "a").await;
    let b = tenant(&server, "b").await;
    let faults = attack(&server, &b, "b", &a).await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    within(&server, "a", ("GET", "kv/x"), &a.0.token, Value::Null).await.ok();
}

#[tokio::test]
async fn sec_ns03_no_row_reaches_the_namespace_above() {
    let (server, _) = with_users().await;
    let a = victim(&server, "a").await;
    let c = tenant(&server, "a/c").await;
    let faults = attack(&server, &c, "a/c", &a).await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    within(&server, "a", ("GET", "kv/x"), &a.0.token, Value::Null).await.ok();
}

#[tokio::test]
async fn sec_ns03_no_row_reaches_a_child_of_a_sibling() {
    let (server, _) = with_users().await;
    tenant(&server, "a").await;
    let c = victim(&server, "a/c").await;
    let b = tenant(&server, "b").await;
    let faults = attack(&server, &b, "b", &c).await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
