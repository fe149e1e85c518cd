//! Names and passwords of users that the engine makes.

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Error, Result, Timestamp};

use super::statement::plain;

/// What a name may be made of.
pub(super) struct Ingredients<'a> {
    pub(super) display_name: &'a str,
    pub(super) role: &'a str,
    pub(super) now: Timestamp,
}

/// A fresh name after a template, of at most `longest` characters.
///
/// # Errors
/// What is wrong with the template.
pub(super) fn generate(template: &str, longest: usize, of: &Ingredients<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (action, after) = after.split_once("}}").ok_or("template: unclosed action")?;
        out.push_str(&evaluate(action, of)?);
        rest = after;
    }
    out.push_str(rest);
    let name: String = out.chars().take(longest).collect();
    if plain(&name) {
        Ok(name)
    } else {
        Err("the name that the template makes is empty or has quotes or control characters".to_owned())
    }
}

/// A password as the peer makes them: 20 characters, with every class that password rules ask for.
pub(super) fn password() -> SecretString {
    loop {
        let mut text = random::base62(20);
        // A dash, not at either end: it satisfies rules that ask for a special character and needs no quoting.
        let at = 3 + usize::from(random::bytes::<1>()[0] % 14);
        text.replace_range(at..=at, "-");
        let has = |class: fn(&u8) -> bool| text.bytes().any(|b| class(&b));
        if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) {
            return SecretString::new(text);
        }
    }
}

/// As [`generate`], as the answer of a request.
pub(super) fn name(template: &str, longest: usize, of: &Ingredients<'_>) -> Result<String> {
    generate(template, longest, of)
        .map_err(|text| super::connection::DatabaseError(format!("unable to generate username: {text}")).answer())
}

/// Whether a template can be used.
///
/// # Errors
/// 400 with what is wrong.
pub(super) fn check(template: &str) -> Result<()> {
    let of = Ingredients { display_name: "token", role: "role", now: Timestamp::EPOCH };
    let fault = |text: String| {
        Error::invalid(format!("error creating database object: unable to initialize username template: {text}"))
    };
    generate(template, usize::MAX, &of).map(drop).map_err(fault)
}

/// One action: a value, then functions behind `|`, as in Go's templates.
fn evaluate(action: &str, of: &Ingredients<'_>) -> Result<String, String> {
    let mut value: Option<String> = None;
    for step in action.split('|') {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<usize>().ok()).filter(|n| *n <= 1000);
        let text =
            |value: Option<String>| value.or_else(|| words.get(1).map(|w| field(w, of)).transpose().ok().flatten());
        let wrong = || format!("function {:?} is used wrongly or not known", words.first().unwrap_or(&""));
        value = Some(match words.first().copied().ok_or("an empty action")? {
            "random" => random::base62(number(1).ok_or_else(wrong)?),
            "unix_time" => of.now.unix().to_string(),
            "unix_time_millis" => (of.now.nanos() / 1_000_000).to_string(),
            "uuid" => random::uuid(),
            "truncate" => value.ok_or_else(wrong)?.chars().take(number(1).ok_or_else(wrong)?).collect(),
            "lowercase" => text(value).ok_or_else(wrong)?.to_lowercase(),
            "uppercase" => text(value).ok_or_else(wrong)?.to_uppercase(),
            "replace" => {
                let unquoted = |at: usize| words.get(at).map(|w| w.trim_matches('"')).ok_or_else(wrong);
                value.ok_or_else(wrong)?.replace(unquoted(1)?, unquoted(2)?)
            }
            name => field(name, of)?,
        });
    }
    value.ok_or_else(|| "an empty action".to_owned())
}

fn field(name: &str, of: &Ingredients<'_>) -> Result<String, String> {
    match name {
        ".DisplayName" => Ok(tame(of.display_name)),
        ".RoleName" => Ok(tame(of.role)),
        literal if literal.len() >= 2 && literal.starts_with('"') && literal.ends_with('"') => {
            Ok(literal.trim_matches('"').to_owned())
        }
        other => Err(format!("{other:?} is not known")),
    }
}

/// A name for people as part of a database user's name: other characters than these could mean something to a database.
fn tame(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@') { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::database::kinds::Kind;

    const LONGEST: usize = 63;

    fn generate(template: &str, of: &Ingredients<'_>) -> Result<String, String> {
        super::generate(template, LONGEST, of)
    }

    fn of(display_name: &str) -> Ingredients<'_> {
        Ingredients { display_name, role: "readonly-long", now: Timestamp::from_unix(1_795_435_347) }
    }

    #[test]
    fn the_default_has_the_peers_form() {
        let template = Kind::of("postgresql-database-plugin").unwrap().username_template;
        let name = generate(template, &of("token")).unwrap();
        let (front, back) = (name.strip_prefix("v-token-readonly-").unwrap(), "-1795435347");
        assert_eq!(front.strip_suffix(back).unwrap().len(), 20, "{name}");
        assert!(generate("{{.DisplayName}}_{{random 5}}", &of("bob")).unwrap().starts_with("bob_"));
        assert_eq!(generate("{{.RoleName | truncate 4 | uppercase}}", &of("x")).unwrap(), "READ");
        for wrong in ["{{.Foo", "{{.Foo}}", "{{random}}", "{{}}", "x\"y"] {
            assert!(generate(wrong, &of("x")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sec_se03_display_names_and_templates_make_plain_names_only() {
        for display in ["o'brien", "x\"; DROP ROLE y; --", "a\\b\n", "%$`", "ö"] {
            for template in ["v-{{.DisplayName | truncate 8}}-{{unix_time}}", "{{.DisplayName}}-{{random 4}}"] {
                let name = generate(template, &of(display)).unwrap();
                assert!(plain(&name) && name.len() <= LONGEST && name.is_ascii(), "{name}");
            }
        }
    }

    #[test]
    fn passwords_have_twenty_characters_of_every_class() {
        for _ in 0..100 {
            let made = password();
            let text = made.expose();
            assert!(
                text.len() == 20 && plain(text) && text.contains('-') && !text.starts_with('-') && !text.ends_with('-')
            );
        }
    }
}
