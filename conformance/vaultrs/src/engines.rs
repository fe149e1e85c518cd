//! KV of both versions, transit, and database credentials.

use std::collections::HashMap;

use vaultrs::api::database::requests::{PostgreSQLConnectionRequest, SetRoleRequest};
use vaultrs::api::kv2::requests::SetSecretRequestOptions;
use vaultrs::api::sys::requests::EnableEngineRequest;
use vaultrs::{database, kv1, kv2, sys, transit};

use crate::{Bench, Outcome, hold, response};

type Pairs = HashMap<String, String>;

pub async fn run(bench: &mut Bench, postgres: Option<&str>) {
    let outcome = first(bench).await;
    bench.count("kv version 1", outcome);
    let outcome = second(bench).await;
    bench.count("kv version 2", outcome);
    let outcome = transit(bench).await;
    bench.count("transit", outcome);
    match postgres {
        Some(url) => {
            let outcome = credentials(bench, url).await;
            bench.count("database credentials", outcome);
        }
        None => println!("database credentials are skipped: no PostgreSQL"),
    }
}

async fn first(bench: &Bench) -> Outcome {
    let root = &bench.root;
    response(sys::mount::enable(root, "rs-kv1", "kv", None)).await?;
    response(kv1::set(root, "rs-kv1", "app/db", &HashMap::from([("user", "u"), ("password", "p w ü")]))).await?;
    let read: Pairs = response(kv1::get(root, "rs-kv1", "app/db")).await?;
    hold(read.get("password").is_some_and(|p| p == "p w ü"), "what was written")?;
    hold(response(kv1::get_raw(root, "rs-kv1", "app/db")).await?.lease_duration > 0, "the time to read again")?;
    hold(response(kv1::list(root, "rs-kv1", "app")).await?.data.keys == ["db"], "the list")?;
    response(kv1::delete(root, "rs-kv1", "app/db")).await?;
    hold(kv1::get::<Pairs>(root, "rs-kv1", "app/db").await.is_err(), "what was deleted")?;
    response(sys::mount::disable(root, "rs-kv1")).await
}

async fn second(bench: &Bench) -> Outcome {
    let root = &bench.root;
    let mut wanted = EnableEngineRequest::builder();
    wanted.options(HashMap::from([("version".to_owned(), "2".to_owned())]));
    response(sys::mount::enable(root, "rs-kv2", "kv", Some(&mut wanted))).await?;
    for n in ["1", "2"] {
        response(kv2::set(root, "rs-kv2", "app/db", &HashMap::from([("n", n)]))).await?;
    }
    let read: Pairs = response(kv2::read(root, "rs-kv2", "app/db")).await?;
    let before: Pairs = response(kv2::read_version(root, "rs-kv2", "app/db", 1)).await?;
    hold(read["n"] == "2" && before["n"] == "1", "both versions")?;
    let stale = HashMap::from([("n", "3")]);
    let refused = kv2::set_with_options(root, "rs-kv2", "app/db", &stale, SetSecretRequestOptions { cas: 1 }).await;
    hold(refused.is_err(), "a write over another's is refused")?;
    let current = SetSecretRequestOptions { cas: 2 };
    hold(
        response(kv2::set_with_options(root, "rs-kv2", "app/db", &stale, current)).await?.version == 3,
        "a checked write",
    )?;
    response(kv2::delete_versions(root, "rs-kv2", "app/db", vec![2])).await?;
    response(kv2::undelete_versions(root, "rs-kv2", "app/db", vec![2])).await?;
    response(kv2::destroy_versions(root, "rs-kv2", "app/db", vec![1])).await?;
    let metadata = response(kv2::read_metadata(root, "rs-kv2", "app/db")).await?;
    hold(metadata.current_version == 3 && metadata.versions["1"].destroyed, "the metadata")?;
    response(kv2::set_metadata(root, "rs-kv2", "app/db", None)).await?;
    hold(response(kv2::list(root, "rs-kv2", "app")).await? == ["db"], "the list")?;
    response(kv2::config::set(root, "rs-kv2", None)).await?;
    response(kv2::config::read(root, "rs-kv2")).await?;
    response(kv2::delete_latest(root, "rs-kv2", "app/db")).await?;
    hold(kv2::read::<Pairs>(root, "rs-kv2", "app/db").await.is_err(), "what was deleted")?;
    response(kv2::delete_metadata(root, "rs-kv2", "app/db")).await?;
    response(sys::mount::disable(root, "rs-kv2")).await
}

