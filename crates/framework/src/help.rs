//! Help texts of a mount, generated from its table.

use serde::Serialize;
use serde_json::Value;

use crate::input::WHOLE_BODY;
use crate::openapi;
use crate::routes::Table;
use crate::rows::RowInfo;

/// The response to `?help=1`.
#[derive(Serialize)]
pub struct HelpText {
    /// The text for users.
    pub help: String,
    /// The OpenAPI document of the path, or of the mount.
    pub openapi: Value,
    /// Always null: no help text names other paths, but clients expect the member.
    pub see_also: Option<Vec<String>>,
}

/// Returns the help of one row.
pub fn row(version: &str, row: &RowInfo, path: &str) -> HelpText {
    let mut help = format!("Request:        {path}\nMatching Route: {}\n\n{}\n", patterns(row), row.help.synopsis);
    let mut names: Vec<(&str, String)> = Vec::new();
    for operation in &row.operations {
        let request = operation.request();
        for name in operation.parameters().iter().filter(|name| ***name != *WHOLE_BODY) {
            if !names.iter().any(|(n, _)| **n == **name) {
                let description = request
                    .get("properties")
                    .and_then(|p| p.get(&**name))
                    .and_then(|p| p.get("description"))
                    .and_then(|d| d.as_str())
                    .unwrap_or_default();
                names.push((name, description.to_owned()));
            }
        }
    }
    if !names.is_empty() {
        help.push_str("\n## PARAMETERS\n");
        for (name, description) in names {
            help.push_str(&format!("\n    {name}\n        {description}\n"));
        }
    }
    if !row.help.description.is_empty() {
        help.push_str(&format!("\n## DESCRIPTION\n\n{}\n", row.help.description));
    }
    HelpText { help, openapi: openapi::document_of(version, [row]), see_also: None }
}

/// Returns the help of a mount's root: each path with its synopsis.
pub fn root(version: &str, table: &Table) -> HelpText {
    let mut help = String::from("## PATHS\n\nThe following paths are supported.\n");
    for row in table.rows() {
        help.push_str(&format!("\n    {}\n        {}\n", patterns(row), row.help.synopsis));
    }
    HelpText { help, openapi: openapi::document_of(version, table.rows()), see_also: None }
}

fn patterns(row: &RowInfo) -> String {
    row.patterns.iter().map(|p| p.source()).collect::<Vec<_>>().join(", ")
}
