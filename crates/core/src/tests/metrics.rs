//! The metrics of the server.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::metrics::catalogue::{self, Kind};
use crate::metrics::{Item, Value as Number};
use crate::settings::{HostGauges, Settings};
use keepfast_framework::engine::{Gauge, Registered, Registry};
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Engine, HeldLease, Kind as EngineKind, LeaseOffer, LeaseTerms, Leased, Result, Routes};
use serde_json::{Value, json};

use crate::tests::cluster::fake::Cluster;
use crate::tests::fixture::{ROOT, RequestOptions, TestServer};

fn count(items: &[Item], name: &str) -> u64 {
    let found = items.iter().find(|i| i.name == name).unwrap_or_else(|| panic!("no {name} in {items:#?}"));
    match found.value {
        Number::Summary(summary) => summary.count,
        Number::Counter(count) => count,
        Number::Gauge(value) => value as u64,
    }
}

/// A series by its name and one of its labels.
fn labelled(items: &[Item], name: &str, label: (&str, &str)) -> f64 {
    let has = |i: &&Item| i.name == name && i.labels.iter().any(|(name, value)| (*name, value.as_str()) == label);
    match items.iter().find(has).unwrap_or_else(|| panic!("no {name} {label:?} in {items:#?}")).value {
        Number::Gauge(value) => value,
        Number::Counter(count) => count as f64,
        Number::Summary(summary) => summary.count as f64,
    }
}

/// An engine that issues leases.
struct LeasingEngine;

impl Engine for LeasingEngine {
    const TYPE: &'static str = "lender";
    const KIND: EngineKind = EngineKind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        r.path("creds", Help { synopsis: "", description: "" }).read(creds).once();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(LeasingEngine)
    }

    async fn renew_lease(&self, _: &mut Cx, _: &HeldLease) -> Result<LeaseTerms> {
        Ok(LeaseTerms { ttl: Duration::from_secs(300), max_ttl: Duration::from_secs(3600) })
    }
}

async fn creds(_: &LeasingEngine, _: &mut Cx, _: Nothing) -> Result<Leased<Value>> {
    let offer = LeaseOffer { ttl: Duration::from_secs(300), renewable: true, ..LeaseOffer::default() };
    Ok(Leased { data: json!({ "user": "u" }), offer })
}

fn engines() -> Registry {
    keepfast_engines::all().preceded_by(vec![Registered::of::<LeasingEngine>()])
}

