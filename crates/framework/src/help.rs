//! Help texts of a mount, from its table.

use serde::Serialize;

use crate::routes::Table;
use crate::rows::RowInfo;

/// The answer to `?help=1`.
#[derive(Serialize)]
pub struct HelpText {
    /// The text for people.
    pub help: String,
    /// The paths of the mount, for the help of its root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub see_also: Vec<String>,
}

/// The help of one row.
pub fn row(row: &RowInfo, path: &str) -> HelpText {
    let mut help = format!("Request:        {path}\nMatching Route: {}\n\n{}\n", patterns(row), row.help.synopsis);
    let mut names: Vec<(&str, String)> = Vec::new();
    for operation in &row.operations {
        let request = operation.request();
        for name in operation.parameters() {
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
    HelpText { help, see_also: Vec::new() }
}

/// The help of a mount's root: each path with its one line.
pub fn root(table: &Table) -> HelpText {
    let mut help = String::from("## PATHS\n\nThe following paths are supported.\n");
    let mut see_also = Vec::new();
    for row in table.rows() {
        help.push_str(&format!("\n    {}\n        {}\n", patterns(row), row.help.synopsis));
        see_also.extend(row.patterns.iter().map(|p| p.source().to_owned()));
    }
    HelpText { help, see_also }
}

fn patterns(row: &RowInfo) -> String {
    row.patterns.iter().map(|p| p.source()).collect::<Vec<_>>().join(", ")
}
