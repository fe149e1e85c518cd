//! The pattern of the names that a template generates, which tells the users of Keepfast from others.

use std::cell::RefCell;

use super::template::Template;
use super::{TemplateData, is_safe};
use keepfast_framework::Timestamp;

/// Characters of private use represent the variable parts.
const ALPHANUMERIC: char = '\u{e000}';
const HEXADECIMAL: char = '\u{e001}';
const ANYTHING: char = '\u{e002}';
const DIGIT: char = '\u{e003}';

/// The minimum number of random characters in a name; with fewer, another user could have the name by chance.
const MIN_RANDOM: usize = 8;
/// The minimum length of the constant prefix; with a shorter one, the query would return nearly all users of a
/// database.
const MIN_PREFIX: usize = 2;

/// The results of a template's functions when it is evaluated for its pattern.
#[derive(Default)]
pub(super) struct Sample {
    cuts: RefCell<Vec<usize>>,
}

impl Sample {
    pub(super) fn anything(&self) -> String {
        ANYTHING.to_string()
    }

    pub(super) fn alphanumeric(&self, length: usize) -> String {
        ALPHANUMERIC.to_string().repeat(length)
    }

    pub(super) fn uuid(&self) -> String {
        let groups = [8, 4, 4, 4, 12].map(|n| HEXADECIMAL.to_string().repeat(n));
        groups.join("-")
    }

    /// The pattern of a function's result, if it depends on more than the template.
    pub(super) fn function_pattern(&self, function: &str) -> Option<String> {
        match function {
            "sha256" => Some(HEXADECIMAL.to_string().repeat(64)),
            "base64" | "timestamp" => Some(self.anything()),
            "unix_time" => Some(DIGIT.to_string().repeat(10)),
            "unix_time_millis" => Some(DIGIT.to_string().repeat(13)),
            _ => None,
        }
    }

    /// Keeps the text, as its length is not known yet, and records where a name may be truncated.
    pub(super) fn cut(&self, text: &str, most: usize) -> String {
        self.cuts.borrow_mut().push(most);
        text.to_owned()
    }
}

/// The pattern of all names that one template generates.
#[derive(Debug)]
pub(in super::super) struct NamePattern {
    pieces: Vec<char>,
    /// Lengths at which a name may be truncated.
    cuts: Vec<usize>,
}

impl NamePattern {
    /// The pattern of a template's names of at most `max_length` characters.
    ///
    /// # Errors
    /// When the pattern does not distinguish these users from others.
    pub(in super::super) fn of(template: &str, max_length: usize) -> Result<Self, String> {
        let of = TemplateData { sample: Some(Sample::default()), ..TemplateData::new("", "", Timestamp::EPOCH) };
        let pieces: Vec<char> = Template::parse(template)?.fill(&of)?.chars().collect();
        let mut cuts = of.sample.map(|s| s.cuts.into_inner()).unwrap_or_default();
        cuts.push(max_length);
        let pattern = NamePattern { pieces, cuts };
        if pattern.prefix().len() < MIN_PREFIX {
            return Err("the names of this connection's users have no constant prefix: its username_template begins with a variable part".to_owned());
        }
        if pattern.pieces.iter().filter(|c| matches!(**c, ALPHANUMERIC | HEXADECIMAL)).count() < MIN_RANDOM {
            return Err("the names of this connection's users are not distinguishable from others: its username_template has fewer than 8 random characters".to_owned());
        }
        Ok(pattern)
    }

    /// The constant prefix of all names.
    pub(in super::super) fn prefix(&self) -> String {
        self.pieces.iter().take_while(|c| !is_variable(**c)).collect()
    }

    /// Whether a name matches the pattern.
    pub(in super::super) fn matches(&self, name: &str) -> bool {
        let characters: Vec<char> = name.chars().collect();
        matches(&self.pieces, &characters, self.cuts.contains(&characters.len()))
    }
}

