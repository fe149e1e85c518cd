//! The `initialize` stanzas: requests that are sent once, to a new server.
//!
//! Sources: <https://openbao.org/docs/configuration/self-init>, <https://openbao.org/docs/concepts/profiles>.

use std::path::PathBuf;
use std::sync::Arc;

use keepfast_core::self_init::{
    PlannedRequest, PlannedValue, Recovery, SelfInitPlan, Source, SourceKind, ValueType, check_operation, check_path,
};
use keepfast_crypto::secret::SecretString;
use keepfast_hcl::{Body, Item, Position, Suggestion, Value, ValueKind};

use super::error::{ConfigError, Warning};
use super::stanza::{Labelled, Stanza, scalar};
use super::top_level::Config;
use crate::self_init::{ProcessSources, RecoveryFile};

/// The most bytes of a name.
const MAX_NAME: usize = 128;

/// Reads the stanzas of all files in their order.
pub(super) fn read(roots: &mut [Stanza<'_>], warnings: &mut Vec<Warning>) -> Result<SelfInitPlan, ConfigError> {
    let (mut names, mut requests, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let mut recovery = None;
    for root in roots {
        let file = root.file().to_owned();
        for block in root.blocks("initialize", 1)? {
            let Labelled { labels, position, mut stanza } = block;
            let name = checked_name(&stanza, &labels, position)?;
            if names.contains(&name) {
                return Err(stanza.fault(position, format!("two initialize stanzas are named {name:?}")));
            }
            names.push(name);
            for block in stanza.blocks("request", 1)? {
                places.push((file.clone(), block.position));
                requests.push(read_request(name, block, warnings)?);
            }
            if let Some(block) = stanza.object("recovery")?
                && recovery.replace(read_recovery(block, warnings)?).is_some()
            {
                return Err(stanza.fault(stanza.position("recovery"), "there is one recovery block for all stanzas"));
            }
            stanza.finish(warnings);
        }
    }
    SelfInitPlan::new(requests, recovery, Arc::new(ProcessSources)).map_err(|error| {
        let (file, position) = places.get(error.request).cloned().unwrap_or((String::new(), Position::START));
        ConfigError::At { file, position, message: error.reason }
    })
}

/// Checks the rules between the stanzas and the rest of the configuration.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if !config.self_init.is_empty() && config.seals.iter().all(|seal| seal.disabled) {
        let text = "self-initialization requires auto-unseal as there is no way to persist the Shamir's keys; add a seal stanza";
        return Err(ConfigError::Whole(text.into()));
    }
    Ok(())
}

/// Whether a server with this configuration initializes an empty storage by stanzas. A node that joins does not.
pub(crate) fn runs(config: &Config) -> bool {
    !config.self_init.is_empty() && config.raft.retry_join.is_empty()
}

fn checked_name<'a>(stanza: &Stanza<'_>, labels: &[&'a str], position: Position) -> Result<&'a str, ConfigError> {
    let [name] = labels else { return Err(stanza.fault(position, "initialize and request have one name each")) };
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !begins || name.len() > MAX_NAME || !bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        let text = format!(
            "the name {name:?} must begin with a letter or '_' and have letters, digits, '_' and '-' only, at most {MAX_NAME}"
        );
        return Err(stanza.fault(position, text));
    }
    Ok(name)
}

fn read_request(
    initialize: &str,
    block: Labelled<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<PlannedRequest, ConfigError> {
    let Labelled { labels, position, mut stanza } = block;
    let name = checked_name(&stanza, &labels, position)?;
    let required = |key: &str| stanza.fault(position, format!("request {name:?} needs {key}"));
    let missing = (required("an operation"), required("a path"));
    let mut reading = Reading { file: stanza.file().to_owned(), warnings };
    let operation = stanza.item("operation")?.ok_or(missing.0)?;
    let operation = reading.text(operation, &|text| check_operation(text))?;
    let path = stanza.item("path")?.ok_or(missing.1)?;
    let path = reading.text(path, &|text| check_path(text).map(drop))?;
    let token = stanza.item("token")?.map(|item| reading.text(item, &|_| Ok(()))).transpose()?;
    let data = stanza.item("data")?.map(|item| reading.data(item)).transpose()?;
    let allow_failure = stanza.item("allow_failure")?.map(|item| reading.flag(item)).transpose()?;
    stanza.finish(warnings);
    Ok(PlannedRequest { name: format!("{initialize}.{name}"), operation, path, token, data, allow_failure })
}

/// Reads the values of one request.
struct Reading<'w> {
    file: String,
    warnings: &'w mut Vec<Warning>,
}

