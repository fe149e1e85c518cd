//! The functions of user name templates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash;
use keepfast_framework::text_limits::{self, TemplateValue, check_value};

use super::TemplateData;
use super::template::Value;

/// The names of all functions.
pub(super) const FUNCTIONS: [&str; 13] = [
    "random",
    "truncate",
    "truncate_sha256",
    "uppercase",
    "lowercase",
    "replace",
    "sha256",
    "base64",
    "unix_time",
    "unix_time_millis",
    "timestamp",
    "uuid",
    "printf",
];

/// The maximum length of a result of `random`.
const MAX_RANDOM: i64 = 1000;
/// The number of hexadecimal digits of the hash with which `truncate_sha256` replaces the truncated part.
const DIGEST_LENGTH: usize = 8;

/// The number of arguments of a function; the minimum for `printf`.
fn count(name: &str) -> usize {
    match name {
        "unix_time" | "unix_time_millis" | "uuid" => 0,
        "truncate" | "truncate_sha256" => 2,
        "replace" => 3,
        _ => 1,
    }
}

/// The error of a wrong number of arguments.
pub(super) fn wrong_count(name: &str, given: usize) -> Option<String> {
    let wanted = count(name);
    match name {
        "printf" if given == 0 => Some(format!("wrong number of args for {name}: want at least {wanted} got {given}")),
        "printf" => None,
        _ => (given != wanted).then(|| format!("wrong number of args for {name}: want {wanted} got {given}")),
    }
}

/// The expected type of an argument with a wrong type.
pub(super) fn wrong_type(name: &str, at: usize, value: &Value) -> Option<&'static str> {
    match (name, at, value) {
        ("printf", 1.., _) | ("random" | "truncate" | "truncate_sha256", 0, Value::Number(_)) => None,
        ("random" | "truncate" | "truncate_sha256", 0, Value::Text(_)) => Some("integer"),
        (_, _, Value::Number(_)) => Some("string"),
        (_, _, Value::Text(_)) => None,
    }
}

/// Calls a function with arguments of the right number and types.
///
/// # Errors
/// Those of the function; when its result is too long.
pub(super) fn call(name: &str, arguments: Vec<Value>, of: &TemplateData<'_>) -> Result<Value, String> {
    if let Some(function_pattern) = of.sample.as_ref().and_then(|sample| sample.function_pattern(name)) {
        return Ok(Value::Text(function_pattern));
    }
    let mut numbers = arguments.iter().filter_map(|v| if let Value::Number(n) = v { Some(*n) } else { None });
    let number = numbers.next().unwrap_or_default();
    let texts: Vec<&str> =
        arguments.iter().filter_map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect();
    let text = texts.last().copied().unwrap_or_default();
    let result = match name {
        "random" => {
            of.random(usize::try_from(number).ok().filter(|_| number <= MAX_RANDOM).ok_or("not between 0 and 1000")?)
        }
        "truncate" => {
            let most = usize::try_from(number).ok().filter(|n| *n > 0);
            let most = most.ok_or_else(|| format!("max length must be > 0 but was {number}"))?;
            of.sample.as_ref().map_or_else(|| text.chars().take(most).collect(), |sample| sample.cut(text, most))
        }
        "truncate_sha256" => {
            let most = usize::try_from(number).ok().filter(|n| *n > DIGEST_LENGTH);
            let most = most.ok_or_else(|| format!("max length must be > {DIGEST_LENGTH} but was {number}"))?;
            of.sample.as_ref().map_or_else(|| truncate_sha256(most, text), |sample| sample.cut(text, most))
        }
        "uppercase" => text.to_uppercase(),
        "lowercase" => text.to_lowercase(),
        "replace" => text_limits::replace(text, texts[0], texts[1])?,
        "sha256" => hex::encode(hash::sha256(text.as_bytes())),
        "base64" => STANDARD.encode(text),
        "unix_time" => of.now.unix().to_string(),
        "unix_time_millis" => (of.now.nanos() / 1_000_000).to_string(),
        "timestamp" => super::timestamp::format(text, of.now),
        "uuid" => of.uuid(),
        _ => printf(&arguments)?,
    };
    Ok(Value::Text(check_value(result)?))
}

fn truncate_sha256(most: usize, text: &str) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let (begin, rest) = text.split_at(text.char_indices().nth(most - DIGEST_LENGTH).map_or(text.len(), |(at, _)| at));
    let digest = hex::encode(hash::sha256(rest.as_bytes()));
    format!("{begin}{}", &digest[..DIGEST_LENGTH])
}

/// Supports `%s`, `%v`, `%d`, `%q` and `%%`. Go inserts an error text for a wrong use; here it is an error.
fn printf(arguments: &[Value]) -> Result<String, String> {
    let Some((Value::Text(format), values)) = arguments.split_first() else { return Err("no format".to_owned()) };
    let mut values = values.iter();
    let mut out = TemplateValue::default();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character)?;
            continue;
        }
        let verb = characters.next().ok_or("a format ends in %")?;
        if verb == '%' {
            out.push('%')?;
            continue;
        }
        let value = values.next().ok_or("a format has more verbs than there are values")?;
        match (verb, value) {
            ('s' | 'v', Value::Text(text)) => out.push_str(text)?,
            ('d' | 'v', Value::Number(number)) => out.push_str(&number.to_string())?,
            ('q', Value::Text(text)) => out.push_str(&format!("{text:?}"))?,
            _ => return Err(format!("the verb %{verb} does not fit its value")),
        }
    }
    if values.next().is_some() {
        return Err("a format has fewer verbs than there are values".to_owned());
    }
    Ok(out.into_text())
}