fn is_variable(character: char) -> bool {
    matches!(character, ALPHANUMERIC | HEXADECIMAL | ANYTHING | DIGIT)
}

/// Whether a name matches a pattern and has enough random characters; `cut` means that the name may be truncated. For
/// each prefix of the name that the pieces so far can match, `most` has the largest number of random characters in it,
/// so the cost is the length of the pattern times that of the name.
fn matches(pieces: &[char], name: &[char], cut: bool) -> bool {
    let mut most: Vec<Option<usize>> = vec![None; name.len() + 1];
    most[0] = Some(0);
    let is_enough = |random: Option<usize>| random.is_some_and(|random| random >= MIN_RANDOM);
    for piece in pieces {
        if cut && is_enough(most[name.len()]) {
            return true;
        }
        if *piece == ANYTHING {
            for at in 0..name.len() {
                if is_safe(name[at]) {
                    most[at + 1] = most[at + 1].max(most[at]);
                }
            }
            continue;
        }
        for at in (0..name.len()).rev() {
            let random = usize::from(matches!(*piece, ALPHANUMERIC | HEXADECIMAL));
            most[at + 1] = most[at].filter(|_| piece_matches(*piece, name[at])).map(|before| before + random);
        }
        most[0] = None;
    }
    is_enough(most[name.len()])
}

fn piece_matches(piece: char, character: char) -> bool {
    match piece {
        ALPHANUMERIC => character.is_ascii_alphanumeric(),
        HEXADECIMAL => character.is_ascii_hexdigit(),
        DIGIT => character.is_ascii_digit(),
        literal => literal == character,
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;

    const DEFAULT: &str = "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}";
    const MYSQL: &str = "{{ printf \"v-%s-%s-%s-%s\" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time) | truncate 32 }}";

    #[test]
    fn generated_names_match_the_pattern_of_their_template() {
        let others = [
            "V_{{.RoleName}}_{{random 12 | uppercase}}",
            "app-{{uuid}}-{{timestamp \"2006\"}}",
            "x-{{.RoleName | sha256}}",
        ];
        for template in [DEFAULT, MYSQL].iter().chain(&others) {
            for (display, role) in
                [("token", "readonly"), ("", ""), ("userpass-some.body@x", "a-very-long-role-name-indeed")]
            {
                let pattern = NamePattern::of(template, 63).unwrap();
                let of = TemplateData::new(display, role, Timestamp::from_unix(1_795_435_347));
                let name = generate(template, 63, &of).unwrap();
                assert!(pattern.matches(&name) && name.starts_with(&pattern.prefix()), "{template}: {name}");
                assert!(!pattern.matches(&format!("{name}é")) && !pattern.matches(&name[1..]));
            }
        }
    }

    #[test]
    fn a_pattern_of_many_variable_parts_is_matched_in_one_pass() {
        let pattern = NamePattern::of(&("v-".to_owned() + &"{{.RoleName}}".repeat(200) + "{{random 20}}"), 63).unwrap();
        assert!(pattern.matches(&("v-".to_owned() + &"a".repeat(60))));
        assert!(!pattern.matches(&("v-".to_owned() + &"a".repeat(60) + "-")));
        assert!(!pattern.matches(&("v-".to_owned() + &"a".repeat(19))));
    }

    #[test]
    fn names_of_other_users_do_not_match_the_pattern() {
        let pattern = NamePattern::of(DEFAULT, 63).unwrap();
        for name in [
            "v-",
            "v-worker",
            "v-token-readonly",
            "v-token-readonly-short-1795435347",
            "v-a-b-2f0WXGi9DBUNECDj00Mv-17954353",
            "x-a-b-2f0WXGi9DBUNECDj00Mv-1795435347",
        ] {
            assert!(!pattern.matches(name), "{name}");
        }
        for template in ["{{random 20}}", "v-{{.RoleName}}", "v{{random 20}}", "v-{{random 4}}"] {
            assert!(NamePattern::of(template, 63).is_err(), "{template}");
        }
    }
}
