//! Templates of claims: JSON with expressions such as `{{identity.entity.name}}`, which become JSON values.
//!
//! A template is checked with a subject that has a value for everything, so a template that is accepted is JSON for
//! every subject: each value takes the place of one whole JSON value.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::{Quoted, go_duration};
use keepfast_framework::{Error, Result, Timestamp};
use serde_json::{Map, Value, json};

use super::jws::Claims;
use crate::identity::effective::Effective;

/// The longest template, in bytes.
const TEMPLATE_BYTES: usize = 16 << 10;
/// The longest text of the rendered claims of a token, in bytes.
pub(super) const RENDERED_BYTES: usize = 64 << 10;
/// The claims that only the server sets.
const RESTRICTED: [&str; 10] =
    ["iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "auth_time", "at_hash", "c_hash"];
const NO_VALUE: &str = "no value could be found for one of the template directives";

/// The source of the values of a template.
pub(super) enum Source<'a> {
    /// An entity with its groups.
    Subject(&'a Effective),
    /// No entity: its values are empty.
    Nobody,
    /// A value for everything, to check a template.
    Sample,
}

/// The text of a template from a request: JSON, or JSON in base64.
pub(super) fn decoded(text: String) -> String {
    match STANDARD.decode(&text).map(String::from_utf8) {
        Ok(Ok(decoded)) => decoded,
        _ => text,
    }
}

/// Checks a template that is written. Returns the names of its claims.
///
/// # Errors
/// 400 when it is no JSON object with known expressions, or has a claim that only the server sets.
pub(super) fn check(template: &str) -> Result<Vec<String>> {
    if template.is_empty() {
        return Ok(Vec::new());
    }
    if template.len() > TEMPLATE_BYTES {
        return Err(Error::invalid(format!("a template has at most {TEMPLATE_BYTES} bytes")));
    }
    let mut names = Vec::new();
    // A time is a part of a number in `1{{time.now}}` and `1e{{time.now}}`: the second one is no number at all times.
    for unix in [i32::MAX.into(), 0] {
        let mut left = RENDERED_BYTES;
        let text = substituted(template, &Source::Sample, Timestamp::from_unix(unix), &mut left)
            .map_err(|why| Error::invalid(format!("error parsing template: {why}")))?;
        let claims: Claims = serde_json::from_str(&text)
            .map_err(|_| Error::invalid("error parsing template JSON: the template must be a JSON object"))?;
        check_restricted(&claims).map_err(Error::invalid)?;
        names = claims.into_keys().collect();
    }
    Ok(names)
}

fn check_restricted(claims: &Claims) -> Result<(), String> {
    let Some(restricted) = claims.keys().find(|name| RESTRICTED.contains(&name.as_str())) else { return Ok(()) };
    Err(format!("top level key {} not allowed. Restricted keys: {}", Quoted(restricted), RESTRICTED.join(", ")))
}

/// The claims of a stored template; none for an empty one. Their length is taken from `left`, which starts at
/// [`RENDERED_BYTES`] for each token.
///
/// # Errors
/// The text of the error when they are too long, or a value of the subject would set a claim that only the server sets.
pub(super) fn render(
    template: &str,
    source: &Source<'_>,
    now: Timestamp,
    left: &mut usize,
) -> Result<Claims, String> {
    if template.is_empty() {
        return Ok(Claims::new());
    }
    let text = substituted(template, source, now, left)?;
    let claims: Claims = serde_json::from_str(&text).map_err(|_| "the claims of a template are no JSON object")?;
    check_restricted(&claims)?;
    Ok(claims)
}

fn substituted(template: &str, source: &Source<'_>, now: Timestamp, left: &mut usize) -> Result<String, String> {
    let (mut out, mut rest) = (String::with_capacity(template.len()), template);
    let mut push = |out: &mut String, part: &str| {
        let less = left.checked_sub(part.len());
        *left = less.ok_or_else(|| format!("the claims of a token have at most {RENDERED_BYTES} bytes"))?;
        out.push_str(part);
        Ok::<_, String>(())
    };
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.split_once("}}").ok_or("unbalanced templating characters")?;
        push(&mut out, before)?;
        push(&mut out, &value(expression.trim(), source, now)?.to_string())?;
        rest = after;
    }
    push(&mut out, rest)?;
    Ok(out)
}

