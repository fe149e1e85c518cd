//! Quotas on a server: rate limits in namespaces, and lease counts against a naive count.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use keepfast_crypto::random;
use keepfast_framework::Page;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use crate::lease::recount;
use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::two_nodes::Pair;

const SOMEBODY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

/// The namespaces `a/`, `a/b/` and `c/`, each with the mount `kv/`.
async fn with_namespaces() -> TestServer {
    let server = TestServer::new().await;
    for (path, above) in [("", ""), ("a/", ""), ("a/b/", "a/"), ("c/", "")] {
        if !path.is_empty() {
            let name = path.strip_prefix(above).unwrap().trim_end_matches('/');
            server.post(&format!("{above}sys/namespaces/{name}"), ROOT, json!({})).await.ok();
        }
        server.post(&format!("{path}sys/mounts/kv"), ROOT, json!({ "type": "kv" })).await.ok();
    }
    server
}

async fn limit(server: &TestServer, header: &str, path: &str) -> u64 {
    let result = server.node.preliminaries().check_quota(header, path, SOMEBODY).await;
    result.map_or(0, |result| result.limit)
}

#[tokio::test]
async fn a_rate_limit_applies_in_namespaces_by_header_and_by_path() {
    let mut server = with_namespaces().await;
    for (name, path, rate, inheritable) in [
        ("all", "", 9, true),
        ("a", "a", 8, true),
        ("b", "a/b/", 7, false),
        ("m", "a/kv", 6, true),
        ("p", "a/b/kv/x/", 5, false),
    ] {
        let body = json!({ "path": path, "rate": rate, "inheritable": inheritable });
        server.post(&format!("sys/quotas/rate-limit/{name}"), ROOT, body).await.is(204);
    }
    let path_of =
        async |name: &str| server.get(&format!("sys/quotas/rate-limit/{name}"), ROOT).await.ok().data()["path"].clone();
    assert_eq!(path_of("a").await, "a/");
    assert_eq!(path_of("m").await, "a/kv/");
    assert_eq!(path_of("p").await, "a/b/kv/x");
    for _ in 0..2 {
        for (header, path, expected) in [
            ("", "kv/x", 9),
            ("", "c/kv/x", 9),
            ("a", "sys/mounts", 8),
            ("", "a/sys/mounts", 8),
            ("a/b", "kv/y", 7),
            ("a", "b/kv/y", 7),
            ("", "a/kv/x", 6),
            ("a", "kv/x", 6),
            ("a/b", "kv/x", 5),
            ("", "a/b/kv/x", 5),
            ("nope", "a/kv/x", 9),
        ] {
            assert_eq!(limit(&server, header, path).await, expected, "[{header}] {path}");
        }
        server.restarted().await;
    }
    for (path, unknown) in [("nope/kv", "nope/kv/"), ("a/nope", "nope/"), ("a/*", "*/"), ("A", "A/")] {
        let refused = server.post("sys/quotas/rate-limit/z", ROOT, json!({ "path": path, "rate": 1 })).await.is(400);
        assert_eq!(refused.error(), format!("invalid mount path {unknown:?}"));
    }
    let twice = server.post("sys/quotas/rate-limit/z", ROOT, json!({ "path": "a/", "rate": 1 })).await.is(400);
    assert_eq!(twice.error(), "quota rule with similar properties exists under the name \"a\"");
    server.list("a/sys/quotas/rate-limit", ROOT).await.is(400);
}

#[tokio::test]
async fn an_inheritable_rate_limit_has_one_counter() {
    let server = with_namespaces().await;
    let write = async |path: &str, inheritable: bool| {
        let body = json!({ "path": path, "rate": 2, "interval": "1h", "inheritable": inheritable });
        server.post("sys/quotas/rate-limit/q", ROOT, body).await.is(204);
    };
    let refused = async |header: &str, path: &str| {
        let result = server.node.preliminaries().check_quota(header, path, SOMEBODY).await;
        result.is_some_and(|result| result.refused)
    };
    write("a", true).await;
    assert!(!refused("a", "kv/x").await && !refused("", "a/b/kv/x").await);
    assert!(refused("a/b", "kv/x").await && refused("", "a/sys/mounts").await && !refused("", "kv/x").await);
    write("a", false).await;
    assert!(!refused("a", "kv/x").await && !refused("", "a/kv/x").await && refused("a", "kv/y").await);
    assert!(!refused("", "a/b/kv/x").await, "a child is free");
    write("", false).await;
    for _ in 0..3 {
        assert!(!refused("a", "kv/x").await);
    }
    assert!(!refused("", "kv/x").await && !refused("nope", "kv/x").await && refused("", "sys/mounts").await);
}

