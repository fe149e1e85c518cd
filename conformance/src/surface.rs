//! How much of the peer's surface we have: every path and operation of its own OpenAPI document is tried on our server. What we do not have
//! stands in `surface-missing.txt`, a list that may only shrink.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::{Client, Request};
use crate::servers::{Make, Server, Storage};

/// Operations that end the server or the session are tried last.
const FATAL: [&str; 4] = ["sys/seal", "sys/step-down", "sys/unseal", "sys/init"];

/// Compares with the list; with `write`, writes it anew. Whether nothing is missing beyond it.
pub fn run(write: bool) -> Result<bool> {
    let peer = open(Make::Peer)?;
    let engines = engines(&peer)?;
    let refused = mount(&peer, &engines)?;
    if !refused.is_empty() {
        bail!("the peer does not mount {}: its surface would not be whole", refused.join(", "));
    }
    let mut operations = operations(&peer)?;
    operations.sort_by_key(|(path, method)| {
        (FATAL.iter().any(|fatal| path.starts_with(fatal)), path.clone(), method.clone())
    });
    let ours = open(Make::Keepfast)?;
    // What our server does not have stays unmounted, so that all its paths are missing.
    mount(&ours, &engines)?;
    let mut missing = BTreeSet::new();
    for (path, method) in &operations {
        if !has(&ours, path, method)? {
            missing.insert(format!("{method} {path}"));
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("surface-missing.txt");
    if write {
        std::fs::write(&file, missing.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    }
    let listed = std::fs::read_to_string(&file).unwrap_or_default();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    for line in missing.difference(&listed) {
        println!("FAIL surface: {line} is missing and not in surface-missing.txt");
    }
    for line in listed.difference(&missing) {
        println!("surface-missing.txt: {line} is there now: take it out (surface --write)");
    }
    let here = operations.len() - missing.len();
    println!("we have {here} of the {} operations that the peer documents with all its engines", operations.len());
    println!("{here} passed, {} failed", missing.difference(&listed).count());
    Ok(missing.is_subset(&listed) && here > 0)
}

/// Writes our own OpenAPI document, with an engine of each kind mounted, to `target/openapi.json`.
pub fn write_document() -> Result<bool> {
    let ours = Server::start_unsealed(Make::Keepfast, Storage::Memory)?;
    mount(&ours, &engines(&ours)?)?;
    let answer = ours.client()?.call(Some(&ours.root), "GET", "sys/internal/specs/openapi", None)?;
    let document = answer.json().context("no OpenAPI document")?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openapi.json");
    std::fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    println!("{} paths in target/openapi.json", document["paths"].as_object().map_or(0, serde_json::Map::len));
    Ok(true)
}

/// With everything let in that a listener can let in, and with the storage that has paths of its own.
fn open(make: Make) -> Result<Server> {
    let mut server = Server::start_open(make, Storage::Durable)?;
    server.init()?;
    Ok(server)
}

/// Every engine that a server has beyond KV, by its catalog: side, and type, which becomes the path too.
fn engines(server: &Server) -> Result<Vec<(&'static str, String)>> {
    let answer = server.client()?.call(Some(&server.root), "GET", "sys/plugins/catalog", None)?;
    let catalog = answer.json().context("no catalog")?;
    let mut found = Vec::new();
    for (kind, side) in [("auth", "auth"), ("secret", "mounts")] {
        let names = catalog["data"][kind].as_array().context("no engines in the catalog")?;
        let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "kv");
        found.extend(names.map(|name| (side, name.to_owned())));
    }
    // It is in no catalog, as its kinds of databases are.
    found.push(("mounts", "database".to_owned()));
    Ok(found)
}

/// Mounts these engines and KV; those that the server refuses, by side and type.
fn mount(server: &Server, engines: &[(&str, String)]) -> Result<Vec<String>> {
    let mut client = server.client()?;
    let mut refused = Vec::new();
    let mut mount = |side: &str, path: &str, body: Value| -> Result<()> {
        let answer = client.call(Some(&server.root), "POST", &format!("sys/{side}/{path}"), Some(&body))?;
        if answer.status >= 300 {
            refused.push(format!("{side}/{path}"));
        }
        Ok(())
    };
    for (side, name) in engines {
        mount(side, name, json!({ "type": name }))?;
    }
    mount("mounts", "kv", json!({ "type": "kv" }))?;
    mount("mounts", "secret", json!({ "type": "kv", "options": { "version": "2" } }))?;
    Ok(refused)
}

/// The peer's paths with its placeholders filled, each with its methods.
fn operations(peer: &Server) -> Result<Vec<(String, String)>> {
    let answer = peer.client()?.call(Some(&peer.root), "GET", "sys/internal/specs/openapi", None)?;
    let document = answer.json().context("no OpenAPI document")?;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("no operations")? {
            let lists = || {
                operation["parameters"]
                    .as_array()
                    .is_some_and(|p| p.iter().any(|p| p["name"] == "list" && p["required"] == true))
            };
            let method = match method.as_str() {
                "get" if lists() => "LIST",
                "get" => "GET",
                "post" => "POST",
                "delete" => "DELETE",
                "patch" => "PATCH",
                _ => continue,
            };
            operations.push((path.trim_start_matches('/').to_owned(), method.to_owned()));
        }
    }
    Ok(operations)
}

/// Whether our server knows the path and the operation. Each is asked with a root token of its own, since some end it.
fn has(server: &Server, path: &str, method: &str) -> Result<bool> {
    let mut client = server.client()?;
    let made = client.call(
        Some(&server.root),
        "POST",
        "auth/token/create",
        Some(&json!({"policies": ["root"], "no_parent": true})),
    )?;
    let token = made
        .json()
        .and_then(|b| b["auth"]["client_token"].as_str().map(str::to_owned))
        .unwrap_or_else(|| server.root.clone());
    let answer = ask(&mut client, &filled(path), method, &token)?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let unknown =
        ["unsupported path", "unsupported operation", "no handler for route"].iter().any(|mark| text.contains(mark));
    let no_such_method = answer.status == 405 && text.trim() == "{\"errors\":[]}";
    Ok(!unknown && !no_such_method)
}

fn ask(client: &mut Client, path: &str, method: &str, token: &str) -> Result<crate::http::Answer> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let headers = vec![("X-Vault-Token".to_owned(), token.to_owned()), ("Content-Type".to_owned(), kind.to_owned())];
    let body = matches!(method, "POST" | "PATCH").then(|| b"{}".to_vec());
    client.send(&Request { method: method.to_owned(), path: format!("/v1/{path}"), headers, body })
}

/// A path with a word for each placeholder.
fn filled(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
        out.push_str(match name {
            "urlalgorithm" | "hash_algorithm" | "algorithm" => "sha2-256",
            "urlbytes" | "bytes" => "16",
            "source" => "platform",
            "plaintext" => "plaintext",
            "type" => "encryption-key",
            "version" => "1",
            _ => "placeholder",
        });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(filled("sys/mounts/{path}/tune"), "sys/mounts/placeholder/tune");
        assert_eq!(filled("a/b"), "a/b");
    }
}
