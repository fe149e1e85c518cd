//! Handlers that panic, and caches without bound.

use keepfast_framework::engine::Registered;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Engine, Kind, Result, Routes};
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestServer};

/// An engine with one path that panics and one that writes before it panics.
struct PanickingEngine;

impl Engine for PanickingEngine {
    const TYPE: &'static str = "faulty";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        let help = Help { synopsis: "", description: "" };
        r.path("panic", help).read(panics).update(panics);
        r.path("fine", help).read(fine);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(PanickingEngine)
    }
}

async fn panics(_: &PanickingEngine, cx: &mut Cx, _: Nothing) -> Result<()> {
    let (tx, view) = cx.store();
    tx.put(view, "half", bytes::Bytes::from_static(b"done"));
    panic!("canary-panic");
}

async fn fine(_: &PanickingEngine, _: &mut Cx, _: Nothing) -> Result<()> {
    Ok(())
}

#[tokio::test]
async fn sec_ds06_a_handler_that_panics_fails_its_request_only_and_is_recorded() {
    let engines = keepfast_engines::all().preceded_by(vec![Registered::of::<PanickingEngine>()]);
    let server = TestServer::with(|_, _| {}, engines).await;
    server.post("sys/mounts/faulty", ROOT, json!({ "type": "faulty" })).await.ok();
    server.forget_audit();
    for method in ["GET", "POST"] {
        let answer = server.call(method, "faulty/panic", ROOT, Value::Null).await.is(500);
        assert_eq!(answer.body, json!({ "errors": ["internal error"] }));
    }
    assert_eq!(server.entries().len(), 4);
    assert!(!server.audit("audit").contains("canary-panic"));
    assert!(!crate::tests::tokens::stored(&server, "logical/").await.iter().any(|k| k.ends_with("half")));
    server.get("faulty/fine", ROOT).await.is(204);
}

#[tokio::test]
async fn sec_ds03_names_that_callers_choose_are_not_remembered_without_bound() {
    let server = TestServer::new().await;
    let unsealed = server.unsealed();
    for n in 0..9000 {
        assert!(!unsealed.access.policies.exists(&format!("nobody-{n}")).await.unwrap());
    }
    assert!(unsealed.access.policies.remembered() <= 4096);
    assert!(unsealed.access.policies.exists("default").await.unwrap());
}