impl Reading<'_> {
    fn fault(&self, position: Position, message: impl Into<String>) -> ConfigError {
        ConfigError::At { file: self.file.clone(), position, message: message.into() }
    }

    /// A string that passes a check, or a source.
    fn text(&mut self, item: &Item, check: &dyn Fn(&str) -> Result<(), String>) -> Result<PlannedValue, ConfigError> {
        let (key, position) = (item.name(), item.value.position);
        match self.value(&item.value)? {
            PlannedValue::Source(source) => Ok(PlannedValue::Source(source)),
            _ => {
                let text = item.value.as_str().filter(|_| item.keys.len() == 1);
                let text = text.ok_or_else(|| self.fault(position, format!("{key} must be a string or a source")))?;
                check(text).map_err(|why| self.fault(position, why))?;
                Ok(PlannedValue::text(text))
            }
        }
    }

    /// `true`, `false`, or a source.
    fn flag(&mut self, item: &Item) -> Result<PlannedValue, ConfigError> {
        match self.value(&item.value)? {
            PlannedValue::Source(source) => Ok(PlannedValue::Source(source)),
            _ => {
                let flag = match scalar(&item.value).as_deref() {
                    Some("true" | "1") => "true",
                    Some("false" | "0" | "") => "false",
                    _ => return Err(self.fault(item.value.position, "allow_failure must be true, false or a source")),
                };
                Ok(PlannedValue::Literal(SecretString::new(flag.to_owned())))
            }
        }
    }

    /// An object, or a source.
    fn data(&mut self, item: &Item) -> Result<PlannedValue, ConfigError> {
        // JSON from programs wraps a single block in a list of one.
        let value = match item.value.as_list() {
            Some([only]) => only,
            _ => &item.value,
        };
        if value.as_object().is_none() || item.keys.len() > 1 {
            return Err(self.fault(item.value.position, "data must be an object or a source"));
        }
        self.value(value)
    }

    // recursion: bounded by MAX_DEPTH of the parser
    fn value(&mut self, value: &Value) -> Result<PlannedValue, ConfigError> {
        let literal = |json: String| Ok(PlannedValue::Literal(SecretString::new(json)));
        match &value.kind {
            ValueKind::Null => literal("null".to_owned()),
            ValueKind::Bool(flag) => literal(flag.to_string()),
            ValueKind::Integer(number) => literal(number.to_string()),
            ValueKind::Float(number) if number.is_finite() => literal(number.to_string()),
            ValueKind::Float(_) => Err(self.fault(value.position, "the number is too large")),
            ValueKind::String(text) => Ok(PlannedValue::text(text)),
            ValueKind::List(items) => {
                items.iter().map(|item| self.value(item)).collect::<Result<_, _>>().map(PlannedValue::List)
            }
            ValueKind::Object(body) if body.get("eval_source").or(body.get("eval_type")).is_some() => {
                self.source(body).map(PlannedValue::Source)
            }
            ValueKind::Object(body) => {
                if let Some(item) = body.repeated() {
                    return Err(self.fault(item.position(), format!("{} is set twice", item.name())));
                }
                let mut entries = Vec::with_capacity(body.items.len());
                for item in &body.items {
                    if item.keys.len() > 1 {
                        return Err(self.fault(item.position(), format!("{} must have no labels", item.name())));
                    }
                    entries.push((item.name().to_owned(), self.value(&item.value)?));
                }
                Ok(PlannedValue::Map(entries))
            }
        }
    }

    /// `{ eval_source = … eval_type = … }` with the keys of the source.
    fn source(&mut self, body: &Body) -> Result<Source, ConfigError> {
        let mut known = vec!["eval_source", "eval_type"];
        let eval_type = self.required(body, "eval_type")?;
        let as_type = ValueType::named(&eval_type).ok_or_else(|| {
            let types: Vec<&str> = ValueType::NAMES.iter().map(|(name, _)| *name).collect();
            self.fault(
                position(body, "eval_type"),
                format!("unknown eval_type {eval_type:?}; there are {}", types.join(", ")),
            )
        })?;
        let eval_source = self.required(body, "eval_source")?;
        let kind = match eval_source.as_str() {
            "env" => {
                known.extend(["env_var", "require_present"]);
                let required = match body.get("require_present").map(|item| scalar(&item.value)) {
                    None => false,
                    Some(Some(text)) if text == "true" || text == "false" => text == "true",
                    Some(_) => {
                        let text = "require_present must be true or false";
                        return Err(self.fault(position(body, "require_present"), text));
                    }
                };
                SourceKind::Env { variable: self.required(body, "env_var")?, required }
            }
            "file" => {
                known.push("path");
                SourceKind::File { path: self.required(body, "path")? }
            }
            "request" => {
                let (of, field) = self.earlier(body, &["request_name"], &mut known)?;
                SourceKind::Request { of, field }
            }
            "response" => {
                let (of, field) = self.earlier(body, &["response_name", "request_name"], &mut known)?;
                SourceKind::Response { of, field }
            }
            other => {
                let sources = ["env", "file", "request", "response"];
                let suggestion = Suggestion::of(other, &sources);
                let text = format!("unknown eval_source {other:?}{suggestion}; there are {}", sources.join(", "));
                return Err(self.fault(position(body, "eval_source"), text));
            }
        };
        for item in body.items.iter().filter(|item| !known.contains(&item.name())) {
            let suggestion = Suggestion::of(item.name(), &known);
            let message = format!("unknown field {} of the source {eval_source}{suggestion}", item.name());
            self.warnings.push(Warning { file: self.file.clone(), position: item.position(), message });
        }
        Ok(Source { kind, as_type })
    }

    /// The name of an earlier request, under the first of these keys that is set, and the selector of a field.
    fn earlier(
        &self,
        body: &Body,
        keys: &[&'static str],
        known: &mut Vec<&'static str>,
    ) -> Result<(String, Vec<String>), ConfigError> {
        known.extend(["initialize_name", "field_selector"]);
        known.extend(keys);
        let initialize = self.required(body, "initialize_name")?;
        let key = keys.iter().find(|key| body.get(key).is_some()).or(keys.first()).copied().unwrap_or_default();
        let request = self.required(body, key)?;
        let selector = body.get("field_selector").map(|item| &item.value);
        let field = selector.and_then(|value| match &value.kind {
            ValueKind::List(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            ValueKind::String(name) => Some(vec![name.clone()]),
            _ => None,
        });
        let field = field.filter(|field: &Vec<String>| !field.is_empty()).ok_or_else(|| {
            self.fault(position(body, "field_selector"), "field_selector must be a string or a list of strings")
        })?;
        Ok((format!("{initialize}.{request}"), field))
    }

    /// A string that is not empty.
    fn required(&self, body: &Body, key: &str) -> Result<String, ConfigError> {
        let text = body.get(key).and_then(|item| item.value.as_str()).filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| self.fault(position(body, key), format!("a source needs {key}, a string that is not empty")))
    }
}

