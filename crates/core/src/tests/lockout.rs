//! Failed logins lock out the user for a while, and no other user.

use std::time::Duration;

use crate::settings::LockoutSettings;
use keepfast_framework::reply::ClaimedAlias;
use keepfast_framework::{Clock, Error};
use keepfast_storage::StorageError;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, TestResponse, TestServer};
use crate::tests::tokens::stored;

/// A server with the user `anna`.
async fn server(change: impl FnOnce(&mut crate::Settings)) -> TestServer {
    let server = TestServer::with(|settings, _| change(settings), keepfast_engines::all()).await;
    server.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    server
}

async fn login(server: &TestServer, name: &str, password: &str) -> TestResponse {
    server.post(&format!("auth/up/login/{name}"), "", json!({ "password": password })).await
}

async fn locked(server: &TestServer) -> Value {
    server.get("sys/locked-users", ROOT).await.ok().data()["total"].clone()
}

#[tokio::test]
async fn sec_au01_five_failed_logins_in_any_spelling_lock_a_user() {
    let server = server(|_| {}).await;
    for name in ["anna", "ANNA", "Anna", "anna", "aNNa"] {
        login(&server, name, "wrong").await.is(400);
    }
    // The right password is refused like the wrong one.
    let (right, wrong) = (login(&server, "anna", "right").await.is(403), login(&server, "ANNA", "wrong").await.is(403));
    assert_eq!((right.error(), &right.body), ("permission denied", &wrong.body));
    assert_eq!(locked(&server).await, 1);
    server.clock.advance(Duration::from_secs(899));
    login(&server, "anna", "right").await.is(403);
    server.clock.advance(Duration::from_secs(1));
    login(&server, "anna", "right").await.ok();
    assert_eq!(locked(&server).await, 0);
}

#[tokio::test]
async fn a_right_password_or_a_while_clears_the_count() {
    let server = server(|_| {}).await;
    let guess = async |times: usize| {
        for _ in 0..times {
            login(&server, "anna", "wrong").await.is(400);
        }
    };
    guess(4).await;
    login(&server, "anna", "right").await.ok();
    guess(4).await;
    server.clock.advance(Duration::from_secs(900));
    guess(4).await;
    login(&server, "anna", "right").await.ok();
}

#[tokio::test]
async fn sec_kf14_an_unknown_name_gets_the_responses_of_a_known_one() {
    let mut server = server(|_| {}).await;
    let answers = async |server: &TestServer, name: &str, times: usize| {
        let mut answers = Vec::new();
        for _ in 0..times {
            let answer = login(server, name, "wrong").await;
            answers.push((answer.status, answer.body));
        }
        answers
    };
    let known = answers(&server, "anna", 9).await;
    assert_eq!(known, answers(&server, "nobody", 9).await);
    assert_eq!(
        known.iter().map(|(status, _)| *status).collect::<Vec<_>>(),
        [400, 400, 400, 400, 400, 403, 403, 403, 403]
    );
    assert_eq!(locked(&server).await, 1, "only users are listed");
    // In the last second of the lock, after it, and across a restart.
    for (seconds, restarts) in [(899, false), (1, false), (600, true), (300, false)] {
        server.clock.advance(Duration::from_secs(seconds));
        if restarts {
            server.restarted().await;
        }
        assert_eq!(answers(&server, "anna", 7).await, answers(&server, "nobody", 7).await, "{seconds} {restarts}");
    }
}

#[tokio::test]
async fn sec_kf14_an_unknown_role_id_gets_the_responses_of_a_known_one() {
    let server = TestServer::new().await;
    server.approle("r", json!({})).await.ok();
    let known = server.get("auth/approle/role/r/role-id", ROOT).await.ok().data()["role_id"].clone();
    let answers = async |role_id: Value, secret_id: Value| {
        let body = json!({ "role_id": role_id, "secret_id": secret_id });
        let mut answers = Vec::new();
        for _ in 0..8 {
            let answer = server.post("auth/approle/login", "", body.clone()).await;
            answers.push((answer.status, answer.body));
        }
        answers
    };
    assert_eq!(answers(known.clone(), json!("wrong")).await, answers(json!("no-such-role"), json!("wrong")).await);
    server.clock.advance(Duration::from_secs(900));
    assert_eq!(answers(known, json!("")).await, answers(json!("other"), json!("")).await);
}

