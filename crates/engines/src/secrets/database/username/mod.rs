//! Generates the names and passwords of users.

mod functions;
mod pattern;
mod template;
mod timestamp;

use std::cell::RefCell;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Result, Timestamp};

pub(super) use self::pattern::NamePattern;
use self::pattern::Sample;
use self::template::Template;
use super::connection::DatabaseError;
use super::statement::is_plain;

/// The values that a template can use.
pub(super) struct TemplateData<'a> {
    display_name: &'a str,
    role: &'a str,
    now: Timestamp,
    /// Represents the variable parts when the template is evaluated for its pattern.
    sample: Option<Sample>,
    /// The random parts of the name.
    random_parts: RefCell<Vec<String>>,
}

/// The length of a random part that makes a name unique: at least 60 bits, case-insensitive.
const UNIQUE: usize = 12;
/// The same for a UUID, which has fewer bits per character.
const UNIQUE_UUID: usize = 24;

impl<'a> TemplateData<'a> {
    pub(super) fn new(display_name: &'a str, role: &'a str, now: Timestamp) -> Self {
        TemplateData { display_name, role, now, sample: None, random_parts: RefCell::default() }
    }

    fn field(&self, name: &str) -> Option<String> {
        let text = match name {
            "DisplayName" => self.display_name,
            "RoleName" => self.role,
            _ => return None,
        };
        Some(self.sample.as_ref().map_or_else(|| sanitize(text), |sample| sample.anything()))
    }

    fn random(&self, length: usize) -> String {
        self.sample
            .as_ref()
            .map_or_else(|| self.record_random(random::base62(length), UNIQUE), |s| s.alphanumeric(length))
    }

    fn uuid(&self) -> String {
        self.sample.as_ref().map_or_else(|| self.record_random(random::uuid(), UNIQUE_UUID), Sample::uuid)
    }

    /// Records the part that must be in a name to make it unique.
    fn record_random(&self, random_parts: String, unique: usize) -> String {
        self.random_parts.borrow_mut().extend(random_parts.get(..unique).map(str::to_ascii_lowercase));
        random_parts
    }

    /// Whether the name may be generated again, or may belong to another user, because too little of it is random.
    /// Checks the name itself, because a template may truncate or change the random parts.
    pub(super) fn may_repeat(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        !self.random_parts.borrow().iter().any(|random_parts| name.contains(random_parts.as_str()))
    }

    /// Whether the name may be generated again after its user was dropped: neither random parts nor the time make it
    /// unique.
    pub(super) fn may_recur(&self, name: &str) -> bool {
        self.may_repeat(name) && !name.contains(&self.now.unix().to_string())
    }
}

/// Generates a name from a template, of at most `max_length` characters.
///
/// # Errors
/// When the template or the resulting name is invalid.
pub(super) fn generate(template: &str, max_length: usize, of: &TemplateData<'_>) -> Result<String, String> {
    let name: String = fill(template, of)?.chars().take(max_length).collect();
    if is_plain(&name) {
        Ok(name)
    } else {
        Err("the result of the template is empty or has quotes or control characters".to_owned())
    }
}

/// The result of a template, without checks.
///
/// # Errors
/// When the template is invalid.
pub(super) fn fill(template: &str, of: &TemplateData<'_>) -> Result<String, String> {
    let parsed = Template::parse(template).map_err(|e| format!("unable to parse template: {e}"))?;
    parsed.fill(of).map_err(|e| format!("unable to apply template: {e}"))
}

/// Generates a password with a policy, or as OpenBao does without one.
///
/// # Errors
/// 500 when the policy does not exist, as in OpenBao.
pub(super) async fn password(cx: &mut Cx, policy: &str) -> Result<SecretString> {
    if policy.is_empty() {
        return Ok(default_password());
    }
    let failed =
        |e: Error| DatabaseError::new(format!("failed to generate password: {}", e.public())).internal().caused_by(e);
    cx.password(policy).await.map_err(failed)
}

/// 20 characters with every class that password rules require.
pub(super) fn default_password() -> SecretString {
    loop {
        let mut text = random::base62(20);
        // A dash, not at either end: it is the special character that rules require, and needs no quoting.
        let at = 1 + random::below(18);
        text.replace_range(at..=at, "-");
        let has = |class: fn(&u8) -> bool| text.bytes().any(|b| class(&b));
        if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) {
            return SecretString::new(text);
        }
    }
}

