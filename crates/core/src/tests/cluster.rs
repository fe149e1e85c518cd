//! A cluster in memory: nodes on one storage, whose roles the test sets and whose port passes requests directly.

mod authorities;
mod clocks;
mod failover;
pub(in crate::tests) mod fake;
mod freshness;
mod keys;
mod mfa;
mod replaced;
mod revocations;
mod seals;

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{ClusterPart, Incoming, StateIndex};
use keepfast_storage::StorageError;
use serde_json::{Value, json};

use self::fake::Cluster;
use crate::ResponseHeaders;
use crate::tests::fixture::{ROOT, RequestOptions, TestResponse, TestServer, incoming};

/// A request as [`TestServer::call`] sends it, with headers for a cluster.
fn request(method: &str, path: &str, token: &str, body: &Value, part: ClusterPart) -> Box<Incoming> {
    let token = (!token.is_empty()).then(|| token.to_owned());
    let body = (!body.is_null()).then(|| body.to_string());
    let mut request = incoming(method, path, RequestOptions { token, body, ..RequestOptions::default() });
    request.cluster = Some(Box::new(part));
    request
}

/// The response to a request with headers for a cluster, and its own headers.
async fn send(server: &TestServer, request: Box<Incoming>) -> (TestResponse, ResponseHeaders) {
    let response = server.node.handle(request).await;
    let headers = response.headers().cloned().unwrap_or_default();
    let status = response.status().0;
    let body = serde_json::from_slice(&response.into_body()).unwrap_or_default();
    (TestResponse { status, body }, headers)
}

async fn read(server: &TestServer, part: ClusterPart) -> (TestResponse, ResponseHeaders) {
    send(server, request("GET", "secret/data/a", ROOT, &Value::Null, part)).await
}

fn written() -> Value {
    json!({ "data": { "k": "v" } })
}

#[tokio::test]
async fn a_write_at_a_standby_runs_at_the_leader() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.forget_audit();
    standby.forget_audit();
    standby.post("secret/data/a", ROOT, written()).await.ok();
    assert_eq!(leader.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], "v");
    standby.delete("secret/data/a", ROOT).await.ok();
    leader.get("secret/data/a", ROOT).await.is(404);
    assert_eq!((cluster.forwards(), cluster.passed_commits()), (2, 0));
    assert!(standby.entries().is_empty(), "the leader has audited it");
    let from = |entry: &Value| entry["request"]["forwarded_from"].as_str().map(str::to_owned);
    let forwarded: Vec<_> = leader.entries().iter().filter_map(from).collect();
    assert_eq!(forwarded, ["b"; 4], "two entries for each request");
    assert_eq!(leader.entries().len(), 8, "an own request has no such field");
}

/// The leader confirms that it leads for each request that it runs; the standby need not ask it before.
#[tokio::test]
async fn a_forwarded_write_waits_for_no_index() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let token = leader.token(json!({ "policies": ["root"] })).await;
    cluster.fail_settled("b", Some(StorageError::NoLeader));
    for token in [ROOT, &token] {
        standby.post("secret/data/a", token, written()).await.ok();
    }
    // A read needs the state. So does the refusal of an unknown token.
    standby.get("secret/data/a", ROOT).await.is(503);
    standby.post("secret/data/a", "unknown", written()).await.is(503);
    standby.post("auth/none/login/x", ROOT, written()).await.is(503);
    assert_eq!(cluster.forwards(), 2);
    // A token that was revoked meanwhile is refused by the leader.
    cluster.fail_settled("b", None);
    leader.post("auth/token/revoke", ROOT, json!({ "token": token })).await.is(204);
    standby.post("secret/data/a", &token, written()).await.is(403);
}

#[tokio::test]
async fn a_read_at_a_standby_runs_there() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    leader.forget_audit();
    standby.forget_audit();
    assert_eq!(standby.get("secret/data/a", ROOT).await.ok().data()["data"]["k"], "v");
    standby.list("secret/metadata/", ROOT).await.ok();
    standby.post("sys/tools/random", ROOT, json!({})).await.ok();
    standby.post("sys/capabilities-self", ROOT, json!({ "path": "secret/data/a" })).await.ok();
    standby.get("secret/data/a", "unknown").await.is(403);
    assert_eq!((cluster.forwards(), cluster.passed_commits()), (0, 0));
    assert_eq!((leader.entries().len(), standby.entries().len()), (0, 10));
}