#[tokio::test]
async fn sec_kf14_right_passwords_from_outside_lock_as_wrong_ones_do() {
    let server = server(|_| {}).await;
    server.post("auth/up/users/anna", ROOT, json!({ "token_bound_cidrs": "10.0.0.0/8" })).await.ok();
    let mut answers = Vec::new();
    for password in ["wrong", "right", "right", "wrong", "right", "right", "wrong"] {
        answers.push(login(&server, "anna", password).await.status);
    }
    assert_eq!(answers, [400, 400, 400, 400, 400, 403, 403]);
}

#[tokio::test]
async fn a_user_lock_and_its_count_do_not_depend_on_unknown_names() {
    let server = server(|_| {}).await;
    for _ in 0..4 {
        login(&server, "anna", "wrong").await.is(400);
    }
    login(&server, "anna", "right").await.ok();
    // The name has four failed attempts, the user none since the right password.
    for _ in 0..4 {
        login(&server, "anna", "wrong").await.is(400);
    }
    login(&server, "anna", "right").await.ok();
    login(&server, "anna", "wrong").await.is(400);
}

#[tokio::test]
async fn an_operator_unlocks_and_decides_when_users_are_locked() {
    let strict = LockoutSettings { threshold: 1, ..LockoutSettings::default() };
    let server = server(|settings| {
        settings.user_lockout.insert("userpass".to_owned(), strict);
    })
    .await;
    login(&server, "anna", "wrong").await.is(400);
    login(&server, "anna", "right").await.is(403);
    let shown = server.get("sys/locked-users", ROOT).await.ok();
    let accessor = &shown.data()["by_namespace"][0]["mount_accessors"][0]["mount_accessor"];
    let path = format!("sys/locked-users/{}/unlock/anna", accessor.as_str().unwrap());
    server.post(&path, "", json!({})).await.is(403);
    login(&server, "anna", "right").await.is(403);
    server.post(&path, ROOT, json!({})).await.is(204);
    login(&server, "anna", "right").await.ok();
    // The tuning of the mount overrides the configuration.
    let tune = json!({ "user_lockout_config": { "lockout_threshold": 2, "lockout_duration": "1h" } });
    server.post("sys/auth/up/tune", ROOT, tune).await.ok();
    login(&server, "anna", "wrong").await.is(400);
    login(&server, "anna", "right").await.ok();
    server.post("sys/auth/up/tune", ROOT, json!({ "user_lockout_config": { "lockout_disable": true } })).await.ok();
    for _ in 0..9 {
        login(&server, "anna", "wrong").await.is(400);
    }
    login(&server, "anna", "right").await.ok();
}

#[tokio::test]
async fn sec_au01_a_lock_survives_a_restart_and_ends_on_time() {
    let mut server = server(|_| {}).await;
    server.post("auth/up/users/otto", ROOT, json!({ "password": "right" })).await.ok();
    for name in ["anna", "otto"] {
        for _ in 0..5 {
            login(&server, name, "wrong").await.is(400);
        }
    }
    server.restarted().await;
    login(&server, "anna", "right").await.is(403);
    assert_eq!(locked(&server).await, 2);
    let shown = server.get("sys/locked-users", ROOT).await.ok();
    let accessor = &shown.data()["by_namespace"][0]["mount_accessors"][0]["mount_accessor"];
    let path = format!("sys/locked-users/{}/unlock/anna", accessor.as_str().unwrap());
    server.post(&path, ROOT, json!({})).await.is(204);
    server.restarted().await;
    login(&server, "anna", "right").await.ok();
    login(&server, "otto", "right").await.is(403);
    server.clock.advance(Duration::from_secs(900));
    login(&server, "otto", "right").await.ok();
    server.restarted().await;
    assert_eq!(locked(&server).await, 0);
}

