//! The OpenAPI 3.0 document of mounted engines, from their tables (<https://spec.openapis.org/oas/v3.0.2>).

use serde_json::{Map, Value, json};

use crate::input::WHOLE_BODY;
use crate::path::{Operation, Pattern};
use crate::routes::{Access, Table};
use crate::rows::{OperationInfo, RowInfo};

/// A mount in the document.
pub struct MountTable<'a> {
    /// The path of the mount: `secret/`, `auth/approle/`.
    pub mount: &'a str,
    /// `secrets`, `auth` or `system`.
    pub tag: &'a str,
    /// The routing table.
    pub table: &'a Table,
}

/// Returns the document of these mounts.
pub fn document(version: &str, mounts: &[MountTable<'_>]) -> Value {
    let mut paths = Map::new();
    for shown in mounts {
        add_all(&mut paths, shown.mount, shown.tag, shown.table.rows());
    }
    whole(version, &paths)
}

/// Returns the document of some rows of a mount, with paths relative to the mount.
pub fn document_of<'a>(version: &str, rows: impl IntoIterator<Item = &'a RowInfo>) -> Value {
    let mut paths = Map::new();
    add_all(&mut paths, "", "secrets", rows);
    whole(version, &paths)
}

fn add_all<'a>(paths: &mut Map<String, Value>, mount: &str, tag: &str, rows: impl IntoIterator<Item = &'a RowInfo>) {
    for row in rows.into_iter().filter(|row| !row.hidden && !row.fallback) {
        for pattern in &row.patterns {
            add(paths, mount, tag, row, pattern);
        }
    }
}

fn whole(version: &str, paths: &Map<String, Value>) -> Value {
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Keepfast API",
            "description": "All paths begin with `/v1/`.",
            "version": version,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" }
        },
        "paths": paths,
        "components": { "schemas": {} }
    })
}

/// Adds a pattern. A list shares its path with the operations on the name without the final slash.
fn add(paths: &mut Map<String, Value>, mount: &str, tag: &str, row: &RowInfo, pattern: &Pattern) {
    let path = readable(mount, pattern);
    let entry = paths.entry(path).or_insert_with(|| {
        let mut entry = Map::from_iter([("description".to_owned(), Value::from(&*row.help.synopsis))]);
        let parameters: Vec<Value> = pattern.captures().map(|name| parameter(row, name)).collect();
        if !parameters.is_empty() {
            entry.insert("parameters".to_owned(), Value::from(parameters));
        }
        Value::Object(entry)
    });
    let Value::Object(entry) = entry else { return };
    match row.access {
        Access::Sudo => drop(entry.insert("x-vault-sudo".to_owned(), Value::from(true))),
        Access::Unauthenticated => drop(entry.insert("x-vault-unauthenticated".to_owned(), Value::from(true))),
        Access::Policy => {}
    }
    if row.has_existence_check {
        entry.insert("x-vault-createSupported".to_owned(), Value::from(true));
    }
    for operation in &row.operations {
        let method = method(operation.operation);
        if !entry.contains_key(method) {
            entry.insert(method.to_owned(), described(mount, tag, pattern, operation));
        }
    }
}

/// The path as the document spells it: `{name}` for every capture, without the slash of a list.
fn readable(mount: &str, pattern: &Pattern) -> String {
    let segments = pattern.source().trim_end_matches('/').split('/').filter(|s| !s.is_empty());
    let named = segments.map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        Some(capture) => {
            let name = capture.trim_end_matches("...").split('|').next().unwrap_or(capture);
            format!("{{{name}}}")
        }
        None => segment.to_owned(),
    });
    let path: Vec<String> = named.collect();
    format!("/{mount}{}", path.join("/")).trim_end_matches('/').to_owned()
}

fn method(operation: Operation) -> &'static str {
    match operation {
        Operation::Update => "post",
        Operation::Patch => "patch",
        Operation::Delete => "delete",
        Operation::Read | Operation::List | Operation::Scan | Operation::Help | Operation::Head => "get",
    }
}