#[tokio::test]
async fn logins_limited_tokens_and_wrapping_run_at_the_leader() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    leader.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    standby.post("auth/up/login/anna", "", json!({ "password": "right" })).await.ok().token();
    assert_eq!(cluster.forwards(), 1);
    let limited = leader.token(json!({ "num_uses": 2 })).await;
    standby.get("auth/token/lookup-self", &limited).await.ok();
    leader.get("auth/token/lookup-self", &limited).await.ok();
    standby.get("auth/token/lookup-self", &limited).await.is(403);
    assert_eq!(cluster.forwards(), 2, "a spent token is refused here");
    leader.post("secret/data/a", ROOT, written()).await.ok();
    let wrapping = standby.wrapped("GET", "secret/data/a", ROOT, Value::Null, 60).await.ok().wrapping();
    standby.post("sys/wrapping/lookup", "", json!({ "token": wrapping })).await.ok();
    assert_eq!(cluster.forwards(), 3);
    standby.post("sys/wrapping/unwrap", &wrapping, Value::Null).await.ok();
    standby.post("sys/wrapping/unwrap", &wrapping, Value::Null).await.is(400);
    assert_eq!(cluster.passed_commits(), 0);
}

#[tokio::test]
async fn without_a_leader_every_request_is_503_and_audited() {
    let cluster = Cluster::new().await;
    let [_, standby, _] = cluster.nodes();
    cluster.elect(None);
    standby.forget_audit();
    for method in ["GET", "POST"] {
        let body = if method == "GET" { Value::Null } else { written() };
        let (response, headers) =
            send(standby, request(method, "secret/data/a", ROOT, &body, ClusterPart::default())).await;
        response.is(503);
        assert_eq!(headers.retry_after, Some(1));
    }
    assert_eq!(standby.entries().len(), 4);
    standby.get("sys/health", "").await.is(429);
    standby.get("sys/seal-status", "").await.ok();
    assert!(standby.get("sys/leader", "").await.ok().body.get("leader_address").is_none());
}

#[tokio::test]
async fn a_request_that_no_leader_takes_is_503_after_five_seconds() {
    let cluster = Arc::new(Cluster::new().await);
    cluster.refuse_forwards();
    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.nodes()[1].post("secret/data/a", ROOT, written()).await.status })
    };
    while cluster.offers() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert!(!waiting.is_finished());
        cluster.clock().advance(Duration::from_millis(50));
        tokio::task::yield_now().await;
    }
    // Without more time of the clock.
    let status = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it waits for longer");
    assert_eq!(status.unwrap(), 503);
    assert!((2..=102).contains(&cluster.offers()), "{}", cluster.offers());
    let standby = &cluster.nodes()[1];
    assert_eq!(standby.entries().last().unwrap()["type"], "response", "it is audited here");
    assert_eq!(metric(standby, "ha_rpc_client_forward_errors").await, 1, "once, for all attempts");
}

/// A number of the metrics of a node.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let text = server.get("sys/metrics?format=prometheus", ROOT).await.ok().body;
    let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&format!("vault_{name} ")));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_request_is_timed_where_it_runs() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let counts = async || {
        let name = "core_handle_request_count";
        [metric(leader, name).await, metric(standby, name).await]
    };
    let before = counts().await;
    standby.post("secret/data/a", ROOT, written()).await.ok();
    let after = counts().await;
    // Each of the first two requests for metrics is one as well.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [2, 1]);
}

#[tokio::test]
async fn a_request_that_one_leader_refuses_reaches_the_next() {
    let cluster = Arc::new(Cluster::new().await);
    cluster.refuse_forwards();
    let waiting = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.nodes()[1].post("secret/data/a", ROOT, written()).await.status })
    };
    while cluster.offers() == 0 {
        tokio::task::yield_now().await;
    }
    cluster.accept_forwards();
    cluster.elect(Some("c"));
    while !waiting.is_finished() {
        cluster.clock().advance(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap(), 200);
    let by_c = cluster.nodes()[2].entries().iter().any(|entry| entry["request"]["forwarded_from"] == "b");
    assert!(by_c);
}

#[tokio::test]
async fn sec_rl12_a_request_of_a_lost_connection_is_audited_not_repeated() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    cluster.lose_forwards();
    standby.forget_audit();
    let (response, headers) =
        send(standby, request("POST", "secret/data/a", ROOT, &written(), ClusterPart::default())).await;
    assert!(response.error().contains("not known") && response.status == 503, "{response:?}");
    assert_eq!(headers.retry_after, None, "it may have taken effect");
    assert_eq!(cluster.offers(), 1);
    let entries = standby.entries();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry["request"]["path"] == "secret/data/a"));
    assert!(entries[0]["request"]["data"].is_object(), "with its body");
    leader.get("secret/data/a", ROOT).await.ok();
}

