//! Parameters of configs and keys against those of the plugin, with OpenBao's texts.

use std::collections::BTreeMap;

use keepfast_crypto::secret::SecretString;
use keepfast_framework::external_key::{Parameter, ParameterKind, Parameters};
use keepfast_framework::fields::truth;
use keepfast_framework::{Error, Result};
use serde_json::Value;

use super::record::{StoredValue, Values};

/// The most parameters of a config or key.
const MAX_PARAMETERS: usize = 64;
/// The longest name of a parameter, in bytes.
const MAX_NAME: usize = 128;
/// The longest value of a parameter, in bytes: a chain of certificates.
const MAX_VALUE: usize = 64 * 1024;
/// Beside those that begin with `tls_`, the parameters that decide to whom a secret is sent.
const TARGETS: [&str; 4] = ["address", "endpoint", "lib", "namespace"];
/// The text in place of a secret.
const REDACTED: &str = "(redacted)";

/// Refuses what would be stored without bound.
pub(crate) fn check_size(values: &Values) -> Result<()> {
    if values.0.len() > MAX_PARAMETERS {
        return Err(Error::invalid(format!("more than {MAX_PARAMETERS} parameters")));
    }
    let fits = |(name, value): (&String, &StoredValue)| {
        let length = if let StoredValue::Text(text) = value { text.expose().len() } else { 0 };
        name.len() <= MAX_NAME && length <= MAX_VALUE
    };
    if values.0.iter().all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!("a parameter is longer than {MAX_VALUE} bytes, or its name than {MAX_NAME}")))
}

/// The values of known parameters in the form of their type.
///
/// # Errors
/// 400 for unknown parameters, for values of another type, and for missing ones. The text contains no values.
pub(crate) fn checked(known: &'static [Parameter], values: &Values) -> Result<Parameters> {
    let (mut faults, mut out) = (Vec::new(), Parameters::default());
    for parameter in known {
        let Some(value) = values.0.get(parameter.name) else { continue };
        match converted(parameter.kind, value) {
            Ok(text) => out.insert(parameter.name, text),
            Err(why) => faults.push(format!("'config.{}' {why}", parameter.name)),
        }
    }
    let is_unknown = |name: &&str| !known.iter().any(|parameter| parameter.name == *name);
    let unknown: Vec<&str> = values.0.keys().map(String::as_str).filter(is_unknown).collect();
    if !unknown.is_empty() {
        faults.push(format!("'config' has invalid keys: {}", unknown.join(", ")));
    }
    if !faults.is_empty() {
        let faults = faults.join("\n");
        return Err(Error::invalid(format!("decoding failed due to the following error(s):\n\n{faults}")));
    }
    let is_missing = |parameter: &&Parameter| {
        let is_zero = parameter.kind == ParameterKind::Number && out.number(parameter.name) == 0;
        parameter.required && (is_zero || out.secret(parameter.name).is_none())
    };
    match known.iter().find(is_missing) {
        Some(missing) => Err(Error::invalid(format!("missing required parameter '{}'", missing.name))),
        None => Ok(out),
    }
}

/// The text of a value in the form of a type.
fn converted(kind: ParameterKind, value: &StoredValue) -> Result<SecretString, String> {
    const FLAG: &str = "cannot parse value as 'bool': strconv.ParseBool: invalid syntax";
    const NUMBER: &str = "cannot parse value as 'uint64': strconv.ParseUint: invalid syntax";
    let expected = match kind {
        ParameterKind::Text => "string",
        ParameterKind::Flag => "bool",
        ParameterKind::Number => "uint64",
    };
    let text = match (kind, value) {
        (_, StoredValue::List) => return Err(unconvertible(expected, "[]interface {}")),
        (_, StoredValue::Object) => return Err(unconvertible(expected, "map[string]interface {}")),
        (ParameterKind::Text, StoredValue::Null) => String::new(),
        (ParameterKind::Text, StoredValue::Flag(flag)) => if *flag { "1" } else { "0" }.to_owned(),
        (ParameterKind::Text, StoredValue::Number(number)) => number.to_string(),
        (ParameterKind::Text, StoredValue::Text(text)) => return Ok(text.clone()),
        (ParameterKind::Flag, StoredValue::Null) => "false".to_owned(),
        (ParameterKind::Flag, StoredValue::Flag(flag)) => flag.to_string(),
        (ParameterKind::Flag, StoredValue::Number(number)) => truth(&number.to_string()).ok_or(FLAG)?.to_string(),
        (ParameterKind::Flag, StoredValue::Text(text)) => truth(text.expose()).ok_or(FLAG)?.to_string(),
        (ParameterKind::Number, StoredValue::Null) => "0".to_owned(),
        (ParameterKind::Number, StoredValue::Flag(flag)) => u8::from(*flag).to_string(),
        (ParameterKind::Number, StoredValue::Number(number)) => number.as_u64().ok_or(NUMBER)?.to_string(),
        (ParameterKind::Number, StoredValue::Text(text)) if text.expose().is_empty() => "0".to_owned(),
        (ParameterKind::Number, StoredValue::Text(text)) => {
            text.expose().parse::<u64>().map_err(|_| NUMBER)?.to_string()
        }
    };
    Ok(SecretString::new(text))
}