/// The value of an expression.
fn value(expression: &str, source: &Source<'_>, now: Timestamp) -> Result<Value, String> {
    if let Some(selector) = expression.strip_prefix("time.") {
        return time(selector, now).map(Value::from);
    }
    if expression.starts_with("identity.groups.") {
        return Err("string contains groups template directives but no groups were provided".to_owned());
    }
    let selector = expression.strip_prefix("identity.entity.").ok_or(NO_VALUE)?;
    let parts: Vec<&str> = selector.splitn(4, '.').collect();
    let entity = match source {
        Source::Subject(effective) => Some(&effective.entity),
        Source::Nobody | Source::Sample => None,
    };
    let sample = if matches!(source, Source::Sample) { "sample" } else { "" };
    Ok(match parts.as_slice() {
        ["id"] => json!(entity.map_or(sample, |entity| &entity.id)),
        ["name"] => json!(entity.map_or(sample, |entity| &entity.name)),
        ["metadata"] => pairs(entity.map(|entity| &entity.metadata), sample),
        ["metadata", ..] => {
            let name = &selector["metadata.".len()..];
            of_pairs(entity.map(|entity| &entity.metadata), name, sample)
        }
        ["groups", "names"] => groups(source, |group| &group.name),
        ["groups", "ids"] => groups(source, |group| &group.id),
        ["aliases", _] => return Err("invalid alias selector".to_owned()),
        ["aliases", accessor, of_alias @ ..] => {
            let alias = entity.and_then(|entity| entity.aliases.iter().find(|alias| alias.mount_accessor == *accessor));
            match of_alias {
                ["id"] => json!(alias.map_or(sample, |alias| &alias.id)),
                ["name"] => json!(alias.map_or(sample, |alias| &alias.name)),
                ["metadata"] => pairs(alias.map(|alias| &alias.metadata), sample),
                ["custom_metadata"] => pairs(alias.map(|alias| &alias.custom_metadata), sample),
                ["metadata", name] => of_pairs(alias.map(|alias| &alias.metadata), name, sample),
                ["custom_metadata", name] => of_pairs(alias.map(|alias| &alias.custom_metadata), name, sample),
                _ => return Err(NO_VALUE.to_owned()),
            }
        }
        _ => return Err(NO_VALUE.to_owned()),
    })
}

fn pairs(found: Option<&BTreeMap<String, String>>, sample: &str) -> Value {
    match found {
        Some(pairs) => json!(pairs),
        None if sample.is_empty() => Value::Object(Map::new()),
        None => Value::Object(Map::from_iter([(sample.to_owned(), json!(sample))])),
    }
}

fn of_pairs(found: Option<&BTreeMap<String, String>>, name: &str, sample: &str) -> Value {
    json!(found.and_then(|pairs| pairs.get(name)).map_or(sample, String::as_str))
}

fn groups(source: &Source<'_>, of: impl Fn(&crate::identity::record::Group) -> &String) -> Value {
    match source {
        Source::Subject(effective) => {
            let mut all: Vec<&String> = effective.groups().map(|group| of(group)).collect();
            all.sort();
            json!(all)
        }
        Source::Nobody => json!([]),
        Source::Sample => json!(["sample"]),
    }
}

