//! The functions of templates of users' names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash;
use keepfast_framework::text_limits::{self, TemplateValue, check_value};

use super::Ingredients;
use super::template::Value;

/// The names of all of them.
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

/// The longest text that `random` makes.
const MOST: i64 = 1000;
/// What `truncate_sha256` puts in place of what it takes away: so many hexadecimal digits of its hash.
const DIGEST: usize = 8;

/// How many arguments a function takes; `printf` takes more.
fn count(name: &str) -> usize {
    match name {
        "unix_time" | "unix_time_millis" | "uuid" => 0,
        "truncate" | "truncate_sha256" => 2,
        "replace" => 3,
        _ => 1,
    }
}

/// What to say of a call with this many arguments, if it is not the right number.
pub(super) fn wrong_count(name: &str, given: usize) -> Option<String> {
    let wanted = count(name);
    match name {
        "printf" if given == 0 => Some(format!("wrong number of args for {name}: want at least {wanted} got {given}")),
        "printf" => None,
        _ => (given != wanted).then(|| format!("wrong number of args for {name}: want {wanted} got {given}")),
    }
}

/// The type that an argument should have, if it has another.
pub(super) fn wrong_type(name: &str, at: usize, value: &Value) -> Option<&'static str> {
    match (name, at, value) {
        ("printf", 1.., _) | ("random" | "truncate" | "truncate_sha256", 0, Value::Number(_)) => None,
        ("random" | "truncate" | "truncate_sha256", 0, Value::Text(_)) => Some("integer"),
        (_, _, Value::Number(_)) => Some("string"),
        (_, _, Value::Text(_)) => None,
    }
}

/// Calls a function whose arguments have the right number and types.
///
/// # Errors
/// What the function says, and that its result is too long.
pub(super) fn call(name: &str, arguments: Vec<Value>, of: &Ingredients<'_>) -> Result<Value, String> {
    if let Some(stand_in) = of.sample.as_ref().and_then(|sample| sample.stand_in(name)) {
        return Ok(Value::Text(stand_in));
    }
    let mut numbers = arguments.iter().filter_map(|v| if let Value::Number(n) = v { Some(*n) } else { None });
    let number = numbers.next().unwrap_or_default();
    let texts: Vec<&str> =
        arguments.iter().filter_map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect();
    let text = texts.last().copied().unwrap_or_default();
    let result = match name {
        "random" => of.random(usize::try_from(number).ok().filter(|_| number <= MOST).ok_or("not between 0 and 1000")?),
        "truncate" => {
            let most = usize::try_from(number).ok().filter(|n| *n > 0);
            let most = most.ok_or_else(|| format!("max length must be > 0 but was {number}"))?;
            of.sample.as_ref().map_or_else(|| text.chars().take(most).collect(), |sample| sample.cut(text, most))
        }
        "truncate_sha256" => {
            let most = usize::try_from(number).ok().filter(|n| *n > DIGEST);
            let most = most.ok_or_else(|| format!("max length must be > {DIGEST} but was {number}"))?;
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
    let (begin, rest) = text.split_at(text.char_indices().nth(most - DIGEST).map_or(text.len(), |(at, _)| at));
    let digest = hex::encode(hash::sha256(rest.as_bytes()));
    format!("{begin}{}", &digest[..DIGEST])
}

/// `%s`, `%v`, `%d`, `%q` and `%%`; what Go answers to a wrong use would be part of a name, so it is an error here.
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
