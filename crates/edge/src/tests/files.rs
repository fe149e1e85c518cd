//! Bodies and responses that are in files.

use super::{MAX_FILE, Server};

const LIVE: &str = "X-Vault-Token: live";

/// A listener whose bodies in memory are shorter than a file may be.
async fn server() -> Server {
    Server::with(|config| config.limits.body = 100_000).await
}

#[tokio::test]
async fn a_long_body_of_bytes_is_received_into_a_file_and_sent_from_it() {
    let server = server().await;
    let body: Vec<u8> = (0..MAX_FILE).map(|at| b'a' + (at % 26) as u8).collect();
    let sent = server.send("PUT /v1/test/file", &[LIVE], &body).await;
    assert_eq!((sent.status, sent.header("content-length")), (200, Some(MAX_FILE.to_string().as_str())));
    assert!(sent.body.as_bytes() == body, "{} bytes", sent.body.len());
    // The length is not announced.
    let chunks = body.chunks(300_000);
    let chunks = chunks.flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let chunks: Vec<u8> = chunks.chain(*b"0\r\n\r\n").collect();
    let sent = server.send("PUT /v1/test/file", &[LIVE, "Transfer-Encoding: chunked"], &chunks).await;
    assert!(sent.status == 200 && sent.body.as_bytes() == body, "{} bytes", sent.body.len());
    // A short one stays in memory.
    let short = server.send("PUT /v1/test/file", &[LIVE], &body[..1000]).await;
    assert_eq!((short.status, &short.json()["bytes"]), (200, &serde_json::json!(1000)));
}

#[tokio::test]
async fn a_body_above_the_limit_of_files_is_refused_with_its_name() {
    let server = server().await;
    let announced = format!("Content-Length: {}", MAX_FILE + 1);
    let refused = server.send("PUT /v1/test/file", &[LIVE, &announced], b"").await;
    assert!(refused.status == 413 && refused.body.contains("max_snapshot_size"), "{refused:?}");
    let chunk = vec![b'a'; MAX_FILE + 1];
    let chunks = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n0\r\n\r\n"].concat();
    let refused = server.send("PUT /v1/test/file", &[LIVE, "Transfer-Encoding: chunked"], &chunks).await;
    assert!(refused.status == 413 && refused.body.contains("max_snapshot_size"), "{refused:?}");
}

#[tokio::test]
async fn sec_an_upload_whose_turn_is_taken_ends_without_its_body() {
    let server = server().await;
    let announced = format!("Content-Length: {MAX_FILE}");
    let refused = server.send("PUT /v1/test/file/slow", &[LIVE, &announced], b"the client is silent").await;
    assert!(refused.status == 503 && refused.body.contains("another snapshot is being uploaded"), "{refused:?}");
}

/// Where the kernel does not permit a file, the limits of memory apply.
#[tokio::test]
async fn sec_a_caller_without_a_live_token_fills_no_file() {
    let server = server().await;
    let body = vec![b'a'; 400_000];
    for headers in [&[][..], &["X-Vault-Token: dead"]] {
        let refused = server.send("PUT /v1/test/file", headers, &body).await;
        assert!(!refused.body.contains("max_snapshot_size") && refused.body.len() < 1000, "{refused:?}");
    }
}