/// Seconds since 1970: `now`, `now.plus.<duration>` or `now.minus.<duration>`.
fn time(selector: &str, now: Timestamp) -> Result<i64, String> {
    let (sign, duration) = match selector.strip_prefix("now") {
        Some("") => return Ok(now.unix()),
        Some(rest) => match (rest.strip_prefix(".plus."), rest.strip_prefix(".minus.")) {
            (Some(duration), _) => (1, duration),
            (_, Some(duration)) => (-1, duration),
            _ => return Err(format!("invalid time selector {}", Quoted(selector))),
        },
        None => return Err(format!("invalid time selector {}", Quoted(selector))),
    };
    let seconds = match duration.parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let nanos = go_duration(duration).map_err(|why| format!("invalid duration: {why}"))?;
            i64::try_from(nanos / 1_000_000_000).map_err(|_| "invalid duration".to_owned())?
        }
    };
    Ok(now.unix().saturating_add(seconds.saturating_mul(sign)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(template: &str) -> String {
        check(template).unwrap_err().public().to_owned()
    }

    fn rendered(template: &str, most: usize, now: Timestamp) -> Result<Claims, String> {
        let mut left = most;
        render(template, &Source::Nobody, now, &mut left)
    }

    #[test]
    fn a_template_is_checked_for_every_subject() {
        let names = check(r#"{"n":{{identity.entity.name}},"g":{{ identity.entity.groups.names }},"m":{"x":{}}}"#);
        assert_eq!(names.unwrap(), ["g", "m", "n"]);
        assert!(check("").unwrap().is_empty());
        // With no groups this would be JSON.
        for bad in [r#"{"v":"{{identity.entity.groups.names}}"}"#, r#"{"v":"{{identity.entity.name}}"}"#, "[1]", "x"] {
            assert!(refused(bad).starts_with("error parsing template JSON"), "{bad}");
        }
        assert_eq!(refused("{{"), "error parsing template: unbalanced templating characters");
        assert_eq!(refused(r#"{"a":{{foo}}}"#), format!("error parsing template: {NO_VALUE}"));
        assert_eq!(refused(r#"{"a":{{time.x}}}"#), "error parsing template: invalid time selector \"x\"");
        assert_eq!(
            refused(r#"{"a":{{time.now.plus.x}}}"#),
            "error parsing template: invalid duration: time: invalid duration \"x\""
        );
        assert_eq!(refused(r#"{"a":{{identity.entity.aliases.x}}}"#), "error parsing template: invalid alias selector");
        assert!(refused(&format!("{{\"a\":\"{}\"}}", "x".repeat(TEMPLATE_BYTES))).contains("at most"));
    }

    #[test]
    fn sec_claims_of_the_server_cannot_be_set_by_a_template() {
        for name in RESTRICTED {
            let text = refused(&format!("{{\"{name}\":1}}"));
            assert!(text.starts_with(&format!("top level key \"{name}\" not allowed. Restricted keys: iat, aud")));
            assert!(check(&format!("{{\"a\":{{\"{name}\":1}}}}")).is_ok(), "below the top level it is another claim");
        }
        // The name of a claim from a value: the sample is no restricted name.
        let template = r#"{ {{identity.entity.name}} :1}"#;
        assert!(check(template).is_ok());
        assert!(rendered(template, RENDERED_BYTES, Timestamp::from_unix(0)).is_ok());
    }

    #[test]
    fn times_are_numbers_of_seconds() {
        let now = Timestamp::from_unix(1000);
        let of =
            |text: &str| rendered(&format!("{{\"v\":{{{{time.{text}}}}}}}"), RENDERED_BYTES, now).unwrap()["v"].clone();
        assert_eq!((of("now"), of("now.plus.1m"), of("now.minus.30")), (json!(1000), json!(1060), json!(970)));
    }

    #[test]
    fn a_time_that_is_a_part_of_a_number_is_checked_at_two_times() {
        for bad in [r#"{"a":1e{{time.now}}}"#, r#"{"a":{{time.now}}0}"#, r#"{"a":1e{{time.now.minus.1000h}}}"#] {
            assert!(refused(bad).starts_with("error parsing template JSON"), "{bad}");
        }
        let good = r#"{"a":-{{time.now}},"b":"at {{time.now}}"}"#;
        assert!(check(good).is_ok());
        assert!(rendered(good, RENDERED_BYTES, Timestamp::from_unix(1_800_000_000)).is_ok());
    }

    #[test]
    fn the_claims_of_a_token_have_one_bound() {
        let template = r#"{"a":{{time.now}},"b":{{time.now}}}"#;
        let now = Timestamp::from_unix(1000);
        let length = r#"{"a":1000,"b":1000}"#.len();
        let mut left = 2 * length;
        for expected in [length, 0] {
            render(template, &Source::Nobody, now, &mut left).unwrap();
            assert_eq!(left, expected);
        }
        let text = "the claims of a token have at most 65536 bytes";
        assert_eq!(render(template, &Source::Nobody, now, &mut left).unwrap_err(), text);
        assert_eq!(rendered(template, length - 1, now).unwrap_err(), text);
        assert!(rendered(template, length, now).is_ok());
    }

    #[test]
    fn base64_is_decoded_and_other_text_is_not() {
        assert_eq!(decoded("eyJhIjoxfQ==".to_owned()), "{\"a\":1}");
        assert_eq!(decoded("{}".to_owned()), "{}");
        assert_eq!(decoded("null".to_owned()), "null");
    }
}