/// Refuses a patch that would send a stored secret to another system: a caller that cannot read it would learn it. `known`
/// is `None` where the plugin is unknown: then every stored parameter may be a secret.
pub(crate) fn check_patch(
    known: Option<&'static [Parameter]>,
    stored: &Values,
    patch: &Values,
    changes_plugin: bool,
) -> Result<()> {
    let is_secret =
        |name: &str| !known.unwrap_or_default().iter().any(|parameter| parameter.name == name && !parameter.secret);
    let is_target = |name: &str| TARGETS.contains(&name) || name.starts_with("tls_");
    let differs = |name: &str, value: &StoredValue| match stored.0.get(name) {
        None => *value != StoredValue::Null,
        Some(stored) => stored != value,
    };
    let changed = patch.0.iter().find(|(name, value)| is_target(name) && differs(name, value));
    let changed = if changes_plugin { Some("plugin") } else { changed.map(|(name, _)| name.as_str()) };
    let kept = stored.0.keys().find(|name| is_secret(name) && !patch.0.contains_key(*name));
    match (changed, kept) {
        (Some(changed), Some(kept)) => Err(Error::invalid(format!(
            "a change of {changed} needs {kept} again: the stored value is not sent to another system"
        ))),
        _ => Ok(()),
    }
}

fn unconvertible(expected: &str, found: &str) -> String {
    format!("expected type '{expected}', got unconvertible type '{found}'")
}