/// Sends requests that affect every metric, to a server with these [`engines`].
async fn busy(server: &TestServer) {
    // The edge counts responses.
    server.node.monitoring().count_response(200);
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    server.post("secret/data/a", ROOT, json!({ "data": { "k": "w" } })).await.ok();
    server.get("secret/data/a", ROOT).await.ok();
    server.list("secret/metadata", ROOT).await.ok();
    server.delete("secret/data/a", ROOT).await.ok();
    server.policy("p", "path \"secret/*\" { capabilities = [\"read\"] }").await;
    server.policy("gone", "path \"x\" { capabilities = [\"read\"] }").await;
    server.get("sys/policies/acl/p", ROOT).await.ok();
    server.list("sys/policies/acl", ROOT).await.ok();
    server.delete("sys/policies/acl/gone", ROOT).await.ok();
    server.post("sys/auth/userpass", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/userpass/users/u", ROOT, json!({ "password": "pw" })).await.ok();
    server.post("auth/userpass/login/u", "", json!({ "password": "pw" })).await.ok();
    let token = server.token(json!({ "ttl": "1h", "policies": ["p"] })).await;
    server.post("auth/token/renew", ROOT, json!({ "token": token })).await.ok();
    server.post("auth/token/revoke", ROOT, json!({ "token": token })).await.ok();
    server.wrapped("GET", "sys/mounts", ROOT, Value::Null, 60).await.ok();
    server.post("auth/token/create", ROOT, json!({ "type": "batch", "policies": ["p"] })).await.ok();
    server.post("sys/mounts/lender", ROOT, json!({ "type": "lender" })).await.ok();
    let lease = server.get("lender/creds", ROOT).await.ok().body["lease_id"].clone();
    server.post("sys/leases/lookup", ROOT, json!({ "lease_id": lease })).await.ok();
    server.post("sys/leases/renew", ROOT, json!({ "lease_id": lease })).await.ok();
    server.post("sys/leases/revoke", ROOT, json!({ "lease_id": lease, "sync": true })).await.ok();
}

/// The text for Prometheus.
async fn scraped(server: &TestServer) -> String {
    let answer = server.get("sys/metrics?format=prometheus", ROOT).await.ok().body;
    answer.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_logins_tokens_and_audit_entries_are_counted_and_timed() {
    let server = TestServer::new().await;
    server.post("sys/auth/approle", ROOT, json!({ "type": "approle" })).await.ok();
    let before = server.node.monitoring().gather();
    server.clock.step_on_reading(Duration::from_millis(1));
    server.get("sys/mounts", ROOT).await.ok();
    server.token(json!({})).await;
    server.post("auth/approle/login", "", json!({})).await.is(400);
    let after = server.node.monitoring().gather();
    let more = |name: &str| count(&after, name) - count(&before, name);
    assert_eq!((more("core.handle_request"), more("core.handle_login_request")), (2, 1));
    assert_eq!((more("token.lookup"), more("token.create"), more("core.check_token")), (2, 1, 3));
    assert_eq!((more("audit.log_request"), more("audit.log_response")), (3, 3));
    assert_eq!((more("audit.audit/.log_request"), more("audit.audit/.log_response")), (3, 3));
    assert!(more("barrier.put") >= 1 && more("inmem.transaction") >= 1);
    assert!(more("barrier.get") >= 1 && count(&after, "route.update.auth-token-") == 1);
    assert_eq!((count(&after, "core.unsealed"), count(&after, "core.in_flight_requests")), (1, 0));
    let took = after.iter().find(|i| i.name == "core.handle_request").unwrap();
    assert!(matches!(took.value, Number::Summary(s) if s.sum > 0.0 && s.quantiles[2] > 1.0), "{took:?}");
    server.node.lifecycle.seal().await;
    assert_eq!(count(&server.node.monitoring().gather(), "core.unsealed"), 0);
}

/// Every published name exists or is in the list of missing ones with its reason; no reason is outdated.
#[tokio::test]
async fn published_dashboards_find_their_metrics() {
    let server = TestServer::with(|_, _| {}, engines()).await;
    busy(&server).await;
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    let cluster = Cluster::new().await;
    let text = scraped(&server).await + &scraped(&cluster.nodes()[0]).await;
    let there: BTreeSet<&str> =
        text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()).collect();
    let requested: BTreeSet<String> = include_str!("dashboards/metrics.txt")
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|name| name.replace("<mount>", "secret"))
        .collect();
    assert!(requested.len() > 100);
    let mut missing = BTreeSet::new();
    let mut stale = BTreeSet::new();
    let absent: Vec<(&str, &str)> =
        include_str!("dashboards/absent.txt").lines().filter_map(|line| line.split_once(" = ")).collect();
    let fits = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    for name in &requested {
        let is_absent = absent.iter().any(|(pattern, reason)| fits(pattern, name) && !reason.is_empty());
        match (there.contains(name.as_str()), is_absent) {
            (false, false) => drop(missing.insert(name)),
            (true, true) => drop(stale.insert(name)),
            _ => {}
        }
    }
    let unused: Vec<_> =
        absent.iter().filter(|(pattern, _)| !requested.iter().any(|name| fits(pattern, name))).collect();
    assert!(
        missing.is_empty() && stale.is_empty() && unused.is_empty(),
        "missing: {missing:#?}\nstale: {stale:#?}\nunused: {unused:#?}\n{text}"
    );
    for quantile in ["0.5", "0.9", "0.99"] {
        assert!(text.contains(&format!("\nvault_core_handle_request{{quantile=\"{quantile}\"}} ")), "{text}");
        assert!(text.contains(&format!("\nvault_route_read_secret_{{quantile=\"{quantile}\"}} ")));
        assert!(text.contains(&format!("\nvault_inmem_transaction{{quantile=\"{quantile}\"}} ")));
    }
}

#[derive(Debug)]
struct Machine;

impl HostGauges for Machine {
    fn gauges(&self) -> Vec<Gauge> {
        let listener = ("listener", "127.0.0.1:8200".to_owned());
        vec![
            Gauge { name: "storage.disk.free_bytes", value: 10.0, labels: Vec::new() },
            Gauge { name: "listener.certificate.not_after", value: 20.0, labels: vec![listener] },
        ]
    }
}