#[tokio::test]
async fn sec_kf14_an_attack_at_one_mount_does_not_affect_another() {
    let mut server = server(|_| {}).await;
    server.post("sys/auth/other", ROOT, json!({ "type": "userpass" })).await.ok();
    server.post("auth/other/users/otto", ROOT, json!({ "password": "right" })).await.ok();
    let guess = async |server: &TestServer, name: &str| {
        server.post(&format!("auth/other/login/{name}"), "", json!({ "password": "wrong" })).await.status
    };
    // Many names at one mount, without the cost of their hashes.
    let unsealed = server.unsealed();
    let entry = unsealed.engines.mounts.router().at("auth/up/").unwrap().entry.clone();
    let (settings, now) = (server.settings.clone(), server.clock.now());
    for n in 0..33_000 {
        let alias = ClaimedAlias { name: format!("n{n}"), is_known: false };
        let wrong = Err::<(), Error>(Error::invalid("wrong"));
        drop(unsealed.access.lockout.check(&entry, alias, &settings, now, wrong));
    }
    login(&server, "anna", "wrong").await.is(403);
    assert_eq!(login(&server, "anna", "right").await.status, 200, "locks of users do not depend on it");
    for name in ["otto", "nobody"] {
        let answers = [guess(&server, name).await, guess(&server, name).await];
        assert_eq!(answers, [400, 400], "{name}");
    }
    // A lock of an unknown name survives a restart, at its own mount only.
    for _ in 0..3 {
        guess(&server, "nobody").await;
    }
    assert_eq!(guess(&server, "nobody").await, 403);
    server.restarted().await;
    assert_eq!((guess(&server, "nobody").await, guess(&server, "otto").await), (403, 400));
}

#[tokio::test]
async fn a_lock_that_begins_while_the_one_before_is_deleted_holds() {
    let server = std::sync::Arc::new(server(|_| {}).await);
    for _ in 0..5 {
        login(&server, "anna", "wrong").await;
    }
    server.clock.advance(Duration::from_secs(900));
    let attempt = |password: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { login(&server, "anna", password).await })
    };
    // The login deletes the old lock; its commit is held while a new lock begins.
    let gate = server.backend.arm();
    let right = attempt("right");
    gate.reached.notified().await;
    for _ in 0..4 {
        login(&server, "anna", "wrong").await.is(400);
    }
    let last = attempt("wrong");
    while server.unsealed().access.lockout.count_locked(server.clock.now()) == 0 {
        tokio::task::yield_now().await;
    }
    gate.open.notify_one();
    right.await.unwrap().ok();
    last.await.unwrap();
    assert_eq!(locked(&server).await, 1);
    login(&server, "anna", "right").await.is(403);
    let mut again = std::sync::Arc::into_inner(server).unwrap();
    again.restarted().await;
    assert_eq!(locked(&again).await, 1, "and is stored");
}

/// A server with 1200 stored locks that have expired.
async fn server_with_ended_locks() -> TestServer {
    let server = server(|_| {}).await;
    for _ in 0..5 {
        login(&server, "anna", "wrong").await;
    }
    let unsealed = server.unsealed();
    let view = unsealed.barrier.view("sys/");
    let lock = stored(&server, "sys/lockout/").await.remove(0);
    let lock = lock.strip_prefix("sys/").unwrap();
    let (folder, _) = lock.rsplit_once('/').unwrap();
    let mut tx = unsealed.barrier.begin();
    let record = tx.get(&view, lock).await.unwrap().unwrap();
    for number in 1..1200 {
        tx.put(&view, &format!("{folder}/{number:032x}"), record.clone());
    }
    tx.commit().await.unwrap();
    server.clock.advance(Duration::from_secs(900));
    server
}

#[tokio::test]
async fn sec_kf58_expired_locks_are_deleted_in_pages_after_the_takeover() {
    let mut server = server_with_ended_locks().await;
    server.backend.refuse(|batch| {
        let size = batch.reads.len() + batch.writes.len();
        (size > 1050).then_some(StorageError::TooLarge { size, limit: 1050 })
    });
    server.restarted().await;
    while !stored(&server, "sys/lockout/").await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn locks_that_are_over_are_deleted_every_hour() {
    let server = server_with_ended_locks().await;
    assert_eq!(stored(&server, "sys/lockout/").await.len(), 1200);
    server.clock.advance(Duration::from_secs(3600));
    while !stored(&server, "sys/lockout/").await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sec_kf58_locks_that_cannot_be_deleted_stop_no_unseal() {
    let mut server = server_with_ended_locks().await;
    server.backend.refuse(|batch| {
        let is_of_locks = batch.writes.iter().any(|write| write.key().as_str().starts_with("sys/lockout/"));
        is_of_locks.then_some(StorageError::TooLarge { size: 2, limit: 1 })
    });
    server.restarted().await;
    login(&server, "anna", "right").await.ok();
}
