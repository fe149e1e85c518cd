//! The fuzzed functions and the properties that hold for every input. Each function takes any bytes and panics when a property is broken; cargo-fuzz and
//! the short form on stable Rust run the same functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken property is a panic")]

mod certificates;
mod cluster;
mod connection;
mod languages;

pub use certificates::certificate;
pub use cluster::{call, frames, log_segment};
pub use connection::connection_url;
pub use languages::{denied_parameter, keys_filter, password_policy, schedule, statement, template};

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use keepfast_consensus::{Body as MessageBody, Message, Payload};
use keepfast_core::for_tests::{CompiledPolicy, check_token};
use keepfast_crypto::shamir;
use keepfast_framework::input::Body;
use keepfast_framework::path::{CanonicalPath, Operation};
use keepfast_json::{Kind, Tokens, decoded_len};
use keepfast_storage::{Backend, Barrier, Batch, Key, MemoryBackend, Page, RootKey, Write};
use tokio::runtime::Runtime;

/// A target's name, its function, and valid inputs from which the short form begins.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

/// Every target.
pub const TARGETS: [Target; 21] = [
    ("json", json, BODIES),
    ("hcl", hcl, HCL),
    ("policy", policy, HCL),
    ("path", path, PATHS),
    ("body", body, BODIES),
    ("barrier", barrier, &["KF", "\u{1}\0\0\0\u{1}nonce of 12 bytes and more ciphertext than that"]),
    ("share", share, &["0123456789abcdef0123456789abcdef\u{1}0123456789abcdef0123456789abcdef\u{2}"]),
    (
        "token",
        token,
        &["hvs.AAAAAAAAAAAAAAAAAAAAAAAA", "hvb.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "s.abc", ""],
    ),
    ("batch", batch, &["\u{1}\0\0\0"]),
    ("message", message, MESSAGES),
    ("frames", frames, FRAMES),
    ("call", call, CALLS),
    ("log_segment", log_segment, LOG_SEGMENTS),
    ("statement", statement, STATEMENTS),
    ("template", template, TEMPLATES),
    ("keys_filter", keys_filter, KEYS_FILTERS),
    ("connection_url", connection_url, CONNECTION_URLS),
    ("schedule", schedule, SCHEDULES),
    ("password_policy", password_policy, PASSWORD_POLICIES),
    ("denied_parameter", denied_parameter, DENIED_PARAMETERS),
    ("certificate", certificate, certificates::CERTIFICATES),
];

const HCL: &[&str] = &[
    "path \"secret/*\" { capabilities = [\"read\", \"list\"] }\n# a comment\npath \"a/+/b\" { policy = \"write\" }",
    "path \"a\" { capabilities = [\"create\"] allowed_parameters = { \"x\" = [\"1\", \"b*\"], \"*\" = [] } required_parameters = [\"x\"] }",
    "path \"u/{{identity.entity.id}}/*\" { capabilities = [\"deny\"] min_wrapping_ttl = \"1s\" max_wrapping_ttl = \"1h30m\" }",
    "{\"path\": {\"a/*\": {\"capabilities\": [\"read\"]}, \"b\": {\"policy\": \"deny\"}}}",
    "listener \"tcp\" {\n address = \"127.0.0.1:8200\"\n tls_disable = true\n}\nstorage \"raft\" { path = \"/x\" }\na = <<EOF\ntext\nEOF\n",
];
const PATHS: &[&str] =
    &["secret/data/app", "sys/mounts/a/b/", "auth/token/create", "a/../b", "a//b", "ä/€/\u{1}", "/", ""];
const BODIES: &[&str] = &[
    r#"{"data":{"a":[1,2.5,null,true],"b":{"c":"\u00e4\ud83d\ude00"}},"options":{"cas":0}}"#,
    r#"{"ttl":"1h","ttl":2}"#,
    "null",
    "  ",
    "[]",
];
/// A heartbeat, an append with two entries, and the head of a snapshot.
const MESSAGES: &[&str] = &[
    "\u{1}\u{7}\u{1}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0\u{3}\0\0\0\0\0\0\0\u{9}\0\0\0\0\0\0\0\0",
    "\u{1}\u{1}\u{1}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0\u{3}\0\0\0\0\0\0\0\u{9}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0\u{9}\0\0\0\0\0\0\0\u{2}\0\0\0\u{3}\0\0\0\0\0\0\0\0\0\0\0\u{3}\0\0\0\0\0\0\0\u{2}\0\0\0\u{1}x",
    "\u{1}\u{a}\u{1}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0\u{3}\0\0\0\0\0\0\0\u{9}\0\0\0\0\0\0\0\u{2}\0\0\0\0\0\0\0\u{1}\0\0\0\u{1}\0\0\0\0\0\0\0\u{1}\0n0123456789abcdef\0\0\0\0\u{1}\0\u{58}\u{2}\0\0\0\0",
];
/// Two frames, the first bytes of the node that dials, and of the one that accepts.
const FRAMES: &[&str] =
    &["\u{1}\0\0\0\0\u{6}\0\0\0\u{1}hello", "KFP1\u{1}0123456789abcdef\u{7}\0\0\0\0\0\0\0", "KFP1\0\u{10}\0\0"];
/// Two requests, a response, an error, and a coming root key.
const CALLS: &[&str] = &[
    "\u{1}\u{2}\0\0\0id\u{1}\0\u{8}\0\0\0secret/a\0\0\0\0\0\u{1}\u{1}\0\0\0t\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    "\u{1}\u{2}\0\0\0id\u{3}\u{1}\u{1}\0\0\0a\u{2}\0\0\0ns\u{9}\0\u{1}\u{3c}\0\0\0\0\0\0\0\u{7}\0\0\0\u{1}\u{4}\u{7f}\0\0\u{1}\0\u{50}\0\u{1}\0\0\0\u{1}\0\0\0h\u{1}\u{1}\0\0\0\u{1}\0\0\0v\u{1}\0\0\0\u{1}\0\0\0q\u{2}\0\0\0\u{1}\0\0\0a\u{1}\0\0\0b\u{7}\0\0\0{\"a\":1}",
    "\u{48}\0\0\0\u{9}\0\0\0\0\0\0\0\u{4}\0\0\0jsonbody",
    "\u{4}\u{9}\0\0\0\0\0\0\0\u{8}\0\0\0\0\0\0\0",
    "0123456789abcdef0123456789abcdefroot6789abcdef0123456789abcdefghseal",
];
/// A log with two segments, a replaced entry, and a cut frame.
const LOG_SEGMENTS: &[&str] = &[
    "s\u{2}\u{1}\u{1}\u{1}\u{1}f\u{2}\u{1}\u{1}\u{1}\u{2}\u{1}\u{2}\u{2}a\u{1}\u{2}\u{2}bf\u{3}\u{1}\u{2}\u{1}\u{1}\u{2}\u{2}\u{2}c",
    "s\u{2}\u{1}\u{1}\u{1}\u{1}f\u{2}\u{1}\u{1}\u{1}\u{1}\u{1}\u{2}\u{2}a|t\u{3}\u{1}\u{2}\u{1}\u{1}f\u{3}\u{2}\u{1}\u{1}\u{1}\u{2}\u{2}\u{2}bc\u{4}\u{2}\u{1}\u{1}\u{1}\u{2}\u{2}\u{2}c\u{3d}",
];

const STATEMENTS: &[&str] = &[
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '2030-01-01';\n' OR 1=1 --",
    "DO $body$ BEGIN EXECUTE format($f$GRANT x TO \"{{name}}\"$f$); END $body$; -- {{name}}\n$body$",
    "SELECT E'\\'{{name}}', '{{name}}' /* {{name}} */, `{{name}}` # {{name}}\n*/ \"x\\",
    "[\"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'\", \"GRANT SELECT ON *.* TO {{name}}\"]\n`a`",
    "$$ $a$ $b$ {{ name }} $b$ $a$ $$ {{name}} {{{{ }}\n$a$",
];
const TEMPLATES: &[&str] = &[
    "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}\ntoken-app",
    "{{ (.RoleName | replace \"-\" \"_\") | uppercase | truncate_sha256 12 }}{{uuid}}\nv-x",
    "{{- printf \"%s-%d%%\" (lowercase .DisplayName) 7 -}}{{/* c */}}{{timestamp \"2006-01-02\"}}\nv",
    "{{`a` | base64 | sha256}}{{(((random 5)))}}\nä€",
];
const KEYS_FILTERS: &[&str] = &[
    "{{ .path }}{{ .key }}\napp/",
    "secret/data/{{ .path | replace \"metadata\" \"data\" | lowercase }}{{ .key | uppercase }}\nä€",
    "{{.key | replace \"a\" \"aaaaaaaa\" | replace \"\" \"b\"}}\naaaa",
];
const CONNECTION_URLS: &[&str] = &[
    "postgresql://{{username}}:{{password}}@db.example:5432,[::1]:5433/orders?sslmode=verify-full&connect_timeout=5",
    "host=db.example port=5432 user='a b' password='it\\'s' dbname=orders sslmode=require options='-c x=y'",
    "{{username}}:{{password}}@tcp(db.example:3306)/orders?tls=true&charset=utf8mb4&time_zone=%27UTC%27",
    "redis://{{username}}:{{password}}@db.example:6379/0?db=1&protocol=3",
    "p@ss/w?rd#&%41",
];
const SCHEDULES: &[&str] = &[
    "*/15 0-6,12 1,15 jan-jun mon-fri\n1795435347",
    "0 0 29 2 *\n4102444799",
    "59 23 31 12 7\n-62135596800",
    "@weekly\n9223372036",
    "5/10 ? * * ?\n0",
];
const PASSWORD_POLICIES: &[&str] = &[
    "length = 20\nrule \"charset\" { charset = \"abcdefghij\" min-chars = 1 }\nrule \"charset\" { charset = \"0123456789\" min-chars = 1 }",
    "{\"length\": 8, \"rule\": [{\"charset\": {\"charset\": \"abcä€\", \"min-chars\": 8}}]}",
    "length = 100\nrule \"charset\" { charset = \"a\" min-chars = 99 }\nrule \"charset\" { charset = \"b\" }\n",
];
const DENIED_PARAMETERS: &[&str] = &[
    "adm\n[\"ADM\", \"x,adm\"]\nltolt",
    "16\n{\"k\": \"0x10\"}\ntttttttttttttttttttttttt",
    "{\"a\": \"1m\"}\n[\"a=60s\", {\"b\": [null, true]}]\n",
    "10.0.0.0/8\n[[[[[[\"10.0.0.1/8\"]]]]]]\nllllllllotttttt",
    "a=b=c\n{\"a\": {\"b\": \"c\"}}\nott",
];

/// HCL and its JSON form: never a panic; formatted text parses, and formatting it again changes nothing.
pub fn hcl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = keepfast_hcl::parse(text) {
        assert!(!error.to_string().is_empty());
        return;
    }
    if let Ok(once) = keepfast_hcl::format(text) {
        let twice = keepfast_hcl::format(&once).expect("what was formatted is valid");
        assert_eq!(once, twice, "formatting is idempotent");
    }
}

/// JSON tokens: they cover all of a text but blanks; of valid JSON they make what a parser reads.
pub fn json(data: &[u8]) {
    let mut behind = 0;
    let (mut tokens, mut strings, mut decoded) = (Tokens::new(data), 0, 0);
    while let Some(token) = tokens.next() {
        assert!(data[behind..token.start].iter().all(|byte| b" \t\r\n".contains(byte)), "only blanks are left out");
        assert_eq!((token.text, token.end()), (&data[token.start..token.end()], tokens.end()));
        behind = token.end();
        if let Kind::String { escaped } = token.kind {
            assert_eq!(escaped, token.text.contains(&b'\\'));
            strings += 1;
            decoded += decoded_len(token.inside());
        }
    }
    assert!(data[behind..].iter().all(|byte| b" \t\r\n".contains(byte)), "only blanks are left out");
    if serde_json::from_slice::<serde_json::Value>(data).is_err() {
        return;
    }
    assert_eq!(tokens.depth(), 0, "what is opened is closed");
    assert_eq!(Tokens::new(data).skip_value(), data.trim_ascii(), "one value");
    if let Ok(text) = serde_json::from_slice::<String>(data) {
        assert_eq!((strings, decoded), (1, text.len()));
    }
}

/// Policies: never a panic; an accepted policy compiles and decides on any path, and grants only paths that it names.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(policy) = CompiledPolicy::parse(text) else { return };
    for path in text.split(['"', ' ']).chain(["secret/a", "sys/seal", ""]) {
        let Ok(path) = CanonicalPath::new(path.to_owned()) else { continue };
        for operation in [Operation::Read, Operation::Update, Operation::Delete, Operation::List] {
            let decided = policy.decide(&path, operation);
            assert!(!decided.root, "no text makes root");
            assert!(policy.has_rules() || !decided.allowed, "no rule, no grant");
            assert_eq!(policy.decide_by_reference(&path, operation), decided, "the reference decides the same");
        }
    }
}