/// Every reported metric is in the catalogue, with its kind and its labels; the page of the documentation is generated
/// from the catalogue.
#[tokio::test]
async fn every_metric_is_in_the_catalogue_and_in_the_documentation() {
    let machine =
        |settings: &mut Settings, _: &std::path::Path| settings.host_gauges = Some(std::sync::Arc::new(Machine));
    let server = TestServer::with(machine, engines()).await;
    busy(&server).await;
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    let cluster = Cluster::new().await;
    let with_seal = crate::tests::seals::server(&[&crate::seal::test_seal::TestSeal::new()]).await;
    let of_cluster = cluster.nodes().iter().flat_map(|node| node.node.monitoring().gather());
    let of_seals = with_seal.node.monitoring().gather();
    for item in server.node.monitoring().gather().into_iter().chain(of_cluster).chain(of_seals) {
        let known = catalogue::find(&item.name).unwrap_or_else(|| panic!("{} is not in the catalogue", item.name));
        let labels: Vec<_> = item.labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(labels, known.labels, "{}", item.name);
        let kind = match item.value {
            // Its seconds have a fraction.
            Number::Gauge(_) if item.name == "process_cpu_seconds_total" => Kind::Counter,
            Number::Gauge(_) => Kind::Gauge,
            Number::Counter(_) => Kind::Counter,
            Number::Summary(_) => Kind::Summary,
        };
        assert_eq!(kind, known.kind, "{}", item.name);
    }
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let before = std::fs::read_to_string(&page).unwrap();
    let (begin, end) = ("<!-- generated from the catalogue -->\n", "<!-- end -->");
    let (head, rest) = before.split_once(begin).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let now = format!("{head}{begin}\n{}\n{end}{tail}", catalogue::table());
    if std::env::var_os("KEEPFAST_BLESS").is_some() {
        std::fs::write(&page, &now).unwrap();
    }
    assert!(
        before == now || std::env::var_os("KEEPFAST_BLESS").is_some(),
        "docs/metrics.md is not the catalogue: KEEPFAST_BLESS=1 cargo test -p keepfast-core every_metric_is"
    );
}

#[tokio::test]
async fn prometheus_and_json_need_no_stanza_and_no_name_has_the_host_in_it() {
    let here = |settings: &mut Settings, _: &std::path::Path| {
        settings.hostname = "here".to_owned();
        settings.cluster_name = "blue".to_owned();
    };
    let server = TestServer::with(here, keepfast_engines::all()).await;
    server.get("sys/metrics", "").await.is(403);
    server.get("sys/metrics?format=foo", ROOT).await.is(400);
    let text = scraped(&server).await;
    assert!(text.contains("\nvault_core_unsealed{cluster=\"blue\"} 1\n") && !text.contains("here_"), "{text}");
    let document: Value = server.get("sys/metrics", ROOT).await.ok().body;
    for kind in ["Gauges", "Counters", "Samples"] {
        assert!(!document[kind].as_array().unwrap().is_empty(), "{document}");
    }
    assert!(!document.to_string().contains("here."));
    let accepting = |path| {
        let send =
            RequestOptions { token: Some(ROOT.to_owned()), accepts_prometheus: true, ..RequestOptions::default() };
        server.send("GET", path, send)
    };
    assert!(accepting("sys/metrics").await.ok().body.as_str().unwrap().contains("# TYPE vault_core_unsealed gauge"));
    accepting("sys/metrics?format=foo").await.is(400);
    server.node.lifecycle.seal().await;
    let items = server.node.monitoring().gather();
    assert_eq!(labelled(&items, "core.unsealed", ("cluster", "blue")), 0.0);
}

#[tokio::test]
async fn prometheus_can_be_turned_off() {
    let off = |settings: &mut Settings, _: &std::path::Path| settings.telemetry.prometheus_retention = Duration::ZERO;
    let server = TestServer::with(off, keepfast_engines::all()).await;
    assert_eq!(
        server.get("sys/metrics?format=prometheus", ROOT).await.is(400).body,
        json!("prometheus is not enabled")
    );
    server.get("sys/metrics", ROOT).await.ok();
}

#[tokio::test]
async fn json_covers_the_last_complete_interval() {
    let server = TestServer::new().await;
    crate::metrics::gather::turn(&server.node.lifecycle);
    server.clock.advance(Duration::from_secs(10));
    server.get("sys/mounts", ROOT).await.ok();
    server.token(json!({})).await;
    crate::metrics::gather::turn(&server.node.lifecycle);
    server.get("sys/mounts", ROOT).await.ok();
    let actual = |document: &Value, kind: &str, name: &str| {
        let all = document[kind].as_array().unwrap();
        all.iter().find(|s| s["Name"] == name).unwrap_or_else(|| panic!("no {name}"))["Count"].clone()
    };
    let document = server.get("sys/metrics", ROOT).await.ok().body;
    assert_eq!(actual(&document, "Samples", "vault.core.handle_request"), 2);
    assert_eq!(actual(&document, "Samples", "vault.route.read.sys-"), 1);
    assert_eq!(actual(&document, "Samples", "vault.audit.audit/.log_request"), 2);
    assert_eq!(actual(&document, "Counters", "vault.token.create_root"), 1);
    crate::metrics::gather::turn(&server.node.lifecycle);
    crate::metrics::gather::turn(&server.node.lifecycle);
    let document = server.get("sys/metrics", ROOT).await.ok().body;
    assert_eq!(actual(&document, "Samples", "vault.core.handle_request"), 0);
    assert_eq!(actual(&document, "Counters", "vault.token.create_root"), 0);
}

