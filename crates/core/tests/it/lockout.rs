//! Guessing at a user's secret locks the user out for a while, and nobody else.

use std::time::Duration;

use keepfast_core::settings::LockoutSettings;
use serde_json::{Value, json};

use crate::fixture::{Answer, House, ROOT};

/// A server with the user `anna`.
async fn house(change: impl FnOnce(&mut keepfast_core::Settings)) -> House {
    let house = House::with(|settings, _| change(settings), keepfast_engines::all()).await;
    house.post("sys/auth/up", ROOT, json!({ "type": "userpass" })).await.ok();
    house.post("auth/up/users/anna", ROOT, json!({ "password": "right" })).await.ok();
    house
}

async fn login(house: &House, name: &str, password: &str) -> Answer {
    house.post(&format!("auth/up/login/{name}"), "", json!({ "password": password })).await
}

async fn locked(house: &House) -> Value {
    house.get("sys/locked-users", ROOT).await.ok().data()["total"].clone()
}

#[tokio::test]
async fn sec_au01_five_guesses_in_any_spelling_lock_a_user_for_a_quarter_of_an_hour() {
    let house = house(|_| {}).await;
    for name in ["anna", "ANNA", "Anna", "anna", "aNNa"] {
        login(&house, name, "wrong").await.is(400);
    }
    // The right password is refused as the wrong one is.
    let (right, wrong) = (login(&house, "anna", "right").await.is(403), login(&house, "ANNA", "wrong").await.is(403));
    assert_eq!((right.error(), &right.body), ("permission denied", &wrong.body));
    assert_eq!(locked(&house).await, 1);
    house.clock.advance(Duration::from_secs(899));
    login(&house, "anna", "right").await.is(403);
    house.clock.advance(Duration::from_secs(1));
    login(&house, "anna", "right").await.ok();
    assert_eq!(locked(&house).await, 0);
}

#[tokio::test]
async fn a_right_password_or_a_while_clears_the_count() {
    let house = house(|_| {}).await;
    let guess = async |times: usize| {
        for _ in 0..times {
            login(&house, "anna", "wrong").await.is(400);
        }
    };
    guess(4).await;
    login(&house, "anna", "right").await.ok();
    guess(4).await;
    house.clock.advance(Duration::from_secs(900));
    guess(4).await;
    login(&house, "anna", "right").await.ok();
}

#[tokio::test]
async fn names_of_nobody_are_not_remembered_and_look_like_a_wrong_password() {
    let house = house(|_| {}).await;
    for n in 0..20 {
        let answer = login(&house, &format!("nobody{}", n % 2), "wrong").await.is(400);
        assert_eq!(answer.error(), "invalid username or password");
    }
    assert_eq!(locked(&house).await, 0);
}

#[tokio::test]
async fn an_operator_unlocks_and_decides_when_users_are_locked() {
    let strict = LockoutSettings { threshold: 1, ..LockoutSettings::default() };
    let house = house(|settings| {
        settings.user_lockout.insert("userpass".to_owned(), strict);
    })
    .await;
    login(&house, "anna", "wrong").await.is(400);
    login(&house, "anna", "right").await.is(403);
    let shown = house.get("sys/locked-users", ROOT).await.ok();
    let accessor = &shown.data()["by_namespace"][0]["mount_accessors"][0]["mount_accessor"];
    let path = format!("sys/locked-users/{}/unlock/anna", accessor.as_str().unwrap());
    house.post(&path, "", json!({})).await.is(403);
    login(&house, "anna", "right").await.is(403);
    house.post(&path, ROOT, json!({})).await.is(204);
    login(&house, "anna", "right").await.ok();
    // What is tuned at the mount wins over the configuration.
    let tune = json!({ "user_lockout_config": { "lockout_threshold": 2, "lockout_duration": "1h" } });
    house.post("sys/auth/up/tune", ROOT, tune).await.ok();
    login(&house, "anna", "wrong").await.is(400);
    login(&house, "anna", "right").await.ok();
    house.post("sys/auth/up/tune", ROOT, json!({ "user_lockout_config": { "lockout_disable": true } })).await.ok();
    for _ in 0..9 {
        login(&house, "anna", "wrong").await.is(400);
    }
    login(&house, "anna", "right").await.ok();
}

#[tokio::test]
async fn sec_au01_a_lock_outlives_a_restart_and_ends_when_it_should() {
    let mut house = house(|_| {}).await;
    house.post("auth/up/users/otto", ROOT, json!({ "password": "right" })).await.ok();
    for name in ["anna", "otto"] {
        for _ in 0..5 {
            login(&house, name, "wrong").await.is(400);
        }
    }
    house.restarted().await;
    login(&house, "anna", "right").await.is(403);
    assert_eq!(locked(&house).await, 2);
    let shown = house.get("sys/locked-users", ROOT).await.ok();
    let accessor = &shown.data()["by_namespace"][0]["mount_accessors"][0]["mount_accessor"];
    let path = format!("sys/locked-users/{}/unlock/anna", accessor.as_str().unwrap());
    house.post(&path, ROOT, json!({})).await.is(204);
    house.restarted().await;
    login(&house, "anna", "right").await.ok();
    login(&house, "otto", "right").await.is(403);
    house.clock.advance(Duration::from_secs(900));
    login(&house, "otto", "right").await.ok();
    house.restarted().await;
    assert_eq!(locked(&house).await, 0);
}
