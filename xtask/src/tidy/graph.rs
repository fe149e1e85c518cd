//! Rules on dependencies, from `cargo metadata`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Findings, Repository};
use crate::shell::root;

/// The workspace crates that each crate may depend on.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("keepfast-consensus", &[]),
    ("keepfast-crypto", &[]),
    ("keepfast-go", &[]),
    ("keepfast-json", &[]),
    ("keepfast-hcl", &["keepfast-json"]),
    ("keepfast-outbound", &["keepfast-crypto"]),
    ("keepfast-client", &["keepfast-go", "keepfast-crypto", "keepfast-outbound"]),
    ("keepfast-storage", &["keepfast-consensus", "keepfast-crypto"]),
    ("keepfast-framework", &["keepfast-go", "keepfast-json", "keepfast-crypto", "keepfast-storage"]),
    ("keepfast-edge", &["keepfast-json", "keepfast-crypto", "keepfast-framework"]),
    ("keepfast-engines", &["keepfast-json", "keepfast-crypto", "keepfast-framework"]),
    (
        "keepfast-core",
        &["keepfast-json", "keepfast-crypto", "keepfast-hcl", "keepfast-pgp", "keepfast-storage", "keepfast-framework"],
    ),
    ("keepfast-pgp", &["keepfast-crypto"]),
    ("keepfast-pkcs11", &[]),
    ("keepfast-seals", &["keepfast-crypto", "keepfast-framework", "keepfast-outbound"]),
    (
        "keepfast-server",
        &[
            "keepfast-crypto",
            "keepfast-hcl",
            "keepfast-storage",
            "keepfast-framework",
            "keepfast-edge",
            "keepfast-engines",
            "keepfast-core",
            "keepfast-outbound",
            "keepfast-pgp",
            "keepfast-seals",
        ],
    ),
    ("keepfast-cli", &["keepfast-json", "keepfast-crypto", "keepfast-hcl", "keepfast-client", "keepfast-server"]),
];

/// Foreign crates that only some crates may name in production code.
const RESERVED: [(&str, &[&str]); 7] = [
    ("aws-lc-rs", &["keepfast-crypto"]),
    ("cryptoki", &["keepfast-pkcs11"]),
    ("sha2", &["keepfast-crypto"]),
    ("hmac", &["keepfast-crypto"]),
    ("redb", &["keepfast-storage"]),
    ("raft", &["keepfast-consensus"]),
    ("hyper", &["keepfast-edge", "keepfast-outbound"]),
];

pub(super) fn direction(_: &Repository) -> Result<Findings> {
    let mut findings = Vec::new();
    for (package, dependency, kind) in edges()? {
        if kind == "dev" {
            continue;
        }
        let walls = ALLOWED.iter().find(|(name, _)| *name == package);
        if dependency.starts_with("keepfast-") && walls.is_some_and(|(_, may)| !may.contains(&dependency.as_str())) {
            findings.push(format!("{package} must not depend on {dependency}"));
        }
        if package.starts_with("keepfast-") && walls.is_none() {
            findings.push(format!("{package} has no place in the list of crates"));
        }
        let reserved = RESERVED.iter().find(|(name, _)| *name == dependency);
        if reserved.is_some_and(|(_, may)| !may.contains(&package.as_str())) {
            findings.push(format!("{package} must not name {dependency}"));
        }
    }
    Ok(findings)
}

/// `deny.toml` has a reason for each direct dependency.
pub(super) fn reasons(repository: &Repository) -> Result<Findings> {
    let deny = &repository.file("deny.toml").context("no deny.toml")?.text;
    let given: Vec<&str> = deny
        .lines()
        .filter_map(|line| line.strip_prefix("# direct: ")?.split_once(": "))
        .filter(|(_, why)| why.trim().len() > 8)
        .map(|(name, _)| name)
        .collect();
    let mut used: Vec<String> = edges()?.into_iter().map(|(_, dependency, _)| dependency).collect();
    used.retain(|name| !name.starts_with("keepfast-") && name != "conformance");
    used.sort();
    used.dedup();
    let without =
        used.iter().filter(|name| !given.contains(&name.as_str())).map(|name| format!("{name} has no reason"));
    let declared = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let listed = |name: &str| declared.lines().any(|line| line.split([' ', '=']).next() == Some(name));
    let gone = given.iter().filter(|name| !used.iter().any(|u| u == *name) && !listed(name));
    Ok(without.chain(gone.map(|name| format!("{name} is in deny.toml and nowhere else"))).collect())
}

/// Every dependency of a workspace package: both names, and `normal`, `dev` or `build`.
fn edges() -> Result<Vec<(String, String, String)>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
            edges.push((text(&package["name"]), text(&dependency["name"]), text(&dependency["kind"])));
        }
    }
    Ok(edges)
}