#[tokio::test]
async fn sec_requests_without_a_token_do_not_hold_up_others() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    leader.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    cluster.be_busy();
    standby.forget_audit();
    for (token, expected) in [("", 503), (ROOT, 503), ("unknown", 503)] {
        let login = request("POST", "auth/up/login/anna", token, &json!({ "password": "x" }), ClusterPart::default());
        let (response, headers) = send(standby, login).await;
        assert_eq!((response.status, headers.retry_after), (expected, Some(1)), "a token proves nothing at a login");
    }
    assert_eq!(standby.entries().len(), 6);
    standby.post("secret/data/a", ROOT, written()).await.ok();
    // The token of a request cannot be checked at a node that is behind.
    cluster.fail_settled("b", Some(StorageError::Behind(7)));
    for token in ["", "unknown"] {
        standby.get("secret/data/a", token).await.is(503);
    }
    for token in ["", "unknown", ROOT] {
        standby.post("auth/up/login/anna", token, json!({ "password": "x" })).await.is(503);
    }
    standby.get("secret/data/a", ROOT).await.ok();
    cluster.fail_settled("b", None);
    // Nor at a node that has not the index of the request.
    let index = StateIndex { cluster: leader.node.lifecycle.cluster_id().unwrap().to_string(), value: u64::MAX };
    let part = ClusterPart { index: Some(index), forward_when_behind: true, ..ClusterPart::default() };
    let login = request("POST", "auth/up/login/anna", "unknown", &json!({ "password": "x" }), part);
    send(standby, login).await.0.is(503);
}

#[tokio::test]
async fn a_caller_that_forbids_forwarding_is_redirected() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let part = || ClusterPart { redirect: Some("/v1/secret/data/a?x=y".to_owned()), ..ClusterPart::default() };
    let (response, headers) = send(standby, request("POST", "secret/data/a", ROOT, &written(), part())).await;
    response.is(307);
    assert_eq!(headers.location.as_deref(), Some("http://a/v1/secret/data/a?x=y"));
    send(leader, request("POST", "secret/data/a", ROOT, &written(), part())).await.0.ok();
    read(standby, part()).await.0.ok();
    assert_eq!(cluster.forwards(), 0);
}

#[tokio::test]
async fn a_named_index_is_waited_for_or_refused() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let (response, headers) =
        send(standby, request("POST", "secret/data/a", ROOT, &written(), ClusterPart::default())).await;
    response.ok();
    let index = StateIndex::decode(headers.index.unwrap().as_bytes()).unwrap();
    let at = |index: StateIndex| ClusterPart { index: Some(index), ..ClusterPart::default() };
    let (response, headers) = read(standby, at(index.clone())).await;
    response.ok();
    assert!(StateIndex::decode(headers.index.unwrap().as_bytes()).unwrap().value >= index.value);
    let future = StateIndex { value: index.value + 1000, ..index.clone() };
    for node in [leader, standby] {
        let (response, headers) = read(node, at(future.clone())).await;
        assert_eq!(response.is(412).error(), "required index state not present");
        assert_eq!(headers, ResponseHeaders::default());
    }
    read(standby, at(StateIndex { cluster: "other".to_owned(), ..index })).await.0.is(400);
    let before = cluster.forwards();
    read(standby, ClusterPart { forward_when_behind: true, ..at(future) }).await.0.ok();
    assert_eq!(cluster.forwards(), before + 1);
    read(standby, ClusterPart { forward: true, ..ClusterPart::default() }).await.0.ok();
    assert_eq!(cluster.forwards(), before + 2);
    assert!(read(standby, ClusterPart::default()).await.1.index.is_some());
    let missing = send(standby, request("GET", "secret/data/b", ROOT, &Value::Null, ClusterPart::default())).await;
    assert_eq!((missing.0.status, missing.1.index), (404, None));
}

#[tokio::test]
async fn a_standby_that_is_behind_passes_reads_to_the_leader() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.post("secret/data/a", ROOT, written()).await.ok();
    cluster.fail_settled("b", Some(StorageError::Behind(7)));
    standby.get("secret/data/a", ROOT).await.ok();
    assert_eq!(cluster.forwards(), 1);
    cluster.fail_settled("b", None);
    // The leader that cannot confirm that it leads answers nothing.
    cluster.fail_settled("a", Some(StorageError::NoLeader));
    leader.get("secret/data/a", ROOT).await.is(503);
}

