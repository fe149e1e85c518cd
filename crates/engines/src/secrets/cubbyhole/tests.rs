//! Cubbyhole on memory storage.

use std::sync::Arc;

use keepfast_framework::testing::Bench;
use keepfast_framework::{Caller, Operation};
use serde_json::{Value, json};

use super::Cubbyhole;

fn token(store: &str) -> Caller {
    Caller { token_store: Some(Arc::from(store)), ..Caller::default() }
}

#[tokio::test]
async fn a_secret_is_readable_until_it_is_deleted() {
    let mut bench = Bench::new::<Cubbyhole>().await.unwrap();
    bench.caller = token("t1");
    assert_eq!(bench.exists("a").await.unwrap(), Some(false));
    assert!(bench.write("a", json!({"ttl": "30s", "n": 1})).await.unwrap().outcome.is_empty());
    let answer = bench.read("a").await.unwrap();
    assert_eq!((answer.data(), answer.hint_ttl()), (json!({"ttl": "30s", "n": 1}), 0));
    assert_eq!(bench.exists("a").await.unwrap(), Some(true));
    bench.write("d/b", json!({"n": 1})).await.unwrap();
    assert_eq!(bench.list("").await.unwrap().data(), json!({"keys": ["a", "d/"]}));
    bench.delete("a").await.unwrap();
    bench.delete("a").await.unwrap();
    assert_eq!(bench.read("a").await.err().unwrap().status().0, 404);
}

#[tokio::test]
async fn refuses_the_same_requests_as_openbao() {
    let mut bench = Bench::new::<Cubbyhole>().await.unwrap();
    bench.caller = token("t1");
    for (path, body, text) in [
        ("a", Value::Null, "missing data fields"),
        ("a", json!({}), "missing data fields"),
        ("a/", json!({"a": 1}), "cannot write to a path ending in '/'"),
        ("", json!({"a": 1}), "cannot write to a path ending in '/'"),
    ] {
        let error = bench.write(path, body).await.err().unwrap();
        assert_eq!((error.status().0, error.public()), (400, text));
    }
    assert_eq!(bench.read("a/").await.err().unwrap().status().0, 404);
    assert_eq!(bench.list("a").await.err().unwrap().status().0, 404);
    assert_eq!(bench.scan("a").await.err().unwrap().status().0, 405);
    assert_eq!(bench.patch("a", json!({"a": 1})).await.err().unwrap().status().0, 405);
}

#[tokio::test]
async fn sec_tl07_only_its_own_token_reaches_a_cubbyhole() {
    let mut bench = Bench::new::<Cubbyhole>().await.unwrap();
    bench.caller = token("t1");
    bench.write("a", json!({"own": "t1"})).await.unwrap();
    let root = Caller { is_root: true, ..token("root") };
    for other in [token("t"), token("t11"), token("t2"), root] {
        bench.caller = other;
        assert_eq!(bench.read("a").await.err().unwrap().status().0, 404);
        assert_eq!(bench.read("t1/a").await.err().unwrap().status().0, 404);
        assert_eq!(bench.list("").await.err().unwrap().status().0, 404);
        bench.delete("a").await.unwrap();
        bench.write("b", json!({"own": "other"})).await.unwrap();
    }
    bench.caller = token("t1");
    assert_eq!(bench.read("a").await.unwrap().data(), json!({"own": "t1"}));
    assert_eq!(bench.list("").await.unwrap().data(), json!({"keys": ["a"]}));
}

#[tokio::test]
async fn sec_tl07_a_caller_without_a_token_store_is_refused() {
    let mut bench = Bench::new::<Cubbyhole>().await.unwrap();
    for caller in [Caller::default(), token(""), token("a/b"), Caller { is_root: true, ..Caller::default() }] {
        bench.caller = caller;
        for (operation, path) in
            [(Operation::Read, "a"), (Operation::Update, "a"), (Operation::Delete, "a"), (Operation::List, "")]
        {
            let body = if operation == Operation::Update { json!({"a": 1}) } else { Value::Null };
            assert_eq!(bench.call(operation, path, body).await.err().unwrap().status().0, 400, "{operation:?}");
        }
        assert!(bench.exists("a").await.is_err());
    }
}