#[tokio::test]
async fn quotas_follow_mounts_and_namespaces() {
    let server = with_namespaces().await;
    for (name, path) in [("m", "a/kv"), ("p", "a/kv/x"), ("n", "a"), ("b", "a/b"), ("bm", "a/b/kv"), ("k", "kv")] {
        let body = json!({ "path": path, "rate": 1, "max_leases": 1 });
        server.post(&format!("sys/quotas/rate-limit/{name}"), ROOT, body.clone()).await.ok();
        server.post(&format!("sys/quotas/lease-count/{name}"), ROOT, body).await.ok();
    }
    let names = async |kind: &str| server.list(&format!("sys/quotas/{kind}"), ROOT).await.body["data"]["keys"].clone();
    let path_of = async |kind: &str, name: &str| {
        server.get(&format!("sys/quotas/{kind}/{name}"), ROOT).await.ok().data()["path"].clone()
    };
    server.post("a/sys/remount", ROOT, json!({ "from": "kv", "to": "moved" })).await.ok();
    for kind in ["rate-limit", "lease-count"] {
        assert_eq!(path_of(kind, "m").await, "a/moved/");
        assert_eq!(path_of(kind, "p").await, "a/moved/x");
        assert_eq!(path_of(kind, "k").await, "kv/");
    }
    assert_eq!(limit(&server, "a", "moved/x").await, 1);
    server.delete("a/sys/mounts/moved", ROOT).await.ok();
    server.delete("a/sys/namespaces/b", ROOT).await.ok();
    let root = server.unsealed();
    for id in crate::namespace::background::with_work(&root, false).await.unwrap() {
        crate::namespace::background::run(&root, &id, false).await.unwrap();
    }
    for kind in ["rate-limit", "lease-count"] {
        assert_eq!(names(kind).await, json!(["k", "n"]), "{kind}");
    }
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("sys/quotas/lease-counter/");
    let counters = unsealed.barrier.begin_read().list(&view, "", &Page::all()).await.unwrap();
    assert_eq!(counters.len(), 2, "a deleted quota leaves no counter");
}

async fn put_quota(server: &TestServer, name: &str, body: Value) {
    server.post(&format!("sys/quotas/lease-count/{name}"), ROOT, body).await.is(204);
    recount::run(&server.unsealed()).await.unwrap();
}

async fn counter(server: &TestServer, name: &str) -> i64 {
    let shown = server.get(&format!("sys/quotas/lease-count/{name}"), ROOT).await.ok();
    assert_eq!(shown.data().get("initializing"), None);
    shown.data()["counter"].as_i64().unwrap()
}

async fn create(server: &TestServer, body: Value) -> TestResponse {
    server.post("auth/token/create", ROOT, body).await
}