#[tokio::test]
async fn a_node_of_a_cluster_reports_its_role_and_its_members() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    let health = standby.get("sys/health", "").await.is(429).body;
    assert_eq!((&health["standby"], &health["performance_standby"]), (&json!(true), &json!(true)));
    assert!(leader.get("sys/health", "").await.is(200).body.get("performance_standby").is_none());
    for (query, status) in [
        ("standbyok=true", 200),
        ("perfstandbyok=true", 200),
        ("performancestandbycode=473", 473),
        ("standbycode=299", 299),
        ("perfstandbyok=maybe", 400),
    ] {
        standby.get(&format!("sys/health?{query}"), "").await.is(status);
    }
    let shown = standby.get("sys/leader", "").await.ok().body;
    let index = shown["raft_applied_index"].as_u64().unwrap();
    let expected = json!({ "ha_enabled": true, "is_self": false, "leader_address": "http://a",
        "leader_cluster_address": "https://a", "raft_committed_index": index, "raft_applied_index": index });
    assert_eq!(shown, expected);
    let nodes = standby.get("sys/ha-status", ROOT).await.ok().body["nodes"].clone();
    let active: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["active_node"].clone()).collect();
    assert_eq!(active, [true, false, false]);
    assert!(nodes[0]["last_echo"].is_null() && nodes[1]["last_echo"].is_string());
    assert_eq!(nodes[2]["cluster_address"], "https://c");
    assert_eq!(cluster.forwards(), 1, "the leader hears of all members");
}

#[tokio::test]
async fn sec_rl16_a_step_down_gives_the_leadership_to_another_node() {
    let cluster = Cluster::new().await;
    let [first, second, third] = cluster.nodes();
    second.post("sys/step-down", ROOT, Value::Null).await.is(204);
    assert_eq!(cluster.leader().as_deref(), Some("b"));
    second.post("sys/step-down", "", Value::Null).await.is(403);
    third.post("secret/data/a", ROOT, written()).await.ok();
    first.get("secret/data/a", ROOT).await.ok();
    first.get("sys/health", "").await.is(429);
    second.get("sys/health", "").await.is(200);
}

#[tokio::test]
async fn a_change_of_the_leader_drops_ceremonies() {
    let cluster = Cluster::new().await;
    let [first, second, _] = cluster.nodes();
    let started = async |server: &TestServer| {
        server.get("sys/generate-root-token/attempt", ROOT).await.ok().body["data"]["started"].clone()
    };
    second.post("sys/generate-root-token/attempt", ROOT, json!({})).await.ok();
    assert_eq!((started(first).await, started(second).await), (json!(true), json!(true)), "that of the leader");
    cluster.elect(Some("b"));
    assert_eq!((started(first).await, started(second).await), (json!(false), json!(false)));
    cluster.elect(Some("a"));
    while started(first).await == json!(true) {
        tokio::task::yield_now().await;
    }
    assert_eq!(started(second).await, false);
}

#[tokio::test]
async fn a_leader_that_seals_transfers_its_leadership_and_closes_its_port() {
    let cluster = Cluster::new().await;
    let [first, second, _] = cluster.nodes();
    assert!(cluster.has_port("a") && cluster.is_running("a"));
    second.post("sys/seal", ROOT, Value::Null).await.is(204);
    while cluster.has_port("b") {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.leader().as_deref(), Some("a"), "it seals itself, not the leader");
    first.node.shutdown().await;
    assert!(!cluster.has_port("a") && !cluster.is_running("a"));
    assert_eq!(cluster.leader().as_deref(), Some("c"));
    assert!(first.node.lifecycle.unseal(&first.shares).await.unwrap());
    assert!(cluster.has_port("a") && cluster.is_running("a"));
    first.post("secret/data/a", ROOT, written()).await.ok();
    assert_eq!(cluster.forwards(), 1, "it has come back as a standby");
}

#[tokio::test]
async fn a_rotation_at_any_node_gives_every_port_the_new_keys() {
    let cluster = Cluster::new().await;
    let before = cluster.authorities("a");
    assert_eq!(before.len(), 1);
    assert_eq!(before, cluster.authorities("b"), "derived by each node for itself");
    cluster.nodes()[1].post("sys/rotate", ROOT, json!({})).await.ok();
    for name in ["a", "b", "c"] {
        while cluster.authorities(name).len() < 2 {
            tokio::task::yield_now().await;
        }
        let after = cluster.authorities(name);
        assert!(after[1] == before[0] && after[0] != before[0], "the newest first");
        assert_eq!(after, cluster.authorities("a"));
    }
}

