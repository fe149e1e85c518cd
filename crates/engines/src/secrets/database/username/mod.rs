//! Names and passwords of users that the engine makes.

mod form;
mod functions;
mod template;
mod timestamp;

use std::cell::RefCell;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Cx, Error, Result, Timestamp};

pub(super) use self::form::Form;
use self::form::Sample;
use self::template::Template;
use super::connection::DatabaseError;
use super::statement::plain;

/// What a name may be made of.
pub(super) struct Ingredients<'a> {
    display_name: &'a str,
    role: &'a str,
    now: Timestamp,
    /// Stands for everything that varies when it is the form of names that is wanted.
    sample: Option<Sample>,
    /// What was drawn by chance for the name.
    drawn: RefCell<Vec<String>>,
}

/// How much of what was drawn by chance a name must have so that no other gets it: 60 bits and more, whatever the case.
const UNIQUE: usize = 12;
/// The same of a UUID, which has less in each character.
const UNIQUE_UUID: usize = 24;

impl<'a> Ingredients<'a> {
    pub(super) fn new(display_name: &'a str, role: &'a str, now: Timestamp) -> Self {
        Ingredients { display_name, role, now, sample: None, drawn: RefCell::default() }
    }

    fn field(&self, name: &str) -> Option<String> {
        let text = match name {
            "DisplayName" => self.display_name,
            "RoleName" => self.role,
            _ => return None,
        };
        Some(self.sample.as_ref().map_or_else(|| tame(text), |sample| sample.anything()))
    }

    fn random(&self, length: usize) -> String {
        self.sample.as_ref().map_or_else(|| self.draw(random::base62(length), UNIQUE), |s| s.alphanumeric(length))
    }

    fn uuid(&self) -> String {
        self.sample.as_ref().map_or_else(|| self.draw(random::uuid(), UNIQUE_UUID), Sample::uuid)
    }

    /// Notes what has to stand in a name that is to be its own by this.
    fn draw(&self, drawn: String, unique: usize) -> String {
        self.drawn.borrow_mut().extend(drawn.get(..unique).map(str::to_ascii_lowercase));
        drawn
    }

    /// Whether a name that was made of these may be made again, or may be somebody's: too little of it is chance. That is
    /// seen in the name itself, because a template may cut off or change what was drawn.
    pub(super) fn may_repeat(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        !self.drawn.borrow().iter().any(|drawn| name.contains(drawn.as_str()))
    }

    /// Whether a name that was made of these may be made again once its user is gone: the time does not make it another either.
    pub(super) fn may_recur(&self, name: &str) -> bool {
        self.may_repeat(name) && !name.contains(&self.now.unix().to_string())
    }
}

/// A fresh name after a template, of at most `longest` characters.
///
/// # Errors
/// What is wrong with the template or with the name that it makes.
pub(super) fn generate(template: &str, longest: usize, of: &Ingredients<'_>) -> Result<String, String> {
    let name: String = fill(template, of)?.chars().take(longest).collect();
    if plain(&name) {
        Ok(name)
    } else {
        Err("the name that the template makes is empty or has quotes or control characters".to_owned())
    }
}

/// What a template makes, whatever that is.
///
/// # Errors
/// What is wrong with the template.
pub(super) fn fill(template: &str, of: &Ingredients<'_>) -> Result<String, String> {
    let parsed = Template::parse(template).map_err(|e| format!("unable to parse template: {e}"))?;
    parsed.fill(of).map_err(|e| format!("unable to apply template: {e}"))
}

/// A password: by a policy, or as the peer makes them without one.
///
/// # Errors
/// 500 when there is no such policy, as the peer answers.
pub(super) async fn password(cx: &mut Cx, policy: &str) -> Result<SecretString> {
    if policy.is_empty() {
        return Ok(default_password());
    }
    let failed =
        |e: Error| DatabaseError::new(format!("failed to generate password: {}", e.public())).answer().caused_by(e);
    cx.password(policy).await.map_err(failed)
}

/// 20 characters, with every class that password rules ask for.
pub(super) fn default_password() -> SecretString {
    loop {
        let mut text = random::base62(20);
        // A dash, not at either end: it satisfies rules that ask for a special character and needs no quoting.
        let at = 1 + random::below(18);
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
        .map_err(|text| DatabaseError::new(format!("unable to generate username: {text}")).refusal())
}

/// Whether a template can be used.
///
/// # Errors
/// 400 with what is wrong.
pub(super) fn check(template: &str) -> Result<()> {
    let of = Ingredients::new("token", "role", Timestamp::EPOCH);
    let fault = |text: String| {
        let which = if text.starts_with("unable to parse") {
            "unable to initialize username template"
        } else {
            "invalid username template"
        };
        Error::invalid(format!("error creating database object: {which}: {text}"))
    };
    generate(template, usize::MAX, &of).map(drop).map_err(fault)
}

/// A name for people as part of a database user's name: other characters than these could mean something to a database.
fn tame(text: &str) -> String {
    text.chars().map(|c| if is_tame(c) { c } else { '_' }).collect()
}

/// Whether a character means nothing to any database, nor in the subject of a certificate.
pub(super) fn is_tame(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}";
    const LONGEST: usize = 63;

    fn of(display_name: &str) -> Ingredients<'_> {
        Ingredients::new(display_name, "readonly-long", Timestamp::from_unix(1_795_435_347))
    }

    fn made(template: &str) -> String {
        generate(template, LONGEST, &of("token")).unwrap_or_else(|e| panic!("{template}: {e}"))
    }

    #[test]
    fn the_default_has_the_peers_form() {
        let name = made(DEFAULT);
        let (front, back) = (name.strip_prefix("v-token-readonly-").unwrap(), "-1795435347");
        assert_eq!(front.strip_suffix(back).unwrap().len(), 20, "{name}");
    }

    // Each as the peer answers it.
    #[test]
    fn templates_are_gos() {
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
    fn wrong_templates_are_told_of_in_gos_words() {
        for (template, told) in [
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
            assert!(error.contains(told), "{template}: {error}");
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
        for (template, fault) in [
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
                assert!(error.contains(fault), "{}: {error}", &template[..40]);
            }
            assert!(Form::of(&template, LONGEST).is_err());
        }
    }

    #[test]
    fn sec_se03_display_names_and_templates_make_plain_names_only() {
        for display in ["o'brien", "x\"; DROP ROLE y; --", "a\\b\n", "%$`", "ö"] {
            for template in [DEFAULT, "{{.DisplayName}}-{{random 4}}"] {
                let name = generate(template, LONGEST, &of(display)).unwrap();
                assert!(plain(&name) && name.len() <= LONGEST && name.is_ascii(), "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_its_own_when_enough_of_it_is_chance() {
        for (template, longest, may_repeat) in [
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
            let name = generate(template, longest, &ingredients).unwrap();
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
                text.len() == 20 && plain(text) && text.contains('-') && !text.starts_with('-') && !text.ends_with('-')
            );
        }
    }
}