/// What a read returns: the values of parameters that are not secret. One that the plugin does not have may be a secret
/// with a misspelt name.
pub(crate) fn shown(known: &'static [Parameter], values: &Values) -> BTreeMap<String, Value> {
    let is_public = |name: &str| known.iter().any(|parameter| parameter.name == name && !parameter.secret);
    let entries = values.0.iter().map(|(name, value)| {
        let value = match value {
            _ if !is_public(name) => REDACTED.into(),
            StoredValue::Null => Value::Null,
            StoredValue::Flag(flag) => (*flag).into(),
            StoredValue::Number(number) => Value::Number(number.clone()),
            StoredValue::Text(text) => text.expose().as_str().into(),
            StoredValue::List => Value::Array(Vec::new()),
            StoredValue::Object => Value::Object(serde_json::Map::new()),
        };
        (name.clone(), value)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Parameter] = &[
        Parameter::text("address"),
        Parameter::secret("token").required(),
        Parameter::flag("skip"),
        Parameter::number("version").required(),
    ];

    fn read(text: &str) -> Result<Parameters> {
        checked(KNOWN, &serde_json::from_str(text).unwrap())
    }

    #[test]
    fn values_are_converted_to_the_type_of_their_parameter() {
        let parameters = read(r#"{"address":7,"token":"t","skip":"true","version":"3"}"#).unwrap();
        assert_eq!((parameters.text("address").as_deref(), parameters.number("version")), (Some("7"), 3));
        assert!(parameters.flag("skip") && parameters.text("none").is_none());
        let parameters = read(r#"{"address":null,"token":"t","skip":0,"version":3}"#).unwrap();
        assert!(!parameters.flag("skip") && parameters.text("address").is_none());
    }

    // The texts are those of OpenBao 2.7.
    #[test]
    fn errors_name_parameters_and_never_values() {
        let decoding = "decoding failed due to the following error(s):\n\n";
        for (text, expected) in [
            (r#"{"version":1}"#, "missing required parameter 'token'".to_owned()),
            (r#"{"token":"","version":1}"#, "missing required parameter 'token'".to_owned()),
            (r#"{"token":"t","version":0}"#, "missing required parameter 'version'".to_owned()),
            (
                r#"{"token":"t","version":"hidden"}"#,
                format!("{decoding}'config.version' cannot parse value as 'uint64': strconv.ParseUint: invalid syntax"),
            ),
            (
                r#"{"token":"t","version":-1}"#,
                format!("{decoding}'config.version' cannot parse value as 'uint64': strconv.ParseUint: invalid syntax"),
            ),
            (
                r#"{"token":"t","skip":"hidden","version":1}"#,
                format!("{decoding}'config.skip' cannot parse value as 'bool': strconv.ParseBool: invalid syntax"),
            ),
            (
                r#"{"token":["hidden"],"version":1}"#,
                format!("{decoding}'config.token' expected type 'string', got unconvertible type '[]interface {{}}'"),
            ),
            (r#"{"token":"t","foo":"hidden","version":1}"#, format!("{decoding}'config' has invalid keys: foo")),
        ] {
            let error = read(text).err().unwrap();
            assert_eq!((error.status().0, error.public()), (400, &*expected), "{text}");
        }
    }

    #[test]
    fn sec_a_read_shows_no_secret_and_no_unknown_parameter() {
        let values = serde_json::from_str(r#"{"address":"a","token":"t","tokn":"t","skip":true,"version":null}"#);
        let shown = shown(KNOWN, &values.unwrap());
        let text = serde_json::to_string(&shown).unwrap();
        let expected = r#"{"address":"a","skip":true,"token":"(redacted)","tokn":"(redacted)","version":null}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn sec_a_stored_secret_is_not_sent_to_another_system() {
        const KNOWN: &[Parameter] = &[
            Parameter::text("address"),
            Parameter::secret("token"),
            Parameter::flag("tls_skip_verify"),
            Parameter::number("version"),
        ];
        let values = |text: &str| serde_json::from_str::<Values>(text).unwrap();
        let stored = values(r#"{"address":"a","token":"t","tls_skip_verify":false,"version":1}"#);
        for (patch, changes_plugin, fits) in [
            (r#"{"address":"b"}"#, false, false),
            (r#"{"address":null}"#, false, false),
            (r#"{"namespace":"n"}"#, false, false),
            (r#"{"tls_skip_verify":true}"#, false, false),
            (r#"{"tls_server_name":"s"}"#, false, false),
            ("{}", true, false),
            (r#"{"address":"b","token":"u"}"#, false, true),
            (r#"{"address":"b","token":null}"#, false, true),
            (r#"{"token":"u"}"#, true, true),
            (r#"{"address":"a","tls_skip_verify":false}"#, false, true),
            (r#"{"version":2,"namespace":null}"#, false, true),
        ] {
            let checked = check_patch(Some(KNOWN), &stored, &values(patch), changes_plugin);
            assert_eq!(checked.is_ok(), fits, "{patch}");
        }
        let error = check_patch(Some(KNOWN), &stored, &values(r#"{"address":"b"}"#), false).err().unwrap();
        let text = "a change of address needs token again: the stored value is not sent to another system";
        assert_eq!((error.status().0, error.public()), (400, text));
        assert!(check_patch(None, &stored, &Values::default(), true).is_err(), "any may be a secret");
    }

    #[test]
    fn the_number_and_the_length_of_parameters_are_bound() {
        let values = |count: usize, length: usize| {
            let value = StoredValue::Text(SecretString::new("x".repeat(length)));
            Values((0..count).map(|at| (format!("p{at}"), value.clone())).collect())
        };
        for (count, length, fits) in [(64, 10, true), (65, 10, false), (1, 65_536, true), (1, 65_537, false)] {
            assert_eq!(check_size(&values(count, length)).is_ok(), fits, "{count}, {length}");
        }
    }
}
