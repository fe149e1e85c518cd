//! The form of the names that a template makes, by which a database's users are told from others'.

use std::cell::RefCell;

use super::template::Template;
use super::{Ingredients, is_tame};
use keepfast_framework::Timestamp;

/// Characters of private use stand for what varies.
const ALPHANUMERIC: char = '\u{e000}';
const HEXADECIMAL: char = '\u{e001}';
const ANYTHING: char = '\u{e002}';
const DIGIT: char = '\u{e003}';

/// How many characters by chance a name must have: fewer, and somebody else could have thought of it.
const CHANCE: usize = 8;
/// A prefix that is shorter would ask a database for nearly all of its users.
const PREFIX: usize = 2;

/// What a template's functions answer when it is the form that is wanted.
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

    /// What stands for a function's answer that does not depend on the template alone.
    pub(super) fn stand_in(&self, function: &str) -> Option<String> {
        match function {
            "sha256" => Some(HEXADECIMAL.to_string().repeat(64)),
            "base64" | "timestamp" => Some(self.anything()),
            "unix_time" => Some(DIGIT.to_string().repeat(10)),
            "unix_time_millis" => Some(DIGIT.to_string().repeat(13)),
            _ => None,
        }
    }

    /// Leaves a text as it is, since how long it will be is not known, and notes where it may end.
    pub(super) fn cut(&self, text: &str, most: usize) -> String {
        self.cuts.borrow_mut().push(most);
        text.to_owned()
    }
}

/// The form of all names that one template makes.
#[derive(Debug)]
pub(in super::super) struct Form {
    pieces: Vec<char>,
    /// Lengths at which a name may have been cut.
    cuts: Vec<usize>,
}

impl Form {
    /// The form of a template's names of at most `longest` characters.
    ///
    /// # Errors
    /// When users could not be told from others' by it.
    pub(in super::super) fn of(template: &str, longest: usize) -> Result<Self, String> {
        let of = Ingredients { sample: Some(Sample::default()), ..Ingredients::new("", "", Timestamp::EPOCH) };
        let pieces: Vec<char> = Template::parse(template)?.fill(&of)?.chars().collect();
        let mut cuts = of.sample.map(|s| s.cuts.into_inner()).unwrap_or_default();
        cuts.push(longest);
        let form = Form { pieces, cuts };
        if form.prefix().len() < PREFIX {
            return Err("the names of this connection's users have no beginning of their own: its username_template begins with something that varies".to_owned());
        }
        if form.pieces.iter().filter(|c| matches!(**c, ALPHANUMERIC | HEXADECIMAL)).count() < CHANCE {
            return Err("the names of this connection's users could be anybody's: its username_template has fewer than 8 random characters".to_owned());
        }
        Ok(form)
    }

    /// What all names begin with.
    pub(in super::super) fn prefix(&self) -> String {
        self.pieces.iter().take_while(|c| !varies(**c)).collect()
    }

    /// Whether a name has this form.
    pub(in super::super) fn fits(&self, name: &str) -> bool {
        let characters: Vec<char> = name.chars().collect();
        fits(&self.pieces, &characters, self.cuts.contains(&characters.len()))
    }
}

fn varies(character: char) -> bool {
    matches!(character, ALPHANUMERIC | HEXADECIMAL | ANYTHING | DIGIT)
}

/// Whether a name has a form and as many random characters as it needs; `cut` says that the name may end before its form
/// does. For each number of characters of the name that the pieces so far may stand for, `most` has the largest number of
/// random ones among them, so that the cost is the length of the form times that of the name.
fn fits(pieces: &[char], name: &[char], cut: bool) -> bool {
    let mut most: Vec<Option<usize>> = vec![None; name.len() + 1];
    most[0] = Some(0);
    let is_enough = |random: Option<usize>| random.is_some_and(|random| random >= CHANCE);
    for piece in pieces {
        if cut && is_enough(most[name.len()]) {
            return true;
        }
        if *piece == ANYTHING {
            for at in 0..name.len() {
                if is_tame(name[at]) {
                    most[at + 1] = most[at + 1].max(most[at]);
                }
            }
            continue;
        }
        for at in (0..name.len()).rev() {
            let random = usize::from(matches!(*piece, ALPHANUMERIC | HEXADECIMAL));
            most[at + 1] = most[at].filter(|_| stands_for(*piece, name[at])).map(|before| before + random);
        }
        most[0] = None;
    }
    is_enough(most[name.len()])
}

fn stands_for(piece: char, character: char) -> bool {
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
    fn what_a_template_makes_has_its_form() {
        let others = [
            "V_{{.RoleName}}_{{random 12 | uppercase}}",
            "app-{{uuid}}-{{timestamp \"2006\"}}",
            "x-{{.RoleName | sha256}}",
        ];
        for template in [DEFAULT, MYSQL].iter().chain(&others) {
            for (display, role) in
                [("token", "readonly"), ("", ""), ("userpass-some.body@x", "a-very-long-role-name-indeed")]
            {
                let form = Form::of(template, 63).unwrap();
                let of = Ingredients::new(display, role, Timestamp::from_unix(1_795_435_347));
                let name = generate(template, 63, &of).unwrap();
                assert!(form.fits(&name) && name.starts_with(&form.prefix()), "{template}: {name}");
                assert!(!form.fits(&format!("{name}é")) && !form.fits(&name[1..]));
            }
        }
    }

    #[test]
    fn a_form_of_many_variable_parts_is_matched_in_one_pass() {
        let form = Form::of(&("v-".to_owned() + &"{{.RoleName}}".repeat(200) + "{{random 20}}"), 63).unwrap();
        assert!(form.fits(&("v-".to_owned() + &"a".repeat(60))));
        assert!(!form.fits(&("v-".to_owned() + &"a".repeat(60) + "-")));
        assert!(!form.fits(&("v-".to_owned() + &"a".repeat(19))));
    }

    #[test]
    fn names_of_others_do_not_have_it() {
        let form = Form::of(DEFAULT, 63).unwrap();
        for name in [
            "v-",
            "v-worker",
            "v-token-readonly",
            "v-token-readonly-short-1795435347",
            "v-a-b-2f0WXGi9DBUNECDj00Mv-17954353",
            "x-a-b-2f0WXGi9DBUNECDj00Mv-1795435347",
        ] {
            assert!(!form.fits(name), "{name}");
        }
        for template in ["{{random 20}}", "v-{{.RoleName}}", "v{{random 20}}", "v-{{random 4}}"] {
            assert!(Form::of(template, 63).is_err(), "{template}");
        }
    }
}