async fn transit(bench: &Bench) -> Outcome {
    let root = &bench.root;
    response(sys::mount::enable(root, "rs-transit", "transit", None)).await?;
    response(transit::key::create(root, "rs-transit", "k", None)).await?;
    response(transit::key::read(root, "rs-transit", "k")).await?;
    hold(response(transit::key::list(root, "rs-transit")).await?.keys == ["k"], "the list of keys")?;
    let sealed = response(transit::data::encrypt(root, "rs-transit", "k", "aGVsbG8=", None)).await?.ciphertext;
    response(transit::key::rotate(root, "rs-transit", "k")).await?;
    let newer = response(transit::data::rewrap(root, "rs-transit", "k", &sealed, None)).await?.ciphertext;
    hold(sealed.starts_with("vault:v1:") && newer.starts_with("vault:v2:"), "the versions of ciphertexts")?;
    for text in [&sealed, &newer] {
        let opened = response(transit::data::decrypt(root, "rs-transit", "k", text, None)).await?;
        hold(opened.plaintext == "aGVsbG8=", "what was encrypted")?;
    }
    response(transit::generate::hmac(root, "rs-transit", "k", "aGVsbG8=", None)).await?;
    let hash = response(transit::generate::hash(root, "rs-transit", "aGVsbG8=", None)).await?.sum;
    hold(hash.len() == 64, "a hash")?;
    let mut wanted = vaultrs::api::transit::requests::CreateKeyRequest::builder();
    wanted.key_type(vaultrs::api::transit::KeyType::Ed25519);
    response(transit::key::create(root, "rs-transit", "s", Some(&mut wanted))).await?;
    let signature = response(transit::data::sign(root, "rs-transit", "s", "aGVsbG8=", None)).await?.signature;
    let mut shown = vaultrs::api::transit::requests::VerifySignedDataRequest::builder();
    shown.signature(signature);
    hold(
        response(transit::data::verify(root, "rs-transit", "s", "aGVsbG8=", Some(&mut shown))).await?.valid,
        "the signature",
    )?;
    response(sys::mount::disable(root, "rs-transit")).await
}

async fn credentials(bench: &Bench, url: &str) -> Outcome {
    let root = &bench.root;
    response(sys::mount::enable(root, "rs-db", "database", None)).await?;
    let mut wanted = PostgreSQLConnectionRequest::builder();
    wanted
        .plugin_name("postgresql-database-plugin")
        .allowed_roles(vec!["*".to_owned()])
        .connection_url(url)
        .username("vault_admin")
        .password("admin_password")
        .verify_connection(true);
    response(database::connection::postgres(root, "rs-db", "pg", Some(&mut wanted))).await?;
    response(database::connection::read(root, "rs-db", "pg")).await?;
    hold(response(database::connection::list(root, "rs-db")).await?.keys == ["pg"], "the list of connections")?;
    let statement = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let mut role = SetRoleRequest::builder();
    role.db_name("pg").creation_statements(vec![statement.to_owned()]).default_ttl("1h").max_ttl("2h");
    response(database::role::set(root, "rs-db", "app", Some(&mut role))).await?;
    hold(response(database::role::read(root, "rs-db", "app")).await?.db_name == "pg", "the role")?;
    let made = response(database::role::creds(root, "rs-db", "app")).await?;
    hold(!made.username.is_empty() && made.password.len() >= 20, "the credentials")?;
    response(database::connection::reset(root, "rs-db", "pg")).await?;
    response(database::role::delete(root, "rs-db", "app")).await?;
    response(sys::mount::disable(root, "rs-db")).await
}