fn parameter(row: &RowInfo, name: &str) -> Value {
    let described = row.operations.iter().find_map(|o| property(o, name)?.get("description").cloned());
    json!({
        "name": name, "in": "path", "required": true, "schema": { "type": "string" },
        "description": described.unwrap_or_else(|| Value::from(""))
    })
}

fn property(operation: &OperationInfo, name: &str) -> Option<Value> {
    operation.request().get("properties")?.get(name).cloned()
}

fn described(mount: &str, tag: &str, pattern: &Pattern, operation: &OperationInfo) -> Value {
    let words: Vec<String> = readable(mount, pattern)
        .split('/')
        .map(|s| s.trim_matches(['{', '}']).replace('_', "-"))
        .filter(|s| !s.is_empty())
        .collect();
    let mut out = Map::from_iter([
        ("operationId".to_owned(), Value::from(format!("{}-{}", words.join("-"), operation.operation.name()))),
        ("tags".to_owned(), json!([tag])),
    ]);
    match operation.operation {
        Operation::List | Operation::Scan => {
            let name = operation.operation.name();
            let schema = json!({ "type": "string", "enum": ["true"] });
            out.insert(
                "parameters".to_owned(),
                json!([{ "name": name, "in": "query", "required": true, "schema": schema }]),
            );
        }
        Operation::Update | Operation::Patch => {
            if let Some(schema) = body(pattern, operation) {
                let content = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
                out.insert("requestBody".to_owned(), content);
            }
        }
        Operation::Read | Operation::Delete | Operation::Help | Operation::Head => {}
    }
    let answer = match operation.reply() {
        Some(schema) => {
            json!({ "200": { "description": "OK", "content": { "application/json": { "schema": schema } } } })
        }
        None if operation.operation == Operation::Delete => json!({ "204": { "description": "empty body" } }),
        None => json!({ "200": { "description": "OK" } }),
    };
    out.insert("responses".to_owned(), answer);
    Value::Object(out)
}

/// The schema of the body: the parameters that are not captured from the path, or the body as a whole.
fn body(pattern: &Pattern, operation: &OperationInfo) -> Option<Value> {
    if operation.takes_whole_body() {
        return Some(property(operation, WHOLE_BODY).unwrap_or_else(|| json!({ "type": "object" })));
    }
    let request = operation.request();
    let all = request.get("properties")?.as_object()?;
    let own: Map<String, Value> = all
        .iter()
        .filter(|(name, _)| !pattern.captures().any(|c| c == *name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    (!own.is_empty()).then(|| json!({ "type": "object", "properties": own }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Int, Text};
    use crate::reply::Keys;
    use crate::routes::{Compiled, Help, Routes};
    use crate::{Cx, Result};

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Write {
        /// Which one.
        #[allow(dead_code, reason = "only its schema counts here")]
        name: Text,
        /// How many.
        #[allow(dead_code, reason = "only its schema counts here")]
        count: Option<Int>,
    }

    async fn write(_: &(), _: &mut Cx, _: Write) -> Result<()> {
        Ok(())
    }

    async fn list(_: &(), _: &mut Cx, _: crate::routes::Nothing) -> Result<Keys> {
        Ok(Keys::default())
    }

    #[test]
    fn every_parameter_is_declared_and_hidden_rows_are_left_out() {
        const HELP: Help = Help { synopsis: "Things.", description: "" };
        let mut routes: Routes<()> = Routes::new();
        routes.path("thing/", HELP).list(list);
        routes.path("thing/{name}", HELP).update(write).sudo();
        routes.path("old/{name}", HELP).update(write).hidden();
        let compiled = Compiled::new(routes);
        let shown = [MountTable { mount: "x/", tag: "secrets", table: compiled.table() }];
        let document = document("1", &shown);
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.keys().collect::<Vec<_>>(), ["/x/thing", "/x/thing/{name}"]);
        let thing = &paths["/x/thing/{name}"];
        assert_eq!(thing["parameters"][0]["name"], "name");
        assert_eq!(thing["parameters"][0]["description"], "Which one.");
        assert_eq!(thing["x-vault-sudo"], true);
        let schema = &thing["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["count"]);
        assert_eq!(paths["/x/thing"]["get"]["parameters"][0]["name"], "list");
    }
}
