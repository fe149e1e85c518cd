//! The mount, version and path of a key.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value};

use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::output::{heading, with_header};
use crate::session::{Session, request_error};
use crate::terminal;

/// A key in a KV engine.
pub(in crate::commands) struct KeyPath {
    mount: String,
    key: String,
    /// Whether the engine is of version 2.
    pub(in crate::commands) versioned: bool,
}

impl KeyPath {
    /// Asks the server for the engine of the command's first argument, or of `-mount`.
    pub(super) fn find(cx: &Cx, session: &Session) -> Result<Self, CommandError> {
        let argument = cx.path(0);
        let mount =
            cx.words.text("mount").map(|mount| mount.trim_matches('/').to_owned()).filter(|mount| !mount.is_empty());
        let path = mount.as_deref().unwrap_or(&argument);
        let request = Request::new(Method::Get, format!("sys/internal/ui/mounts/{path}"));
        let Some(found) = session.preflight(request).map_err(|error| request_error("", &error))? else {
            // A server without this endpoint counts as version 1.
            let whole = mount.map_or(argument.clone(), |mount| format!("{mount}/{argument}"));
            return Ok(Self { mount: String::new(), key: whole, versioned: false });
        };
        let at = found.text("path").unwrap_or_default().trim_matches('/').to_owned();
        let version = found.data_field("options").and_then(|options| options.get("version"));
        let versioned = version.is_some_and(|version| version.as_str() == Some("2") || version.as_i64() == Some(2));
        let key = match mount {
            Some(_) => argument,
            None => argument.strip_prefix(&at).unwrap_or(&argument).trim_matches('/').to_owned(),
        };
        Ok(Self { mount: at, key, versioned })
    }

    /// The key of the command's argument `at`, in the mount that `mount_of` finds for a path: its path, and whether the
    /// engine is of version 2.
    pub(in crate::commands) fn in_mount(
        cx: &Cx,
        at: usize,
        mount_of: impl FnOnce(&str) -> Option<(String, bool)>,
    ) -> Option<Self> {
        let argument = cx.path(at);
        let mount = cx.words.text("mount").map(|mount| mount.trim_matches('/')).filter(|mount| !mount.is_empty());
        let (path, versioned) = mount_of(mount.unwrap_or(&argument))?;
        let key = match mount {
            Some(_) => argument,
            None => argument.strip_prefix(&path).unwrap_or(&argument).trim_matches('/').to_owned(),
        };
        Some(Self { mount: path, key, versioned })
    }

    /// The path of the key in the API; `part` is the part of a versioned engine, such as `data`.
    pub(in crate::commands) fn api(&self, part: &str) -> String {
        let parts = if self.versioned { [&self.mount, part, &self.key] } else { [&self.mount, "", &self.key] };
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// Fails for an engine without versions.
    pub(super) fn need_versions(&self, what: &str) -> Result<(), CommandError> {
        if self.versioned { Ok(()) } else { Err(CommandError::usage(format!("{what} not supported on KV Version 1"))) }
    }

    /// Prints the full path of the key in a versioned engine, under a title.
    pub(super) fn print_path(&self, title: &str, part: &str) {
        let path = self.api(part);
        terminal::line(&format!("{}\n{path}\n", heading(title, path.chars().count())));
    }
}

/// Prints a map as a table under a title.
pub(super) fn print_map(title: &str, map: &Map<String, Value>) {
    let rows: Vec<Vec<String>> = {
        let mut rows: Vec<_> =
            map.iter().map(|(key, value)| vec![key.clone(), crate::output::field_text(key, value)]).collect();
        rows.sort();
        rows
    };
    let longest = map.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    terminal::line(&heading(title, longest + "    Value".len()));
    terminal::line(&with_header(&["Key", "Value"], &rows));
}

/// Prints the response of a write: version metadata, or a success message for an unversioned engine.
pub(super) fn show_written(cx: &Cx, key_path: &KeyPath, response: Option<keepfast_client::Secret>) -> Outcome {
    let Some(secret) = response else {
        cx.output.success(&format!("Success! Data written to: {}", key_path.api("data")));
        return Ok(0);
    };
    match &secret.data {
        Some(version) if cx.output.is_table() && cx.output.field().is_none() && key_path.versioned => {
            cx.output.warnings(&secret);
            key_path.print_path("Secret Path", "data");
            print_map("Metadata", version);
            Ok(0)
        }
        _ => cx.output.secret(&secret),
    }
}