#[tokio::test]
async fn leases_are_counted_in_memory_as_they_are_on_disk() {
    let mut server = TestServer::new().await;
    let leases = |server: &TestServer| server.unsealed().leases.store.counts.read().map(|counts| counts.waiting);
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    let at_first = leases(&server).unwrap();
    let first = server.token(json!({ "ttl": "1h" })).await;
    let second = server.token(json!({ "ttl": "2h" })).await;
    server.token(json!({ "ttl": "30s" })).await;
    assert_eq!(leases(&server), Some(at_first + 3));
    // Within the same second the expiration does not change.
    server.post("auth/token/renew", ROOT, json!({ "token": first, "increment": "1h" })).await.ok();
    server.post("auth/token/renew", ROOT, json!({ "token": first, "increment": "3h" })).await.ok();
    assert_eq!(leases(&server), Some(at_first + 3));
    server.post("auth/token/revoke", ROOT, json!({ "token": second })).await.ok();
    server.pass(60).await;
    assert_eq!(leases(&server), Some(at_first + 1));
    assert_eq!(count(&server.node.monitoring().gather(), "expire.num_leases"), at_first + 1);
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    assert_eq!(leases(&server), Some(at_first + 1));
    server.restarted().await;
    assert_eq!(leases(&server), None);
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    assert_eq!(leases(&server), Some(at_first + 1));
}

#[tokio::test]
async fn usage_gauges_count_the_stored_records() {
    let server = TestServer::with(|_, _| {}, engines()).await;
    server.post("sys/mounts/old", ROOT, json!({ "type": "kv" })).await.ok();
    for path in ["old/a", "old/b/c", "old/b/d/e"] {
        server.post(path, ROOT, json!({ "k": "v" })).await.ok();
    }
    for path in ["secret/data/x", "secret/data/y/z", "secret/data/x"] {
        server.post(path, ROOT, json!({ "data": { "k": "v" } })).await.ok();
    }
    busy(&server).await;
    server.token(json!({ "ttl": "61s", "policies": ["p"] })).await;
    crate::metrics::usage::count_usage(&server.node.lifecycle).await.unwrap();
    let items = server.node.monitoring().gather();
    assert_eq!(labelled(&items, "secret.kv.count", ("mount_point", "old/")), 3.0);
    assert_eq!(labelled(&items, "secret.kv.count", ("mount_point", "secret/")), 3.0);
    assert_eq!(labelled(&items, "token.count.by_policy", ("policy", "p")), 1.0);
    assert_eq!(labelled(&items, "token.count.by_policy", ("policy", "root")), 1.0);
    assert_eq!(labelled(&items, "token.count.by_auth", ("auth_method", "userpass")), 1.0);
    assert_eq!(labelled(&items, "token.count.by_ttl", ("creation_ttl", "+Inf")), 2.0);
    assert_eq!(labelled(&items, "token.count.by_ttl", ("creation_ttl", "10m")), 1.0);
    assert_eq!(labelled(&items, "identity.entity.alias.count", ("mount_point", "auth/userpass/")), 1.0);
    assert_eq!((count(&items, "identity.num_entities"), count(&items, "token.create_root")), (1, 1));
    assert_eq!(labelled(&items, "token.creation", ("auth_method", "response_wrapping")), 1.0);
    assert_eq!(labelled(&items, "token.creation", ("token_type", "batch")), 1.0);
    assert_eq!(labelled(&items, "secret.lease.creation", ("secret_engine", "lender")), 1.0);
    let of_leases = ["expire.register", "expire.renew", "expire.revoke", "route.renew.lender-", "route.revoke.lender-"];
    assert_eq!(of_leases.map(|name| count(&items, name)), [1; 5]);
    assert!(labelled(&items, "core.mount_table.size", ("type", "auth")) > 100.0);
    // The first write of a path creates, later ones update.
    assert_eq!((count(&items, "route.create.secret-"), count(&items, "route.update.secret-")), (3, 2));
}

