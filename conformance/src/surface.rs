//! The coverage of OpenBao's API: every path and operation of its OpenAPI document is tried on Keepfast. Missing
//! operations are listed in `surface-missing.txt`, a list that may only shrink.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::{Client, Request};
use crate::servers::{Make, Server, Storage};

/// Operations that end the server or the session are tried last.
const FATAL: [&str; 4] = ["sys/seal", "sys/step-down", "sys/unseal", "sys/init"];

/// Compares with the list, or writes it with `write`. Returns whether nothing else is missing.
pub fn run(write: bool) -> Result<bool> {
    let openbao = open(Make::OpenBao)?;
    let engines = engines(&openbao)?;
    let refused = mount(&openbao, &engines)?;
    if !refused.is_empty() {
        bail!("OpenBao does not mount {}: its API would not be complete", refused.join(", "));
    }
    let mut operations = operations(&openbao)?;
    operations.sort_by_key(|(path, method)| {
        (FATAL.iter().any(|fatal| path.starts_with(fatal)), path.clone(), method.clone())
    });
    let ours = open(Make::Keepfast)?;
    // An engine that Keepfast does not have is not mounted, so that all its paths are missing.
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
        println!("surface-missing.txt: {line} exists now: remove it (surface --write)");
    }
    let here = operations.len() - missing.len();
    println!("Keepfast has {here} of the {} operations that OpenBao documents with all its engines", operations.len());
    println!("{here} passed, {} failed", missing.difference(&listed).count());
    Ok(missing.is_subset(&listed) && here > 0)
}

/// Writes Keepfast's OpenAPI document, with an engine of each type mounted, to `target/openapi.json`.
pub fn write_document() -> Result<bool> {
    let ours = Server::start_unsealed(Make::Keepfast, Storage::Memory)?;
    mount(&ours, &engines(&ours)?)?;
    let response = ours.client()?.call(Some(&ours.root), "GET", "sys/internal/specs/openapi", None)?;
    let document = response.json().context("no OpenAPI document")?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openapi.json");
    std::fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    println!("{} paths in target/openapi.json", document["paths"].as_object().map_or(0, serde_json::Map::len));
    Ok(true)
}

/// A server with every optional access of a listener, and with the storage that has its own paths.
fn open(make: Make) -> Result<Server> {
    let mut server = Server::start_open(make, Storage::Durable)?;
    server.init()?;
    Ok(server)
}

/// The engines in a server's catalog except KV: side, and type, which is also the mount path.
fn engines(server: &Server) -> Result<Vec<(&'static str, String)>> {
    let response = server.client()?.call(Some(&server.root), "GET", "sys/plugins/catalog", None)?;
    let catalog = response.json().context("no catalog")?;
    let mut found = Vec::new();
    for (kind, side) in [("auth", "auth"), ("secret", "mounts")] {
        let names = catalog["data"][kind].as_array().context("no engines in the catalog")?;
        let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "kv");
        found.extend(names.map(|name| (side, name.to_owned())));
    }
    // The catalog contains only its database plugins.
    found.push(("mounts", "database".to_owned()));
    Ok(found)
}

/// Mounts these engines and KV; returns the engines that the server refuses.
fn mount(server: &Server, engines: &[(&str, String)]) -> Result<Vec<String>> {
    let mut client = server.client()?;
    let mut refused = Vec::new();
    let mut mount = |side: &str, path: &str, body: Value| -> Result<()> {
        let response = client.call(Some(&server.root), "POST", &format!("sys/{side}/{path}"), Some(&body))?;
        if response.status >= 300 {
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

/// The paths of OpenBao with values for the placeholders, each with its methods.
fn operations(openbao: &Server) -> Result<Vec<(String, String)>> {
    let response = openbao.client()?.call(Some(&openbao.root), "GET", "sys/internal/specs/openapi", None)?;
    let document = response.json().context("no OpenAPI document")?;
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

/// Whether Keepfast has the path and the operation. Each is tried with a new root token, since some revoke it.
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
    let response = ask(&mut client, &filled(path), method, &token)?;
    let text = String::from_utf8_lossy(&response.body).into_owned();
    let unknown =
        ["unsupported path", "unsupported operation", "no handler for route"].iter().any(|mark| text.contains(mark));
    let no_such_method = response.status == 405 && text.trim() == "{\"errors\":[]}";
    Ok(!unknown && !no_such_method)
}

fn ask(client: &mut Client, path: &str, method: &str, token: &str) -> Result<crate::http::Response> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let headers = vec![("X-Vault-Token".to_owned(), token.to_owned()), ("Content-Type".to_owned(), kind.to_owned())];
    let body = matches!(method, "POST" | "PATCH").then(|| b"{}".to_vec());
    client.send(&Request { method: method.to_owned(), path: format!("/v1/{path}"), headers, body })
}

/// A path with a value for each placeholder.
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
            "method_id" => "11111111-2222-3333-4444-555555555555",
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
    fn placeholders_get_values() {
        assert_eq!(filled("sys/mounts/{path}/tune"), "sys/mounts/placeholder/tune");
        assert_eq!(filled("a/b"), "a/b");
    }
}
