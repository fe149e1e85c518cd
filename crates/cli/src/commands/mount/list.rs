//! `secrets list`, `auth list`: lists the mounts.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use super::{ENGINES, Kind, METHODS};
use crate::args::{self, Command, Flag, FlagSet};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, sorted, with_header};
use crate::terminal;

pub(crate) const SECRETS: Command = Command {
    name: "list",
    usage: "",
    about: "List the mounted secrets engines.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT, DETAILED],
    run: |cx| run(cx, &ENGINES),
};

pub(crate) const AUTH: Command = Command {
    name: "list",
    usage: "",
    about: "List the mounted auth methods.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT, DETAILED],
    run: |cx| run(cx, &METHODS),
};

const DETAILED: FlagSet =
    FlagSet { title: "Command", flags: &[Flag::new("detailed", args::Kind::Bool, "Show settings and versions too.")] };

/// The fields in the order of Vault's command line, and the defaults of those that a server omits.
const FIELDS: &[&str] = &[
    "uuid",
    "type",
    "description",
    "accessor",
    "config",
    "options",
    "local",
    "seal_wrap",
    "external_entropy_access",
    "plugin_version",
    "running_plugin_version",
    "running_sha256",
    "deprecation_status",
];
const CONFIG_FIELDS: &[&str] = &[
    "default_lease_ttl",
    "max_lease_ttl",
    "force_no_cache",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "listing_visibility",
    "passthrough_request_headers",
    "allowed_response_headers",
    "token_type",
    "user_lockout_config",
];

fn run(cx: &Cx, kind: &Kind) -> Outcome {
    let request = Request { may_wrap: false, ..Request::new(Method::Get, kind.api) };
    let mounts = cx.session()?.require_map(&format!("Error listing {}", kind.nouns), request)?;
    let mounts = sorted(&Value::Object(mounts));
    let mounts = mounts.as_object().cloned().unwrap_or_default();
    if !cx.output.is_table() {
        let mounts = mounts.iter().filter_map(|(path, mount)| Some((path.clone(), ordered(mount.as_object()?))));
        cx.output.document(Value::Object(mounts.collect()));
        return Ok(0);
    }
    let is_auth = !kind.prefix.is_empty();
    let (header, rows) = if cx.words.on("detailed") { detailed(&mounts, is_auth) } else { brief(&mounts, is_auth) };
    terminal::line(&with_header(&header, &rows));
    Ok(0)
}

fn brief(mounts: &Map<String, Value>, is_auth: bool) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut header = vec!["Path", "Type", "Accessor", "Description"];
    header.extend(is_auth.then_some("Version"));
    let rows = mounts.iter().map(|(path, mount)| {
        let mut row = vec![path.clone(), text(mount, "type"), text(mount, "accessor"), text(mount, "description")];
        row.extend(is_auth.then(|| text(mount, "plugin_version")));
        row
    });
    (header, rows.collect())
}

fn detailed(mounts: &Map<String, Value>, is_auth: bool) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = vec![
        "Path",
        "Plugin",
        "Accessor",
        "Default TTL",
        "Max TTL",
        if is_auth { "Token Type" } else { "Force No Cache" },
        "Replication",
        "Seal Wrap",
        "External Entropy Access",
        "Options",
        "Description",
        "UUID",
        "Version",
        "Running Version",
        "Running SHA256",
        "Deprecation Status",
    ];
    let rows = mounts.iter().map(|(path, mount)| {
        let config = mount.get("config").cloned().unwrap_or_default();
        let has_leases =
            is_auth || !matches!(text(mount, "type").as_str(), "system" | "cubbyhole" | "ns_system" | "ns_cubbyhole");
        let time = |field: &str| match config.get(field).and_then(Value::as_i64).unwrap_or(0) {
            _ if !has_leases => String::new(),
            0 => "system".to_owned(),
            seconds => seconds.to_string(),
        };
        let local = mount.get("local").and_then(Value::as_bool).unwrap_or(false);
        let options = mount.get("options").filter(|options| !options.is_null()).map_or("map[]".to_owned(), plain);
        let mut row = vec![
            path.clone(),
            text(mount, "type"),
            text(mount, "accessor"),
            time("default_lease_ttl"),
            time("max_lease_ttl"),
        ];
        row.push(if is_auth { text(&config, "token_type") } else { text(&config, "force_no_cache") });
        row.push(if local { "local" } else { "replicated" }.to_owned());
        row.extend([text(mount, "seal_wrap"), text(mount, "external_entropy_access"), options]);
        row.extend(
            ["description", "uuid", "plugin_version", "running_plugin_version", "running_sha256", "deprecation_status"]
                .map(|field| text(mount, field)),
        );
        row
    });
    (header, rows.collect())
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).filter(|value| !value.is_null()).map(plain).unwrap_or_default()
}

/// A mount with ordered fields; texts that a server omits are empty.
fn ordered(mount: &Map<String, Value>) -> Value {
    let in_order = |map: &Map<String, Value>, fields: &[&str]| {
        let known = fields.iter().filter_map(|field| Some(((*field).to_owned(), map.get(*field)?.clone())));
        let others = map
            .iter()
            .filter(|(key, _)| !fields.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()));
        known.chain(others).collect::<Map<String, Value>>()
    };
    let mut mount = mount.clone();
    for field in ["plugin_version", "running_plugin_version", "running_sha256", "deprecation_status"] {
        mount.entry(field).or_insert_with(|| json!(""));
    }
    // Empty options are null, even when the server sends an empty object.
    if mount.get("options").and_then(Value::as_object).is_some_and(Map::is_empty) {
        mount.insert("options".to_owned(), Value::Null);
    }
    if let Some(config) = mount.get("config").and_then(Value::as_object) {
        let config = in_order(config, CONFIG_FIELDS);
        mount.insert("config".to_owned(), Value::Object(config));
    }
    Value::Object(in_order(&mount, FIELDS))
}
