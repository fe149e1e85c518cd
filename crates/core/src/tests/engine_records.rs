//! Open engines receive every commit to their records, and one that is being opened misses none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keepfast_framework::engine::Registered;
use keepfast_framework::{Engine, Error, Kind, Result, Routes};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use crate::tests::fixture::{ROOT, TestServer};

/// The invalidations that the engines under test received, and the gate of their opening.
#[derive(Default)]
struct Invalidated {
    keys: Mutex<Vec<(String, bool)>>,
    waits: AtomicBool,
    opening: Notify,
    go_on: Notify,
}

/// An engine that stores its invalidations.
struct Listening<const AUTH: bool>(Arc<Invalidated>);

impl<const AUTH: bool> Engine for Listening<AUTH> {
    const TYPE: &'static str = "listening";
    const KIND: Kind = if AUTH { Kind::Auth } else { Kind::Secrets };

    fn routes(_: &mut Routes<Self>) {}

    async fn open(_: &mut keepfast_framework::Cx) -> Result<Self> {
        Err(Error::internal("opened with what it notes into"))
    }

    fn invalidate(&self, key: &str, exists: bool) {
        self.0.keys.lock().push((key.to_owned(), exists));
    }
}

fn listening<const AUTH: bool>(invalidated: &Arc<Invalidated>) -> Registered {
    let invalidated = invalidated.clone();
    Registered::with(move |_| {
        let invalidated = invalidated.clone();
        Box::pin(async move {
            if invalidated.waits.load(Ordering::Relaxed) {
                invalidated.opening.notify_one();
                invalidated.go_on.notified().await;
            }
            Ok(Listening::<AUTH>(invalidated))
        })
    })
}

/// Writes or deletes a record of the mount.
async fn commit(server: &TestServer, path: &str, key: &str, exists: bool) {
    let unsealed = server.unsealed();
    let view = unsealed.engines.mounts.router().at(path).unwrap().view.clone();
    let mut tx = unsealed.barrier.begin();
    if exists {
        tx.put(&view, key, "v".into())
    } else {
        tx.delete(&view, key)
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn an_engine_is_invalidated_by_commits_while_it_opens() {
    for (api, path) in [("sys/mounts/l", "l/"), ("sys/auth/l", "auth/l/")] {
        let invalidated = Arc::<Invalidated>::default();
        let engines = vec![listening::<false>(&invalidated), listening::<true>(&invalidated)];
        let server = Arc::new(TestServer::with(|_, _| {}, keepfast_engines::all().preceded_by(engines)).await);
        server.post(api, ROOT, json!({ "type": "listening" })).await.ok();
        commit(&server, path, "a/b", true).await;
        commit(&server, path, "a/b", false).await;
        server.post("secret/data/x", ROOT, json!({ "data": {} })).await.ok();
        let keys = std::mem::take(&mut *invalidated.keys.lock());
        assert_eq!(keys, [("a/b".to_owned(), true), ("a/b".to_owned(), false)], "of its own mount only");

        // A mount that is tuned has a new engine.
        invalidated.waits.store(true, Ordering::Relaxed);
        let tuning = {
            let (server, api) = (server.clone(), format!("{api}/tune"));
            tokio::spawn(async move { server.post(&api, ROOT, json!({ "description": "tuned" })).await })
        };
        invalidated.opening.notified().await;
        commit(&server, path, "meanwhile", true).await;
        assert!(invalidated.keys.lock().is_empty());
        invalidated.go_on.notify_one();
        tuning.await.unwrap().ok();
        commit(&server, path, "after", true).await;
        let keys = std::mem::take(&mut *invalidated.keys.lock());
        assert_eq!(keys, [("meanwhile".to_owned(), true), ("after".to_owned(), true)]);
    }
}

/// An engine that panics at a record named `panic`.
struct Panicking;

impl Engine for Panicking {
    const TYPE: &'static str = "panicking";
    const KIND: Kind = Kind::Secrets;

    fn routes(_: &mut Routes<Self>) {}

    async fn open(_: &mut keepfast_framework::Cx) -> Result<Self> {
        Ok(Panicking)
    }

    fn invalidate(&self, key: &str, _exists: bool) {
        assert!(key != "panic", "as the test wants it");
    }
}

#[tokio::test]
async fn an_engine_that_panics_at_a_commit_is_reopened() {
    let engines = keepfast_engines::all().preceded_by(vec![Registered::of::<Panicking>()]);
    let server = TestServer::with(|_, _| {}, engines).await;
    server.post("sys/mounts/p", ROOT, json!({ "type": "panicking" })).await.ok();
    let is_open = || server.unsealed().engines.mounts.router().at("p/").unwrap().opened().is_some();
    commit(&server, "p/", "fine", true).await;
    assert!(is_open());
    commit(&server, "p/", "panic", true).await;
    assert!(!is_open(), "what it has in memory may be stale");
    let unsealed = server.unsealed();
    let mounted = unsealed.engines.mounts.router().at("p/").unwrap().clone();
    mounted.engine(&unsealed.engines.host).await.unwrap();
    commit(&server, "p/", "fine", false).await;
    assert!(is_open() && !server.node.state().is_sealed);
}
