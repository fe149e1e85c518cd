//! Only the operator decides which local files the settings of database connections may name.

use serde_json::json;

use crate::tests::fixture::{ROOT, TestServer};

async fn refusal(allowed: bool) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let change = |settings: &mut crate::Settings, _: &std::path::Path| {
        settings.database_file_directories.extend(allowed.then(|| path.clone()));
    };
    let server = TestServer::with(change, keepfast_engines::all()).await;
    server.post("sys/mounts/db", ROOT, json!({ "type": "database" })).await.ok();
    let url = format!("host=127.0.0.1 port=1 sslmode=require sslrootcert={}/ca.pem", path.display());
    let settings = json!({ "plugin_name": "postgresql-database-plugin", "connection_url": url });
    server.post("db/config/pg", ROOT, settings).await.is(400).error().to_owned()
}

#[tokio::test]
async fn sec_kf05_files_of_connections_need_a_directory_of_the_configuration() {
    assert!(refusal(false).await.contains("names a local file outside of database_file_directories"));
    assert!(refusal(true).await.contains("the file of sslrootcert cannot be used"));
}