#[tokio::test]
async fn a_lease_count_quota_refuses_at_its_maximum() {
    let mut server = TestServer::new().await;
    let first = create(&server, json!({ "ttl": "1h" })).await.ok().token();
    let body = json!({ "path": "auth/token", "max_leases": 2 });
    server.post("sys/quotas/lease-count/q", ROOT, body.clone()).await.is(204);
    recount::run(&server.unsealed()).await.unwrap();
    let shown = server.get("sys/quotas/lease-count/q", ROOT).await.ok();
    let expected = json!({ "counter": 1, "inheritable": false, "max_leases": 2, "name": "q", "path": "auth/token/",
        "role": "", "type": "lease-count" });
    assert_eq!(*shown.data(), expected, "it has counted the token that is older");
    let second = create(&server, json!({ "ttl": "1h" })).await.ok().token();
    for _ in 0..2 {
        for body in [json!({ "ttl": "1h" }), json!({ "type": "batch", "policies": ["default"] })] {
            let refused = create(&server, body).await.is(429);
            assert_eq!(refused.error(), "request path \"auth/token/create\": lease count quota exceeded");
        }
        server.restarted().await;
    }
    create(&server, json!({ "policies": ["root"] })).await.ok();
    server.wrapped("GET", "sys/mounts", ROOT, Value::Null, 60).await.ok();
    server.post("auth/token/revoke", ROOT, json!({ "token": second })).await.ok();
    create(&server, json!({ "type": "batch", "policies": ["default"] })).await.ok();
    assert_eq!(counter(&server, "q").await, 1);
    // Renewals and uses do not count.
    server.post("auth/token/renew", ROOT, json!({ "token": first })).await.ok();
    create(&server, json!({ "ttl": "1h", "num_uses": 2 })).await.ok();
    assert_eq!(counter(&server, "q").await, 2);
    put_quota(&server, "q", json!({ "path": "auth/token", "max_leases": 1 })).await;
    assert_eq!(counter(&server, "q").await, 2);
    server.post("auth/token/revoke", ROOT, json!({ "token": first })).await.ok();
    create(&server, json!({ "ttl": "1h" })).await.is(429);
    server.pass(3602).await;
    assert_eq!(counter(&server, "q").await, 0);
    create(&server, json!({ "ttl": "1h" })).await.ok();
    for (body, error) in [
        (json!({ "path": "auth/token" }), "'max_leases' is invalid"),
        (json!({ "max_leases": 0 }), "'max_leases' is invalid"),
        (json!({ "max_leases": 1, "path": "nope" }), "invalid mount path \"nope/\""),
        (json!({ "max_leases": 1, "role": "r" }), "quotas on roles are not supported by this server"),
        (
            json!({ "max_leases": 1, "path": "auth/token/" }),
            "quota rule with similar properties exists under the name \"q\"",
        ),
    ] {
        assert_eq!(server.post("sys/quotas/lease-count/z", ROOT, body).await.is(400).error(), error);
    }
    assert_eq!(server.list("sys/quotas/lease-count", ROOT).await.ok().data()["keys"], json!(["q"]));
    server.delete("sys/quotas/lease-count/q", ROOT).await.is(204);
    recount::run(&server.unsealed()).await.unwrap();
    create(&server, json!({ "ttl": "1h" })).await.ok();
    server.get("sys/quotas/lease-count/q", ROOT).await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_concurrent_logins_exactly_the_maximum_succeed() {
    let server = TestServer::new().await;
    for max in [1, 70] {
        put_quota(&server, "q", json!({ "path": "auth/token", "max_leases": max })).await;
        let made = join_all((0..120).map(|_| create(&server, json!({ "ttl": "1h" })))).await;
        let count = |status: u16| made.iter().filter(|response| response.status == status).count();
        assert_eq!((count(200), count(429)), (max, 120 - max));
        assert_eq!(counter(&server, "q").await, i64::try_from(max).unwrap());
        let tokens: Vec<String> = made.iter().filter(|r| r.status == 200).map(TestResponse::token).collect();
        let revoke = |token: &String| server.post("auth/token/revoke", ROOT, json!({ "token": token }));
        join_all(tokens.iter().map(revoke)).await;
        assert_eq!(counter(&server, "q").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_created_while_a_quota_is_written_are_counted() {
    let server = TestServer::new().await;
    for round in 0..5 {
        let tokens = join_all((0..30).map(|_| create(&server, json!({ "ttl": "1h" }))));
        let write = async {
            let body = json!({ "max_leases": 100_000 });
            server.post("sys/quotas/lease-count/q", ROOT, body).await.is(204);
        };
        let (tokens, ()) = tokio::join!(tokens, write);
        assert!(tokens.iter().all(|token| token.status == 200));
        recount::run(&server.unsealed()).await.unwrap();
        assert_eq!(counter(&server, "q").await, 30 * (round + 1));
        server.delete("sys/quotas/lease-count/q", ROOT).await.ok();
    }
}

#[tokio::test]
async fn a_request_that_began_before_the_quota_is_counted() {
    let server = TestServer::new().await;
    let gate = server.backend.arm();
    let late = create(&server, json!({ "ttl": "1h" }));
    let quota = async {
        gate.reached.notified().await;
        server.post("sys/quotas/lease-count/q", ROOT, json!({ "max_leases": 5 })).await.is(204);
        let shown = server.get("sys/quotas/lease-count/q", ROOT).await.ok();
        assert_eq!(shown.data()["initializing"], true);
        let unsealed = server.unsealed();
        let mut recounting = std::pin::pin!(recount::run(&unsealed));
        for _ in 0..20 {
            assert!(poll!(recounting.as_mut()).is_pending(), "the request may have looked up the quotas before");
            server.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
        gate.open.notify_one();
        while poll!(recounting.as_mut()).is_pending() {
            server.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
    };
    let (late, ()) = tokio::join!(late, quota);
    late.ok();
    assert_eq!(counter(&server, "q").await, 1);
}

#[tokio::test]
async fn a_standby_has_the_same_counter_without_counting() {
    let pair = Pair::new().await;
    pair.write("sys/quotas/lease-count/q", json!({ "max_leases": 3 })).await;
    recount::run(&pair.leader.unsealed()).await.unwrap();
    for expected in 1..=3 {
        create(&pair.leader, json!({ "ttl": "1h" })).await.ok();
        assert_eq!(pair.read("sys/quotas/lease-count/q").await.ok().data()["counter"], expected);
    }
    create(&pair.leader, json!({ "ttl": "1h" })).await.is(429);
    pair.check();
}

#[tokio::test]
async fn a_token_with_a_damaged_record_is_released() {
    let mut server = TestServer::new().await;
    put_quota(&server, "q", json!({ "max_leases": 10 })).await;
    let parent = create(&server, json!({ "ttl": "1h", "policies": ["root", "default"] })).await.ok().token();
    let child = server.post("auth/token/create", &parent, json!({ "ttl": "2h" })).await.ok().token();
    let alone = create(&server, json!({ "ttl": "30m" })).await.ok().token();
    let unsealed = server.unsealed();
    let mut tx = unsealed.barrier.begin();
    for token in [&child, &alone] {
        let key = format!("id/{}", unsealed.access.tokens.place(token).as_str());
        tx.put(&unsealed.barrier.view("token/"), &key, "{\"damaged\"".into());
    }
    tx.commit().await.unwrap();
    server.restarted().await;
    assert_eq!(counter(&server, "q").await, 3);
    server.pass(1802).await;
    assert_eq!(counter(&server, "q").await, 2);
    server.post("auth/token/revoke", ROOT, json!({ "token": parent })).await.ok();
    assert_eq!(counter(&server, "q").await, 0);
    let unsealed = server.unsealed();
    let left = unsealed.barrier.begin_read().list(&unsealed.barrier.view("token/"), "counted/", &Page::all()).await;
    assert_eq!(left.unwrap(), Vec::<String>::new());
}

/// A token that the model knows.
struct Live {
    token: String,
    /// The index of its namespace in [`PATHS`].
    namespace: usize,
    end: u64,
    parent: Option<String>,
}

/// The namespaces of the model.
const PATHS: [&str; 4] = ["", "a/", "a/b/", "c/"];
/// The targets of quotas, the most specific ones first.
const TARGETS: [&str; 9] =
    ["auth/token", "a/auth/token/create", "a/auth/token", "a/b/auth/token/cr*", "a/b", "c", "a", "kv", ""];

#[derive(Clone)]
struct Quota {
    max: u64,
    inheritable: bool,
}

#[derive(Default)]
struct Model {
    live: Vec<Live>,
    quotas: Vec<Option<Quota>>,
    now: u64,
}

impl Model {
    /// The quota of the tokens of a namespace.
    fn quota_of(&self, namespace: usize) -> Option<usize> {
        let own = match PATHS[namespace] {
            "" => vec!["auth/token", "", ""],
            "a/" => vec!["a/auth/token/create", "a/auth/token", "a", ""],
            "a/b/" => vec!["a/b/auth/token/cr*", "a/b", "a", ""],
            _ => vec!["c", ""],
        };
        own.iter().map(|target| TARGETS.iter().position(|known| known == target).unwrap()).find(|at| {
            let of_this = match TARGETS[*at] {
                "" => PATHS[namespace].is_empty(),
                "a" => namespace == 1,
                _ => true,
            };
            self.quotas[*at].as_ref().is_some_and(|quota| quota.inheritable || of_this)
        })
    }

    fn count(&self, quota: usize) -> u64 {
        self.live.iter().filter(|live| self.quota_of(live.namespace) == Some(quota)).count() as u64
    }

    fn revoke(&mut self, token: &str) {
        let mut gone = vec![token.to_owned()];
        while let Some(token) = gone.pop() {
            self.live.retain(|live| live.token != token);
            gone.extend(self.live.iter().filter(|l| l.parent.as_ref() == Some(&token)).map(|l| l.token.clone()));
        }
    }

    fn expire(&mut self) {
        while let Some(ended) = self.live.iter().find(|live| live.end <= self.now).map(|live| live.token.clone()) {
            self.revoke(&ended);
        }
    }
}

fn seeded() -> TestRng {
    let seed = match std::env::var("KEEPFAST_TEST_SEED") {
        Ok(text) => hex::decode(text).unwrap(),
        Err(_) => random::bytes::<32>().to_vec(),
    };
    println!("repeat with KEEPFAST_TEST_SEED={}", hex::encode(&seed));
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

async fn step(server: &mut TestServer, model: &mut Model, rng: &mut TestRng) {
    let mut below = |bound: usize| rng.next_u32() as usize % bound;
    match below(20) {
        0..9 => {
            let namespace = below(PATHS.len());
            let parents: Vec<&Live> = model.live.iter().filter(|live| live.namespace == namespace).collect();
            let parent = if below(3) == 0 && !parents.is_empty() { Some(parents[below(parents.len())]) } else { None };
            let parent = parent.map(|live| live.token.clone());
            let ttl = 5 + 10 * below(40) as u64;
            let body = json!({ "ttl": format!("{ttl}s"), "policies": ["maker"] });
            let path = format!("{}auth/token/create", PATHS[namespace]);
            let quota = model.quota_of(namespace);
            let is_full = quota.is_some_and(|at| model.count(at) >= model.quotas[at].as_ref().unwrap().max);
            let response = server.post(&path, parent.as_deref().unwrap_or(ROOT), body).await;
            assert_eq!(response.status, if is_full { 429 } else { 200 }, "{path}: {}", response.body);
            if !is_full {
                model.live.push(Live { token: response.token(), namespace, end: model.now + ttl, parent });
            }
        }
        9..12 if !model.live.is_empty() => {
            let live = &model.live[below(model.live.len())];
            let (token, path) = (live.token.clone(), format!("{}auth/token/revoke", PATHS[live.namespace]));
            server.post(&path, ROOT, json!({ "token": token })).await.ok();
            model.revoke(&token);
        }
        12..15 => {
            let seconds = 10 * below(10) as u64;
            model.now += seconds;
            server.pass(seconds).await;
            model.expire();
        }
        15 => server.restarted().await,
        16 => {
            let namespace = below(PATHS.len());
            let path = format!("{}sys/leases/revoke-prefix/auth/token/create", PATHS[namespace]);
            server.post(&path, ROOT, json!({})).await.ok();
            let all: Vec<_> = model.live.iter().filter(|l| l.namespace == namespace).map(|l| l.token.clone()).collect();
            all.iter().for_each(|token| model.revoke(token));
        }
        17 => {
            let at = below(TARGETS.len());
            server.delete(&format!("sys/quotas/lease-count/q{at}"), ROOT).await.is(204);
            recount::run(&server.unsealed()).await.unwrap();
            model.quotas[at] = None;
        }
        _ => {
            let at = below(TARGETS.len());
            let quota = Quota { max: 1 + below(8) as u64, inheritable: below(2) == 0 };
            let body = json!({ "path": TARGETS[at], "max_leases": quota.max, "inheritable": quota.inheritable });
            put_quota(server, &format!("q{at}"), body).await;
            // Only a namespace has others below it.
            model.quotas[at] = Some(quota);
        }
    }
}

#[tokio::test]
async fn lease_counts_are_exact_model() {
    let mut rng = seeded();
    let mut server = with_namespaces().await;
    for path in PATHS {
        let policy = json!({ "policy": "path \"auth/token/create\" { capabilities = [\"update\"] }" });
        server.post(&format!("{path}sys/policies/acl/maker"), ROOT, policy).await.ok();
    }
    let mut model = Model { quotas: vec![None; TARGETS.len()], ..Model::default() };
    for number in 0..400 {
        step(&mut server, &mut model, &mut rng).await;
        for (at, target) in TARGETS.iter().enumerate().filter(|(at, _)| model.quotas[*at].is_some()) {
            let expected = i64::try_from(model.count(at)).unwrap();
            let found = counter(&server, &format!("q{at}")).await;
            assert_eq!(found, expected, "{target:?} after step {number}");
        }
    }
}