/// [`generate`] with an error for the client.
pub(super) fn name(template: &str, max_length: usize, of: &TemplateData<'_>) -> Result<String> {
    generate(template, max_length, of)
        .map_err(|text| DatabaseError::new(format!("unable to generate username: {text}")).bad_request())
}

/// Checks a template.
///
/// # Errors
/// 400 with the error of the template.
pub(super) fn check(template: &str) -> Result<()> {
    let of = TemplateData::new("token", "role", Timestamp::EPOCH);
    let wrong = |text: String| {
        let which = if text.starts_with("unable to parse") {
            "unable to initialize username template"
        } else {
            "invalid username template"
        };
        Error::invalid(format!("error creating database object: {which}: {text}"))
    };
    generate(template, usize::MAX, &of).map(drop).map_err(wrong)
}

/// Replaces the characters of a display name that could have a meaning for a database.
fn sanitize(text: &str) -> String {
    text.chars().map(|c| if is_safe(c) { c } else { '_' }).collect()
}

/// Whether a character has no special meaning in any database or in the subject of a certificate.
pub(super) fn is_safe(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}";
    const LONGEST: usize = 63;

    fn of(display_name: &str) -> TemplateData<'_> {
        TemplateData::new(display_name, "readonly-long", Timestamp::from_unix(1_795_435_347))
    }

    fn made(template: &str) -> String {
        generate(template, LONGEST, &of("token")).unwrap_or_else(|e| panic!("{template}: {e}"))
    }

    #[test]
    fn the_default_template_is_that_of_openbao() {
        let name = made(DEFAULT);
        let (front, back) = (name.strip_prefix("v-token-readonly-").unwrap(), "-1795435347");
        assert_eq!(front.strip_suffix(back).unwrap().len(), 20, "{name}");
    }

    // Each with OpenBao's result.
    #[test]
    fn templates_are_evaluated_as_in_go() {
        for (template, expected) in [
            ("{{.RoleName | truncate 4 | uppercase}}", "READ"),
            ("{{truncate 5 .RoleName}}", "reado"),
            ("{{printf \"%s-%s-%d%%\" .DisplayName (.RoleName | truncate 3) 7}}", "token-rea-7%"),
            ("{{timestamp \"2006\"}}", "2026"),
            ("{{.RoleName | replace \"-\" \"_\"}}", "readonly_long"),
            ("{{.DisplayName | truncate_sha256 10}}", "token"),
            ("{{.RoleName | sha256 | truncate 8}}", "d74b249e"),
            ("{{.DisplayName | base64}}", "dG9rZW4="),
            ("{{unix_time | truncate 3}}", "179"),
            ("{{unix_time_millis}}", "1795435347000"),
            ("{{- `a` -}}  b{{/* said aside */}}c", "abc"),
            ("x {{\"y\"}} z", "x y z"),
            ("{{lowercase \"AB\"}}", "ab"),
        ] {
            assert_eq!(made(template), expected, "{template}");
        }
        assert_eq!(made("{{.RoleName | truncate_sha256 10}}"), "re95880464");
        assert_eq!(made("{{uuid | uppercase}}").len(), 36);
        assert_eq!(made("{{random 80}}").len(), LONGEST);
    }

    #[test]
    fn invalid_templates_have_the_errors_of_go() {
        for (template, expected) in [
            ("{{random 5", "unable to parse template: template: template:1: unclosed action"),
            ("{{}}", "unable to parse template: template: template:1: missing value for command"),
            ("a\n{{foo}}", "unable to parse template: template: template:2: function \"foo\" not defined"),
            (
                "{{random}}",
                "template: template:1:2: executing \"template\" at <random>: wrong number of args for random: want 1 got 0",
            ),
            (
                "{{.Foo}}",
                "template: template:1:2: executing \"template\" at <.Foo>: can't evaluate field Foo in type dbplugin.UsernameMetadata",
            ),
            (
                "{{random \"x\"}}",
                "template: template:1:9: executing \"template\" at <\"x\">: expected integer; found \"x\"",
            ),
            (
                "{{.DisplayName | truncate}}",
                "template: template:1:17: executing \"template\" at <truncate>: wrong number of args for truncate: want 2 got 1",
            ),
            (
                "{{.RoleName | truncate 0}}",
                "template: template:1:14: executing \"template\" at <truncate 0>: error calling truncate: max length must be > 0 but was 0",
            ),
            (
                "{{.DisplayName | truncate_sha256 3}}",
                "at <truncate_sha256 3>: error calling truncate_sha256: max length must be > 8 but was 3",
            ),
            ("{{.RoleName | replace \"a\"}}", "at <replace>: wrong number of args for replace: want 3 got 2"),
            ("{{random -1}}", "at <random -1>: error calling random: "),
            ("{{if .RoleName}}a{{end}}", "if is not supported"),
            ("{{printf \"%d\" .RoleName}}", "does not fit"),
            ("{{(random 3}}", "unclosed left paren"),
            ("{{\"x}}", "unclosed action"),
            ("x\"y", "has quotes"),
            ("{{random 0}}", "is empty"),
        ] {
            let error = generate(template, LONGEST, &of("x")).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }

    #[test]
    fn sec_kf04_templates_have_limits_of_length_depth_steps_and_values() {
        let nested = |depth: usize| format!("v-{{{{{}.RoleName{}}}}}", "(".repeat(depth), ")".repeat(depth));
        let steps = |count: usize| format!("{{{{ .RoleName{} }}}}", " | uppercase".repeat(count));
        assert!(generate(&nested(16), LONGEST, &of("x")).is_ok());
        assert!(generate(&steps(31), LONGEST, &of("x")).is_ok());
        let growing = format!("{{{{ .RoleName{} }}}}", " | replace \"e\" \"eeeeeeeeee\"".repeat(11));
        let inserted = format!("{{{{ random 1000 | replace \"\" {:?} }}}}", "x".repeat(3000));
        let printed = format!("{{{{ printf \"{}\"{} }}}}", "%s".repeat(200), " (random 1000)".repeat(200));
        for (template, wrong) in [
            (nested(17), "parentheses of a template nest at most 16 deep"),
            (nested(2000), "parentheses of a template nest at most 16 deep"),
            (nested(5000), "a template has at most 4096 bytes"),
            (nested(500_000), "a template has at most 4096 bytes"),
            ("{{".to_owned() + &"(".repeat(4000), "unclosed action"),
            (steps(32), "a pipeline of a template has at most 32 steps"),
            (steps(90_000), "a template has at most 4096 bytes"),
            (growing, "a value of a template has at most 4096 characters"),
            (inserted, "a value of a template has at most 4096 characters"),
            (printed, "a value of a template has at most 4096 characters"),
            ("{{random 1000}}".repeat(200), "a value of a template has at most 4096 characters"),
        ] {
            for error in
                [generate(&template, LONGEST, &of("x")).unwrap_err(), check(&template).unwrap_err().public().to_owned()]
            {
                assert!(error.contains(wrong), "{}: {error}", &template[..40]);
            }
            assert!(NamePattern::of(&template, LONGEST).is_err());
        }
    }

    #[test]
    fn sec_se03_generated_names_have_only_safe_characters() {
        for display in ["o'brien", "x\"; DROP ROLE y; --", "a\\b\n", "%$`", "ö"] {
            for template in [DEFAULT, "{{.DisplayName}}-{{random 4}}"] {
                let name = generate(template, LONGEST, &of(display)).unwrap();
                assert!(is_plain(&name) && name.len() <= LONGEST && name.is_ascii(), "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_unique_if_enough_of_it_is_random() {
        for (template, max_length, may_repeat) in [
            (DEFAULT, 63, false),
            ("V_{{random 20 | uppercase}}", 63, false),
            ("{{uuid}}", 63, false),
            ("{{uuid}}", 20, true),
            ("v-{{.RoleName | truncate 4}}-{{random 20}}", 16, true),
            ("{{random 4}}{{random 4}}{{random 4}}", 63, true),
            ("{{random 20 | sha256}}", 63, true),
            ("app-{{.RoleName | sha256}}", 63, true),
            ("{{unix_time_millis}}", 63, true),
            ("fixed", 63, true),
        ] {
            let ingredients = of("token");
            let name = generate(template, max_length, &ingredients).unwrap();
            assert_eq!(ingredients.may_repeat(&name), may_repeat, "{template}: {name}");
            assert_eq!(ingredients.may_recur(&name), may_repeat && !template.contains("time"), "{template}: {name}");
        }
    }

    #[test]
    fn passwords_have_twenty_characters_of_every_class() {
        for _ in 0..100 {
            let made = default_password();
            let text = made.expose();
            assert!(
                text.len() == 20
                    && is_plain(text)
                    && text.contains('-')
                    && !text.starts_with('-')
                    && !text.ends_with('-')
            );
        }
    }
}