/// The position of an item, or of the object without it.
fn position(body: &Body, key: &str) -> Position {
    body.get(key).map_or(body.position, Item::position)
}

/// Parses `recovery { shares threshold pgp_keys output }`.
fn read_recovery(mut stanza: Stanza<'_>, warnings: &mut Vec<Warning>) -> Result<Recovery, ConfigError> {
    let (shares, threshold) = (stanza.integer("shares")?.unwrap_or(0), stanza.integer("threshold")?.unwrap_or(0));
    let pgp_keys: Vec<PathBuf> = stanza.list("pgp_keys")?.unwrap_or_default().into_iter().map(PathBuf::from).collect();
    let output = stanza.text("output")?.filter(|path| !path.is_empty()).map(PathBuf::from);
    let output = output.filter(|path| path.is_absolute() && path.file_name().is_some()).ok_or_else(|| {
        stanza.fault(stanza.position("output"), "recovery needs an output: the absolute path of a file")
    })?;
    if !pgp_keys.is_empty() && i64::try_from(pgp_keys.len()) != Ok(shares) {
        return Err(stanza.fault(stanza.position("pgp_keys"), "pgp_keys must have one file for each of the shares"));
    }
    let at = stanza.position("shares");
    let recovery = Recovery::new(shares, threshold, Arc::new(RecoveryFile { output, pgp_keys }));
    let recovery = recovery.map_err(|why| stanza.fault(at, format!("recovery: {why}")))?;
    stanza.finish(warnings);
    Ok(recovery)
}

#[cfg(test)]
#[path = "initialize_tests.rs"]
mod tests;