#[tokio::test]
async fn a_quarantine_is_a_gauge() {
    let server = TestServer::new().await;
    assert_eq!(count(&server.node.monitoring().gather(), "expire.lease_quarantine"), 0);
    server.post("sys/leases/quarantine", ROOT, json!({ "enabled": true })).await.ok();
    assert_eq!(count(&server.node.monitoring().gather(), "expire.lease_quarantine"), 1);
}

#[tokio::test]
async fn sec_kf54_open_metrics_are_read_once_a_second_for_each_format() {
    let server = TestServer::new().await;
    let actual = |format: &str| {
        let document = server.node.monitoring().open_metrics(format, false);
        assert_eq!(document.status().0, 200);
        document.into_body()
    };
    for format in ["", "prometheus"] {
        server.clock.advance(std::time::Duration::from_secs(1));
        let first = actual(format);
        server.node.monitoring().count_response(299);
        assert!(first == actual(format), "{format:?} within a second");
        server.clock.advance(std::time::Duration::from_millis(999));
        assert!(first == actual(format), "{format:?} at its end");
        server.clock.advance(std::time::Duration::from_millis(1));
        assert!(first != actual(format), "{format:?} afterwards");
    }
    let unsealed = actual("prometheus");
    server.node.lifecycle.seal().await;
    assert!(unsealed != actual("prometheus"), "a sealed server is shown as one");
    assert_eq!(server.node.monitoring().open_metrics("x", false).status().0, 400);
}

#[tokio::test]
async fn sec_kf53_a_chosen_status_of_health_is_none_that_is_counted() {
    let server = TestServer::new().await;
    for (query, status) in [("", 200), ("?activecode=299", 299), ("?activecode=404&activecode=2", 404)] {
        let send = crate::tests::fixture::RequestOptions::default();
        let response =
            server.node.handle(crate::tests::fixture::incoming("GET", &format!("sys/health{query}"), send)).await;
        assert_eq!((response.status().0, response.decided().0), (status, 200), "{query}");
    }
    server.node.lifecycle.seal().await;
    let send = crate::tests::fixture::RequestOptions::default();
    let response = server.node.handle(crate::tests::fixture::incoming("GET", "sys/health?sealedcode=201", send)).await;
    assert_eq!((response.status().0, response.decided().0), (201, 503));
}

#[tokio::test]
async fn a_node_of_a_cluster_reports_its_log_its_members_and_its_calls() {
    let cluster = Cluster::new().await;
    let [leader, standby, _] = cluster.nodes();
    standby.post("secret/data/a", ROOT, json!({ "data": { "k": "v" } })).await.ok();
    leader.post("sys/step-down", ROOT, Value::Null).await.is(204);
    cluster.elect(Some("a"));
    let counted = &leader.node.lifecycle.parts.metrics.cluster;
    while counted.leadership_lost.count() == 0 {
        tokio::task::yield_now().await;
    }
    cluster.lose_forwards();
    standby.post("secret/data/a", ROOT, json!({ "data": { "k": "w" } })).await.is(503);
    let (of_leader, of_standby) = (leader.node.monitoring().gather(), standby.node.monitoring().gather());
    assert_eq!((count(&of_leader, "raft.peers"), count(&of_standby, "raft.voters")), (3, 3));
    assert_eq!((count(&of_leader, "core.active"), count(&of_standby, "core.active")), (1, 0));
    assert_eq!(labelled(&of_leader, "raft_storage.follower.last_heartbeat_ms", ("peer_id", "b")), 100.0);
    assert_eq!(labelled(&of_leader, "raft_storage.follower.applied_index_delta", ("peer_id", "c")), 0.0);
    assert_eq!(labelled(&of_leader, "autopilot.node.healthy", ("node_id", "c")), 1.0);
    assert_eq!((count(&of_leader, "autopilot.healthy"), count(&of_leader, "autopilot.failure_tolerance")), (1, 1));
    assert!(count(&of_leader, "core.step_down") == 1 && count(&of_leader, "core.leadership_lost") == 1);
    assert_eq!((count(&of_standby, "ha.rpc.client.forward"), count(&of_leader, "ha.rpc.client.forward")), (1, 0));
    assert_eq!(count(&of_standby, "ha.rpc.client.forward.errors"), 1);
    let has = |items: &[Item], begin: &str| items.iter().any(|item| item.name.starts_with(begin));
    assert!(!has(&of_standby, "autopilot.") && !has(&of_standby, "raft_storage.follower."));
    assert!(has(&of_standby, "raft_storage.leader.") && !has(&of_leader, "raft_storage.leader."));
    let lone = TestServer::new().await.node.monitoring().gather();
    assert!(["raft", "autopilot.", "ha.", "core.leadership", "core.step_down"].iter().all(|begin| !has(&lone, begin)));
}
