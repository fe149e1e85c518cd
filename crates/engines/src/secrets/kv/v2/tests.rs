//! Version 2 on memory storage, beyond the comparison with OpenBao.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::testing::Bench;
use keepfast_framework::{CanonicalPath, Error, Operation, Page};
use serde_json::{Value, json};

use super::V2;
use crate::secrets::kv::V1;

async fn bench() -> Bench {
    Bench::with_options::<V2>(&[("version", "2")]).await.unwrap()
}

fn status<T>(result: Result<T, Error>) -> u16 {
    result.err().map_or(200, |error| error.status().0)
}

/// Every record of the mount, sorted by name.
async fn stored(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let (_, mut cx) = bench.engine_and_cx();
    let (tx, view) = cx.store();
    let mut folders = vec![String::new()];
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for name in tx.list(view, &folder, &Page::all()).await.unwrap() {
            let path = format!("{folder}{name}");
            if name.ends_with('/') {
                folders.push(path);
            } else {
                let bytes = tx.get(view, &path).await.unwrap().unwrap();
                out.push((path, bytes.to_vec()));
            }
        }
    }
    out.sort();
    out
}

async fn names(bench: &Bench) -> Vec<String> {
    stored(bench).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn responses_match_openbao() {
    crate::openbao::compare(bench().await, include_str!("../../../openbao/kv_v2.jsonl")).await;
    crate::openbao::compare(bench().await, include_str!("../../../openbao/kv_v2_more.jsonl")).await;
}

#[tokio::test]
async fn each_older_version_is_a_record_of_its_own() {
    let bench = bench().await;
    for n in 1..=3 {
        bench.write("data/a/b", json!({"data": {"n": n}})).await.unwrap();
    }
    assert_eq!(names(&bench).await, ["secret/a/b", "version/a/b/1", "version/a/b/2"]);
    bench.write("metadata/a/b", json!({"max_versions": 2})).await.unwrap();
    bench.write("config", json!({"max_versions": 1})).await.unwrap();
    bench.write("data/a/b", json!({"data": {"n": 4}})).await.unwrap();
    assert_eq!(names(&bench).await, ["config", "secret/a/b", "version/a/b/3"], "pruned data is gone from storage");
    bench.write("destroy/a/b", json!({"versions": [3, 4]})).await.unwrap();
    assert_eq!(names(&bench).await, ["config", "secret/a/b"], "destroyed data is gone from storage");
    assert!(!String::from_utf8_lossy(&stored(&bench).await[1].1).contains("\"n\""));
    bench.delete("metadata/a/b").await.unwrap();
    assert_eq!(names(&bench).await, ["config"]);
}

#[tokio::test]
async fn a_read_returns_the_text_that_was_written() {
    let bench = bench().await;
    let sent = r#"{"z":1.10,"a":{"big":123456789012345678901234567890, "e":1E5},"t":"\u00e9<"}"#;
    bench.call_raw(Operation::Update, "data/a", &format!("{{\"data\":{sent}}}")).await.unwrap();
    let read = async |path: &str| bench.read(path).await.unwrap().outcome.data().unwrap().get().to_owned();
    assert!(read("data/a").await.starts_with(&format!("{{\"data\":{sent},\"metadata\":")));
    bench.call_raw(Operation::Patch, "data/a", r#"{"data":{"a":{"e":null,"f":-0.0}}}"#).await.unwrap();
    assert!(read("data/a").await.contains(r#""a":{"big":123456789012345678901234567890,"f":-0.0}"#));
    assert!(read("data/a?version=1").await.starts_with(&format!("{{\"data\":{sent},\"metadata\":")));
    let half = bench.call_raw(Operation::Update, "data/a", r#"{"data":{"t":"\ud800"}}"#).await;
    assert_eq!(status(half), 400);
}

#[tokio::test]
async fn an_expired_version_is_deleted_and_undelete_restores_it() {
    let bench = bench().await;
    bench.write("metadata/a", json!({"delete_version_after": "1h"})).await.unwrap();
    let written = bench.write("data/a", json!({"data": {"n": 1}})).await.unwrap().data();
    assert_eq!(written["deletion_time"], "2026-01-01T01:00:00Z");
    bench.clock.advance(Duration::from_secs(3599));
    assert_eq!(bench.read("data/a").await.unwrap().status(), None);
    bench.clock.advance(Duration::from_secs(1));
    let gone = bench.read("data/a").await.unwrap();
    assert_eq!((gone.status().map(|s| s.0), &gone.data()["data"]), (Some(404), &Value::Null));
    assert_eq!(gone.data()["metadata"]["deletion_time"], "2026-01-01T01:00:00Z");
    // A second deletion keeps the time of the first.
    bench.delete("data/a").await.unwrap();
    bench.write("delete/a", json!({"versions": [1]})).await.unwrap();
    assert_eq!(bench.read("data/a").await.unwrap().data()["metadata"]["deletion_time"], "2026-01-01T01:00:00Z");
    bench.write("undelete/a", json!({"versions": [1]})).await.unwrap();
    let back = bench.read("data/a").await.unwrap().data();
    assert_eq!((&back["data"], &back["metadata"]["deletion_time"]), (&json!({"n": 1}), &json!("2026-01-01T02:00:00Z")));
}

#[tokio::test]
async fn null_data_is_a_value_and_accepts_an_empty_patch() {
    let bench = bench().await;
    bench.call_raw(Operation::Update, "data/a", r#"{"data":null}"#).await.unwrap();
    assert_eq!(bench.read("data/a").await.unwrap().data()["data"], Value::Null);
    bench.patch("data/a", json!({"data": {"x": 1}})).await.unwrap();
    let (now, before) = (bench.read("data/a").await.unwrap(), bench.read("data/a?version=1").await.unwrap());
    assert_eq!((&now.data()["data"], &before.data()["data"]), (&json!({"x": 1}), &Value::Null));
    assert_eq!((now.status(), before.status()), (None, None));
}

#[tokio::test]
async fn numbers_of_versions_out_of_range_are_refused() {
    let bench = bench().await;
    for number in [json!(-1), json!("-1"), json!(4_294_967_296_u64)] {
        assert_eq!(status(bench.write("config", json!({"max_versions": number})).await), 400);
        assert_eq!(status(bench.write("metadata/a", json!({"max_versions": number})).await), 400);
    }
    assert!(stored(&bench).await.is_empty());
}

#[tokio::test]
async fn a_patch_with_null_clears_a_setting() {
    let bench = bench().await;
    let all =
        json!({"max_versions": 3, "cas_required": true, "delete_version_after": "1h", "custom_metadata": {"a": "b"}});
    bench.write("metadata/a", all).await.unwrap();
    let nulls = r#"{"max_versions":null,"cas_required":null,"delete_version_after":null,"custom_metadata":null}"#;
    bench.call_raw(Operation::Patch, "metadata/a", nulls).await.unwrap();
    let shown = bench.read("metadata/a").await.unwrap().data();
    for (name, value) in [
        ("max_versions", json!(0)),
        ("cas_required", json!(false)),
        ("delete_version_after", json!("0s")),
        ("custom_metadata", Value::Null),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_secret_exists_until_its_metadata_is_deleted() {
    let bench = bench().await;
    assert_eq!(bench.exists("data/a").await.unwrap(), Some(false));
    bench.write("data/a", json!({"data": {}})).await.unwrap();
    bench.write("destroy/a", json!({"versions": [1]})).await.unwrap();
    assert_eq!(bench.exists("data/a").await.unwrap(), Some(true));
    assert_eq!(bench.exists("metadata/a").await.unwrap(), Some(true));
    bench.delete("metadata/a").await.unwrap();
    assert_eq!(bench.exists("data/a").await.unwrap(), Some(false));
    bench.write("metadata/a", json!({"max_versions": 1})).await.unwrap();
    assert_eq!(bench.exists("data/a").await.unwrap(), Some(true));
}

#[tokio::test]
async fn a_new_secret_after_a_deleted_one_starts_at_version_1() {
    let bench = bench().await;
    for n in 1..=3 {
        bench.write("data/a", json!({"data": {"n": n}})).await.unwrap();
    }
    bench.delete("metadata/a").await.unwrap();
    bench.write("data/a", json!({"data": {"n": 9}, "options": {"cas": 0}})).await.unwrap();
    assert_eq!(bench.read("data/a").await.unwrap().data()["metadata"]["version"], 1);
    assert_eq!(status(bench.read("data/a?version=2").await), 404);
}

#[tokio::test]
async fn paged_scans_return_every_secret() {
    let bench = bench().await;
    let mut all = Vec::new();
    for path in ["a", "a/b", "a/b/c", "a-/b", "a.b", "b/a/z", "b/z", "c", "d/e/f/g"] {
        bench.write(&format!("data/{path}"), json!({"data": {}})).await.unwrap();
        all.push(path.to_owned());
    }
    all.sort();
    // A whole scan goes folder by folder, as in OpenBao; a page of a scan is sorted.
    let whole = bench.scan("metadata/").await.unwrap().data();
    assert_eq!(whole["keys"], json!(["a", "a.b", "c", "d/e/f/g", "b/z", "b/a/z", "a/b", "a/b/c", "a-/b"]));
    for limit in 1..4 {
        let (mut seen, mut after) = (Vec::<String>::new(), String::new());
        loop {
            let page = bench.scan(&format!("metadata/?limit={limit}&after={after}")).await.unwrap().data();
            let Some(keys) = page["keys"].as_array() else { break };
            assert!((1..=limit).contains(&keys.len()) && seen.len() < all.len(), "{keys:?} after {seen:?}");
            seen.extend(keys.iter().map(|k| k.as_str().unwrap().to_owned()));
            after = seen.last().unwrap().clone();
        }
        assert_eq!(seen, all, "limit {limit}");
    }
    assert_eq!(bench.scan("metadata/a").await.unwrap().data()["keys"], json!(["b", "b/c"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sec_se12_versions_metadata_and_data_agree_after_concurrent_writes() {
    let bench = Arc::new(bench().await);
    bench.write("metadata/a", json!({"max_versions": 1000})).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..40 {
        let bench = bench.clone();
        tasks.push(tokio::spawn(async move {
            match n % 4 {
                0 => bench.write("delete/a", json!({"versions": [n, n + 1]})).await.map(|_| 0),
                1 => bench.write("destroy/a", json!({"versions": [n / 3]})).await.map(|_| 0),
                _ => bench.write("data/a", json!({"data": {"n": n}})).await.map(|_| 1),
            }
        }));
    }
    let mut written = 0;
    for task in tasks {
        written += task.await.unwrap().unwrap();
    }
    agree(&bench, written).await;
}

/// Checks that each version of `a` can be read as its metadata states, and that storage holds nothing else.
async fn agree(bench: &Bench, written: u64) {
    let metadata = bench.read("metadata/a").await.unwrap().data();
    assert_eq!(metadata["current_version"], written);
    let mut kept = vec!["secret/a".to_owned()];
    for (number, state) in metadata["versions"].as_object().unwrap() {
        let read = bench.read(&format!("data/a?version={number}")).await.unwrap();
        let gone = state["destroyed"] == true || state["deletion_time"] != "";
        assert_eq!(read.status().is_some(), gone, "version {number}");
        assert_eq!(read.data()["data"].is_null(), gone, "version {number}");
        if state["destroyed"] == false && *number != written.to_string() {
            kept.push(format!("version/a/{number}"));
        }
    }
    kept.sort();
    assert_eq!(names(bench).await, kept);
}

#[tokio::test]
async fn sec_se12_a_request_cancelled_before_its_commit_changes_nothing() {
    let bench = bench().await;
    for n in 1..=3 {
        bench.write("data/a", json!({"data": {"n": n}})).await.unwrap();
    }
    let before = stored(&bench).await;
    let versions = json!({"versions": [1, 3]});
    for (operation, path, body) in [
        (Operation::Update, "data/a", json!({"data": {"n": 4}})),
        (Operation::Patch, "data/a", json!({"data": {"n": 4}})),
        (Operation::Delete, "data/a", Value::Null),
        (Operation::Update, "delete/a", versions.clone()),
        (Operation::Update, "undelete/a", versions.clone()),
        (Operation::Update, "destroy/a", versions),
        (Operation::Update, "metadata/a", json!({"max_versions": 1})),
        (Operation::Delete, "metadata/a", Value::Null),
    ] {
        let (engine, mut cx) = bench.engine_and_cx();
        let found = engine.table().find(operation, path).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let input = keepfast_framework::Input {
            captures: found.captures.clone(),
            query: keepfast_framework::Query::default(),
            body: keepfast_framework::Body::parse(body.into_bytes().into()).unwrap(),
        };
        engine.call(found.row, operation, &mut cx, &input).await.unwrap();
        assert!(cx.store().0.is_dirty(), "{operation:?} {path} writes nothing");
        drop(cx);
        assert_eq!(stored(&bench).await, before, "{operation:?} {path}");
    }
}

#[tokio::test]
async fn sec_ac01_no_spelling_of_a_path_reaches_another_secret() {
    let bench = bench().await;
    for n in 1..=2 {
        bench.write("data/b/x", json!({"data": {"n": n}})).await.unwrap();
    }
    let before = stored(&bench).await;
    let mut tried = 0;
    for spelling in [
        "b/x/",
        "a/../b/x",
        "./b/x",
        "b/./x",
        "b//x",
        "/b/x",
        "b/x/.",
        "b/x/..",
        "b/%78",
        "b%2fx",
        "b\\x",
        "b;/x",
        "b/x;",
        "b/x\0",
        "B/x",
        "b/X",
        "b/x ",
        " b/x",
        "b/x.",
        "a/%2e%2e/b/x",
        "b\u{2215}x",
        "b/x\u{200b}",
        "b/x#",
        "secret/b/x",
        "x/1",
        "b/x/1",
        "../secret/b/x",
    ] {
        for prefix in ["data", "metadata", "delete", "undelete", "destroy", "subkeys"] {
            let Ok(path) = CanonicalPath::new(format!("{prefix}/{spelling}")) else { continue };
            for operation in [Operation::Read, Operation::Patch, Operation::Delete, Operation::Update] {
                let body = match (operation, prefix) {
                    (Operation::Read | Operation::Delete, _) => Value::Null,
                    // A write creates a separate secret under that spelling; only operations on existing secrets
                    // matter.
                    (Operation::Update, "data" | "metadata") => continue,
                    _ => json!({"data": {"n": 0}, "versions": [1, 2], "max_versions": 1}),
                };
                if let (Ok(answer), Operation::Read) = (bench.call(operation, path.as_str(), body).await, operation) {
                    assert!(answer.status().is_some(), "{path:?} was answered");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 200);
    assert_eq!(stored(&bench).await, before);
}

#[tokio::test]
async fn se02_lists_and_metadata_never_contain_values() {
    let bench = bench().await;
    for _ in 0..2 {
        bench.write("data/a", json!({"data": {"password": "canary", "inner": {"list": ["canary"]}}})).await.unwrap();
    }
    bench.delete("data/a").await.unwrap();
    bench.write("data/a", json!({"data": {"password": "canary"}})).await.unwrap();
    for (operation, path) in [
        (Operation::Read, "metadata/a"),
        (Operation::Read, "subkeys/a"),
        (Operation::Read, "subkeys/a?version=1"),
        (Operation::Read, "data/a?version=2"),
        (Operation::List, "metadata/"),
        (Operation::Scan, "metadata/"),
        (Operation::List, "detailed-metadata/"),
        (Operation::Scan, "detailed-metadata/"),
        (Operation::Read, "config"),
    ] {
        let answer = bench.call(operation, path, Value::Null).await.unwrap();
        assert!(!answer.data().to_string().contains("canary"), "{operation:?} {path}");
    }
}

#[tokio::test]
async fn detailed_metadata_has_an_entry_for_every_key() {
    let bench = bench().await;
    for path in ["a", "a/b", "c/d"] {
        bench.write(&format!("data/{path}"), json!({"data": {}})).await.unwrap();
    }
    let listed = bench.list("detailed-metadata/").await.unwrap().data();
    assert_eq!(listed["keys"], json!(["a", "a/", "c/"]));
    assert_eq!(listed["key_info"]["a"]["current_version"], 1);
    assert_eq!(listed["key_info"]["a/"], listed["key_info"]["a"]);
    assert_eq!(listed["key_info"]["c/"], json!({}));
}

async fn upgraded(secrets: &[(&str, Value)]) -> Bench {
    let mut bench = Bench::new::<V1>().await.unwrap();
    for (path, data) in secrets {
        bench.write(path, data.clone()).await.unwrap();
    }
    bench.clock.advance(Duration::from_secs(60));
    bench.remount::<V2>(&[("version", "2")]).await.unwrap();
    bench.clock.advance(Duration::from_secs(60));
    bench
}

#[tokio::test]
async fn an_upgraded_mount_serves_version_2_before_and_after_conversion() {
    let secrets = [("a", json!({"n": 1})), ("d/b", json!({"n": 2, "ttl": "30s"})), ("d/c", json!({"n": 3}))];
    let mut bench = upgraded(&secrets).await;
    for round in 0..3 {
        for (path, data) in &secrets {
            let read = bench.read(&format!("data/{path}")).await.unwrap().data();
            assert_eq!(read["data"], *data, "round {round}");
            assert_eq!(read["metadata"]["version"], 1);
            let metadata = bench.read(&format!("metadata/{path}")).await.unwrap().data();
            assert_eq!((&metadata["current_version"], &metadata["oldest_version"]), (&json!(1), &json!(1)));
            assert_eq!(read["metadata"]["created_time"], "2026-01-01T00:01:00Z");
            assert_eq!(bench.exists(&format!("data/{path}")).await.unwrap(), Some(true));
        }
        assert_eq!(bench.list("metadata/").await.unwrap().data()["keys"], json!(["a", "d/"]));
        assert_eq!(bench.list("metadata/?limit=1").await.unwrap().data()["keys"], json!(["a"]));
        assert_eq!(bench.scan("metadata/").await.unwrap().data()["keys"], json!(["a", "d/b", "d/c"]));
        match round {
            // A restart during the upgrade, then the conversion, then the end of the upgrade.
            0 => bench.remount::<V2>(&[("version", "2")]).await.unwrap(),
            _ => bench.tick_after(Duration::from_secs(60)).await.unwrap(),
        }
    }
    bench.tick_after(Duration::from_secs(60)).await.unwrap();
    assert_eq!(names(&bench).await, ["secret/a", "secret/d/b", "secret/d/c"]);
}

#[tokio::test]
async fn a_change_before_the_conversion_converts_the_secret() {
    let bench =
        upgraded(&[("a", json!({"n": 1})), ("b", json!({"n": 1})), ("c", json!({"n": 1})), ("d", json!({"n": 1}))])
            .await;
    bench.write("data/a", json!({"data": {"n": 2}, "options": {"cas": 1}})).await.unwrap();
    bench.delete("metadata/b").await.unwrap();
    bench.delete("data/c").await.unwrap();
    assert_eq!(bench.scan("metadata/").await.unwrap().data()["keys"], json!(["a", "c", "d"]));
    for _ in 0..3 {
        bench.tick_after(Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(names(&bench).await, ["secret/a", "secret/c", "secret/d", "version/a/1"]);
    assert_eq!(bench.read("data/a").await.unwrap().data()["data"], json!({"n": 2}));
    assert_eq!(bench.read("data/a?version=1").await.unwrap().data()["data"], json!({"n": 1}));
    assert_eq!(status(bench.read("data/b").await), 404);
    assert_eq!(bench.read("data/c").await.unwrap().status().map(|s| s.0), Some(404));
}

#[tokio::test]
async fn sec_kf57_an_upgrade_does_not_end_over_a_secret_written_meanwhile() {
    let bench = upgraded(&[("a", json!({"n": 1}))]).await;
    bench.tick_after(Duration::from_secs(60)).await.unwrap();
    let (engine, mut ending) = bench.engine_and_cx();
    engine.tick(&mut ending).await.unwrap();
    let (_, mut late) = bench.engine_and_cx();
    let (tx, view) = late.store();
    tx.put(view, "plain/late", "{\"n\":2}".into());
    late.commit().await.unwrap();
    assert!(ending.commit().await.map_err(Error::from).unwrap_err().is_conflict());
    assert_eq!(bench.read("data/late").await.unwrap().data()["data"], json!({"n": 2}));
}

#[tokio::test]
async fn the_upgrade_converts_a_large_mount_in_pages() {
    let secrets: Vec<(String, Value)> = (0..1100).map(|n| (format!("f{}/{n:04}", n % 7), json!({"n": n}))).collect();
    let secrets: Vec<(&str, Value)> = secrets.iter().map(|(path, data)| (path.as_str(), data.clone())).collect();
    let bench = upgraded(&secrets).await;
    let mut plain = Vec::new();
    for _ in 0..4 {
        plain.push(names(&bench).await.iter().filter(|name| name.starts_with("plain/")).count());
        bench.tick_after(Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(plain, [1100, 600, 100, 0]);
    assert_eq!(names(&bench).await.len(), 1100);
    assert_eq!(bench.scan("metadata/").await.unwrap().data()["keys"].as_array().unwrap().len(), 1100);
}

#[tokio::test]
async fn a_new_secret_and_its_first_version_have_the_same_time() {
    let bench = bench().await;
    for (path, body) in [("data/a", json!({"data": {}})), ("metadata/b", json!({"max_versions": 1}))] {
        bench.clock.step_on_reading(Duration::from_nanos(1));
        bench.write(path, body).await.unwrap();
        bench.clock.step_on_reading(Duration::ZERO);
        let shown = bench.read(&path.replace("data/a", "metadata/a")).await.unwrap().data();
        assert_eq!(shown["created_time"], shown["updated_time"], "{path}");
        if let Some(first) = shown["versions"].get("1") {
            assert_eq!(shown["created_time"], first["created_time"]);
        }
    }
}