/// Canonical paths: an accepted path has no empty, relative or control parts and is accepted again unchanged.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = CanonicalPath::new(text.to_owned()) else { return };
    assert_eq!(path.as_str(), text, "nothing is cleaned");
    assert!(!text.contains("//") && !text.chars().any(char::is_control));
    assert!(text.split('/').all(|segment| segment != "." && segment != ".."));
    let folder = path.as_folder();
    assert!(CanonicalPath::new(folder.as_str().to_owned()).is_ok() || folder.as_str() == "/");
}

/// JSON bodies: never a panic; the fields of an accepted body are valid JSON and their names are unique.
pub fn body(data: &[u8]) {
    let Ok(body) = Body::parse(Bytes::copy_from_slice(data)) else { return };
    let mut names = Vec::new();
    for (name, value) in body.fields() {
        assert!(body.field(name).is_some_and(|found| found == value));
        assert!(
            Body::parse(Bytes::from(format!("{{\"v\":{value}}}"))).is_ok(),
            "a part of what is accepted is accepted"
        );
        names.push(name);
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(all, names.len(), "no name stands twice");
}

/// Stored values: whatever a backend returns, reading it is an error or nothing, never a panic and never plaintext.
pub fn barrier(data: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    RUNTIME.block_on(async {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let root = RootKey::new([7; 32]);
        Barrier::create(backend.clone(), &root, Bytes::from_static(b"seal"), 0).await.expect("a new storage");
        let barrier = Barrier::open(backend.clone(), &root).await.expect("it opens");
        let view = barrier.view("logical/x/");
        let mut tx = barrier.begin();
        tx.put(&view, "good", Bytes::from_static(b"value"));
        tx.commit().await.expect("written");
        let key = Key::new("logical/x/bad").expect("a key");
        let spoilt = Write::Put { key, value: Bytes::copy_from_slice(data) };
        backend.commit(Batch { reads: Vec::new(), writes: vec![spoilt] }).await.expect("written");
        let mut tx = barrier.begin_read();
        assert!(tx.get(&view, "bad").await.is_err(), "nobody can make a value that opens");
        assert_eq!(tx.get(&view, "good").await.expect("it opens").as_deref(), Some(&b"value"[..]));
        let names = tx.list(&view, "", &Page::all()).await.expect("names");
        assert_eq!(names, ["bad", "good"]);
    });
}

/// Shares: any bytes are combined or refused; real shares give the secret back in any order.
pub fn share(data: &[u8]) {
    let size = usize::from(data.first().copied().unwrap_or(2)).max(1);
    let pieces: Vec<&[u8]> = data.chunks(size).collect();
    let _ = shamir::combine(&pieces);
    let (Some(secret), [shares, threshold, ..]) = (data.get(2..data.len().min(34)), data) else { return };
    let threshold = threshold % 6;
    let Ok(parts) = shamir::split(secret, shares % 8, threshold) else { return };
    let mut chosen: Vec<&[u8]> = parts.iter().map(|part| part.expose().as_slice()).collect();
    chosen.reverse();
    chosen.truncate(usize::from(threshold));
    if let Ok(combined) = shamir::combine(&chosen) {
        assert_eq!(combined.expose().as_slice(), secret);
    } else {
        assert!(threshold < 2, "a threshold of real shares combines");
    }
}

/// Tokens: any text has a place and costs the same; no text that we did not seal opens as a batch token.
pub fn token(data: &[u8]) {
    check_token(&String::from_utf8_lossy(data));
    check_token(&format!("hvb.{}", URL_SAFE_NO_PAD.encode(data)));
}

/// Messages between nodes: any bytes are refused or a message that encodes to the same bytes, and so are its payloads.
pub fn message(data: &[u8]) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(message.encode(), data, "one message, one encoding");
    let MessageBody::Append { entries, .. } = &message.body else { return };
    for payload in entries.iter().map(|entry| &entry.payload) {
        if let Ok(decoded) = Payload::decode(payload) {
            assert_eq!(decoded.encode(), payload, "one payload, one encoding");
        }
    }
}

/// Log entries: any bytes are refused or a batch that encodes to the same bytes.
pub fn batch(data: &[u8]) {
    let Ok(batch) = Batch::decode(Bytes::copy_from_slice(data)) else { return };
    let mut again = Vec::new();
    batch.encode(&mut again);
    assert_eq!(again.len(), batch.encoded_len());
    assert_eq!(again, data, "one batch, one encoding");
}