#[tokio::test]
async fn a_request_runs_again_when_the_leader_changes_before_its_commit() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    leader.backend.refuse(|_| (REFUSED.fetch_add(1, Ordering::Relaxed) == 0).then_some(StorageError::NotCommitted));
    standby.post("secret/data/a", ROOT, written()).await.ok();
    assert!(REFUSED.load(Ordering::Relaxed) > 1);
    leader.get("secret/data/a", ROOT).await.ok();
}

#[tokio::test]
async fn sec_cs08_a_removed_node_seals_and_its_health_is_530() {
    let cluster = Cluster::new().await;
    let [leader, _, third] = cluster.nodes();
    cluster.remove("c");
    while !third.node.state().is_sealed {
        tokio::task::yield_now().await;
    }
    third.get("sys/health", "").await.is(530);
    third.get("sys/health?removedcode=299", "").await.is(299);
    leader.get("sys/health", "").await.is(200);
}

/// A member that takes over in a data directory that the cluster does not know is a new one, whatever its name is.
#[tokio::test]
async fn a_member_that_takes_over_starts_no_quarantine() {
    let cluster = Cluster::new().await;
    for name in ["b", "c", "a"] {
        cluster.elect(Some(name));
        cluster.wait_for_takeover(name).await;
        assert!(!cluster.nodes()[0].unsealed().leases.store.is_quarantined(), "{name}");
    }
}

/// Writes that a standby runs: they read records, or act on that node.
const RUN_AT_A_STANDBY: &[&str] = &[
    "auth/token/ lookup",
    "auth/token/ lookup-accessor",
    "auth/token/ lookup-self",
    "identity/ lookup/entity",
    "identity/ lookup/group",
    "identity/ oidc/introspect",
    "identity/ oidc/provider/{name}/userinfo",
    "sys/ audit-hash/{path...}",
    "sys/ capabilities",
    "sys/ capabilities-accessor",
    "sys/ capabilities-self",
    "sys/ control-group/request",
    "sys/ decode-token",
    "sys/ internal/specs/openapi",
    "sys/ leases/lookup",
    "sys/ loggers",
    "sys/ loggers/{name}",
    "sys/ policies/explain",
    "sys/ seal",
    "sys/ tools/hash",
    "sys/ tools/random",
    "sys/ wrapping/lookup",
    "sys/all-transit/ datakey/{plaintext}/{name}",
    "sys/all-transit/ decrypt/{name}",
    "sys/all-transit/ derive-key/{name}",
    "sys/all-transit/ encrypt/{name}",
    "sys/all-transit/ hash",
    "sys/all-transit/ hmac/{name}",
    "sys/all-transit/ random",
    "sys/all-transit/ rewrap/{name}",
    "sys/all-transit/ sign/{name}",
    "sys/all-transit/ verify/{name}",
];

/// Every read of every engine, and the writes that a standby runs. An encryption creates its key.
#[tokio::test]
async fn what_runs_at_a_standby_commits_nothing() {
    use crate::tests::derived::{mount_all_engines, routes};
    use keepfast_framework::Operation;

    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    mount_all_engines(leader).await;
    let (mut called, mut committed) = (0, Vec::new());
    for route in routes(leader) {
        let reads = matches!(route.operation, Operation::Read | Operation::List | Operation::Scan);
        let is_listed = RUN_AT_A_STANDBY.iter().any(|row| row.ends_with(&format!(" {}", route.pattern)));
        if route.pattern == "seal" || !reads && !is_listed {
            continue;
        }
        let before = (cluster.passed_commits(), cluster.forwards());
        standby.call(route.method(), &route.path, ROOT, json!({ "plaintext": "AAAA" })).await;
        called += usize::from(cluster.forwards() == before.1);
        if cluster.passed_commits() != before.0 {
            committed.push(route.named());
        }
    }
    assert!(called > 100, "{called}");
    assert_eq!(committed, ["transit update encrypt/{name}"]);
}

#[tokio::test]
async fn sec_rl17_every_write_row_is_forwarded_unless_it_is_listed() {
    use keepfast_framework::Operation;
    use keepfast_framework::rows::Runs;

    let server = crate::tests::derived::with_all_engines().await;
    let mut found = std::collections::BTreeSet::new();
    for mounted in server.unsealed().engines.mounts.router().all() {
        for row in mounted.table.rows() {
            for operation in &row.operations {
                let writes = matches!(operation.operation, Operation::Update | Operation::Patch | Operation::Delete);
                let is_bound_to_write = writes || row.once || row.login;
                if is_bound_to_write && row.runs(operation.operation) != Runs::Leader {
                    let path = mounted.entry.path.replace("all-transit", "sys/all-transit");
                    found.insert(format!("{path} {}", row.patterns[0].source()));
                }
            }
        }
    }
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, RUN_AT_A_STANDBY);
}
