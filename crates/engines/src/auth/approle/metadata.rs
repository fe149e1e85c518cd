//! Metadata of a secret id for its tokens: JSON text or `name=value` pairs, either also in base64.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::{Error, Result};

/// Reads the `metadata` parameter.
///
/// # Errors
/// 400 for any other text, and for empty names and values.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.as_deref().unwrap_or(text).trim();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let pairs = match serde_json::from_str::<BTreeMap<String, String>>(text) {
        Ok(pairs) => pairs,
        Err(_) => text.trim_end_matches(',').split(',').map(pair).collect::<Result<_>>()?,
    };
    match pairs.iter().find(|(name, value)| name.is_empty() || value.is_empty()) {
        Some((name, _)) => Err(Error::invalid(format!("failed to parse metadata: invalid value for key {name:?}"))),
        None => Ok(pairs),
    }
}

fn pair(text: &str) -> Result<(String, String)> {
    let syntax_error = |what| {
        Error::invalid(format!("failed to parse metadata: failed to parse the input: invalid <key,value> {what}"))
    };
    match text.split('=').map(str::trim).collect::<Vec<_>>()[..] {
        ["", _] | [_, ""] => Err(syntax_error("pair")),
        [name, value] => Ok((name.to_owned(), value.to_owned())),
        _ => Err(syntax_error("format")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_parsed_as_in_openbao() {
        let format = "failed to parse metadata: failed to parse the input: invalid <key,value> format";
        let shown = |text: &str| match parse(text) {
            Ok(pairs) => pairs.iter().map(|(n, v)| format!("{n}:{v}")).collect::<Vec<_>>().join(" "),
            Err(error) => error.public().to_owned(),
        };
        for (text, expected) in [
            ("", ""),
            ("{}", ""),
            (r#"{"a":"b","c":"d"}"#, "a:b c:d"),
            ("eyJhIjoiYiJ9", "a:b"),
            ("a=b,c=d", "a:b c:d"),
            (" a = b ", "a:b"),
            ("a=b,", "a:b"),
            (r#"{"a":1}"#, format),
            ("abc", format),
            ("[1]", format),
            ("a=b,c", format),
            ("a=b=c", format),
            (r#"{"a":""}"#, "failed to parse metadata: invalid value for key \"a\""),
            ("a=", "failed to parse metadata: failed to parse the input: invalid <key,value> pair"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
