//! The custom metadata of a secret: name-value pairs of the client, and their limits.

use std::collections::BTreeMap;

use keepfast_framework::fields::{RawObject, Text};
use keepfast_framework::{Error, Result};
use serde_json::value::RawValue;

const MAX_PAIRS: usize = 64;
const MAX_NAME: usize = 128;
const MAX_VALUE: usize = 512;
const FAILED: &str = "custom_metadata validation failed";

/// Names with text values.
pub(super) type CustomMetadata = BTreeMap<String, String>;

/// Reads the pairs of a request; a number or boolean is converted to text.
///
/// # Errors
/// 400 that lists every invalid pair.
pub(super) fn read(sent: &RawObject) -> Result<CustomMetadata> {
    let pairs = members(sent)?.into_iter().map(|(name, value)| Ok((name, text(value)?))).collect::<Result<_>>()?;
    check(&pairs)?;
    Ok(pairs)
}

/// Merges the pairs of a patch into `pairs`; `null` removes a pair, and a patch that is `null` removes all pairs.
///
/// # Errors
/// 400 that lists every invalid pair.
pub(super) fn patch(mut pairs: CustomMetadata, sent: &RawObject) -> Result<CustomMetadata> {
    if sent.0.get() == "null" {
        return Ok(CustomMetadata::new());
    }
    for (name, value) in members(sent)? {
        if value.get() == "null" {
            pairs.remove(&name);
        } else {
            pairs.insert(name, text(value)?);
        }
    }
    check(&pairs)?;
    Ok(pairs)
}

fn members(sent: &RawObject) -> Result<BTreeMap<String, &RawValue>> {
    let members: Option<BTreeMap<String, &RawValue>> =
        serde_json::from_str(sent.0.get()).map_err(|_| Error::invalid(format!("{FAILED}: invalid JSON")))?;
    Ok(members.unwrap_or_default())
}

fn text(value: &RawValue) -> Result<String> {
    if value.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Ok(value.get().to_owned());
    }
    let text: Result<Text, _> = serde_json::from_str(value.get());
    text.map(|text| text.0).map_err(|error| {
        let error = error.to_string();
        let error = error.split(" at line ").next().unwrap_or_default();
        Error::invalid(format!("{FAILED}: {error}"))
    })
}

fn check(pairs: &CustomMetadata) -> Result<()> {
    let mut errors = Vec::new();
    if pairs.len() > MAX_PAIRS {
        errors.push(format!("payload must contain at most {MAX_PAIRS} keys, provided {}", pairs.len()));
        return Err(joined(&errors));
    }
    for (name, value) in pairs {
        if name.is_empty() || name.len() > MAX_NAME {
            errors.push(format!("length of key \"{name}\" is {} but must be 0 < len(key) <= {MAX_NAME}", name.len()));
        }
        if value.is_empty() || value.len() > MAX_VALUE {
            errors.push(format!(
                "length of value for key \"{name}\" is {} but must be 0 < len(value) <= {MAX_VALUE}",
                value.len()
            ));
        }
        if !printable(name) {
            errors.push(format!("key {} ({name}) contains unprintable characters", quoted(name)));
        }
        if !printable(value) {
            errors.push(format!("value for key \"{name}\" contains unprintable characters"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(joined(&errors)) }
}

/// Joins several errors into one text, in OpenBao's format.
fn joined(errors: &[String]) -> Error {
    let head = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
    let list: String = errors.iter().map(|error| format!("\n\t* {FAILED}: {error}")).collect();
    Error::invalid(format!("{head} occurred:{list}\n\n"))
}

/// Whether a text has only letters, digits, punctuation, symbols and the space; no control, separator or invisible
/// formatting characters.
fn printable(text: &str) -> bool {
    text.chars().all(|c| {
        c == ' '
            || !(c.is_control()
                || c.is_whitespace()
                || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
                || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..))
    })
}

fn quoted(text: &str) -> String {
    let inner: String = text
        .chars()
        .map(|c| if c.is_control() && c.is_ascii() { format!("\\x{:02x}", c as u32) } else { c.to_string() })
        .collect();
    format!("\"{inner}\"")
}
