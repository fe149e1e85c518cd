//! Password policies: the length and the characters of generated passwords (Vault's "Password policies").

use std::collections::BTreeSet;

use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Records;
use keepfast_hcl::{Block, Body, HclError, ValueKind};
use serde::{Deserialize, Serialize};

/// Stored password policies, under `sys/`.
pub(crate) const PASSWORD_POLICIES: Records<PasswordPolicyRecord> = Records::at("password-policy/");

/// The stored record of a password policy.
#[derive(Serialize, Deserialize)]
pub(crate) struct PasswordPolicyRecord {
    /// Its text as written.
    pub(crate) policy: String,
}

/// A parsed and satisfiable password policy: [`PasswordPolicy::generate`] always ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PasswordPolicy {
    length: usize,
    /// All characters of all rules, each once.
    charset: Vec<char>,
    rules: Vec<Rule>,
}

/// Requires at least `least` characters of `charset`.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    charset: Vec<char>,
    least: usize,
}

/// Why a text is no password policy, in OpenBao's wording where it has one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PasswordPolicyError(String);

/// The range of the length of passwords.
const LENGTHS: std::ops::RangeInclusive<usize> = 4..=100;
/// How often all characters are drawn again because a rule failed; after that the rules are satisfied one by one.
const DRAWS: usize = 100;

/// Parses a policy in HCL or JSON.
pub(crate) fn parse(text: &str) -> Result<PasswordPolicy, PasswordPolicyError> {
    let document = keepfast_hcl::parse(text).map_err(|e| undecodable(&e))?;
    let body = &document.body;
    if body.all("length").count() > 1 {
        return Err(invalid("length is given twice"));
    }
    let length = match body.get("length").map(|item| &item.value) {
        None => 0,
        Some(value) => value.as_integer().ok_or_else(|| {
            let found = value.type_name();
            invalid(&format!(
                "failed to decode configuration: decoding failed due to the following error(s):\n\n'length' expected \
                 type 'int', got unconvertible type '{found}'"
            ))
        })?,
    };
    let blocks = body.blocks("rule", 1).map_err(|e| invalid(&format!("unable to parse rules: {e}")))?;
    let rules = blocks.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    check(length, rules)
}

fn check(length: i64, mut rules: Vec<Rule>) -> Result<PasswordPolicy, PasswordPolicyError> {
    let charset: BTreeSet<char> = rules.iter().flat_map(|r| &r.charset).copied().collect();
    let length = usize::try_from(length).unwrap_or(0);
    let required: usize = rules.iter().map(|r| r.least).sum();
    let mut faults = Vec::new();
    if length == 0 {
        faults.push("length must be > 0".to_owned());
    } else if required > length {
        faults.push(format!("specified rules require at least {required} characters but {length} is specified"));
    }
    if charset.is_empty() || rules.iter().any(|r| r.charset.is_empty()) {
        faults.push("no charset specified".to_owned());
    } else if charset.iter().any(|c| c.is_control()) {
        faults.push("non-printable character in charset".to_owned());
    }
    if !faults.is_empty() {
        let count = if faults.len() == 1 { "1 error".to_owned() } else { format!("{} errors", faults.len()) };
        let list: String = faults.iter().map(|fault| format!("\n\t* {fault}")).collect();
        return Err(invalid(&format!("{count} occurred:{list}\n\n")));
    }
    if !LENGTHS.contains(&length) {
        return Err(PasswordPolicyError("passwords must be between 4 and 100 characters".to_owned()));
    }
    // Every password satisfies the others. The remaining ones are at most as many as a password has characters.
    rules.retain(|rule| rule.least > 0);
    Ok(PasswordPolicy { length, charset: charset.into_iter().collect(), rules })
}

fn rule(block: &Block<'_>) -> Result<Rule, PasswordPolicyError> {
    let kind = block.labels.first().map_or("", |key| key.name.as_str());
    if kind != "charset" {
        return Err(invalid(&format!(
            "unable to parse rules: unable to parse rule {kind}: unrecognized rule type {kind}"
        )));
    }
    if block.labels.len() > 1 {
        // OpenBao ignores the content of such a block.
        return Ok(Rule { charset: Vec::new(), least: 0 });
    }
    let wrong = |what: String| {
        invalid(&format!(
            "unable to parse rules: unable to parse rule charset: failed to parse charset restriction: {what}"
        ))
    };
    let charset = match value(block.body, "charset") {
        None => "",
        Some(ValueKind::String(text)) => text,
        Some(_) => return Err(wrong("'charset' must be a string".to_owned())),
    };
    let least = match value(block.body, "min-chars") {
        None => 0,
        // As on OpenBao, where such a rule requires nothing.
        Some(ValueKind::Integer(number)) => usize::try_from(*number).unwrap_or(0),
        Some(_) => return Err(wrong("'min-chars' expected type 'int'".to_owned())),
    };
    let distinct: BTreeSet<char> = charset.chars().collect();
    Ok(Rule { charset: distinct.into_iter().collect(), least })
}

fn value<'a>(body: &'a Body, name: &str) -> Option<&'a ValueKind> {
    body.get(name).map(|item| &item.value.kind)
}

fn undecodable(error: &HclError) -> PasswordPolicyError {
    invalid(&format!("unable to decode: {error}"))
}

fn invalid(what: &str) -> PasswordPolicyError {
    PasswordPolicyError(format!("invalid password policy: {what}"))
}

impl PasswordPolicy {
    /// Generates a password: every one that satisfies the rules is equally likely, unless the rules are so tight that
    /// hardly any does.
    pub(crate) fn generate(&self) -> SecretString {
        for _ in 0..DRAWS {
            let drawn: Vec<char> = (0..self.length).map(|_| pick(&self.charset)).collect();
            if self.holds(&drawn) {
                return finished(drawn);
            }
        }
        let mut chosen: Vec<char> =
            self.rules.iter().flat_map(|rule| (0..rule.least).map(|_| pick(&rule.charset))).collect();
        chosen.extend((chosen.len()..self.length).map(|_| pick(&self.charset)));
        for at in (1..chosen.len()).rev() {
            chosen.swap(at, random::below(at + 1));
        }
        finished(chosen)
    }

    fn holds(&self, password: &[char]) -> bool {
        let count = |rule: &Rule| password.iter().filter(|c| rule.charset.binary_search(c).is_ok()).count();
        self.rules.iter().all(|rule| count(rule) >= rule.least)
    }
}

fn pick(charset: &[char]) -> char {
    charset[random::below(charset.len())]
}

fn finished(mut characters: Vec<char>) -> SecretString {
    let text = characters.iter().collect();
    characters.fill('\0');
    SecretString::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTERS: &str = "rule \"charset\" { charset = \"abcdefghijklmnopqrstuvwxyz\" }\n";

    #[test]
    fn both_syntaxes_give_the_same_policy() {
        let hcl = parse("length = 8\nrule \"charset\" {\n charset = \"cab\"\n min-chars = 2\n}").unwrap();
        let json = parse(r#"{"length": 8, "rule": [{"charset": [{"charset": "cab", "min-chars": 2}]}]}"#).unwrap();
        let short = parse(r#"{"length": 8, "rule": {"charset": {"charset": "abcc", "min-chars": 2}}}"#).unwrap();
        assert_eq!(hcl, json);
        assert_eq!(hcl, short);
        assert_eq!((hcl.length, hcl.charset.as_slice()), (8, &['a', 'b', 'c'][..]));
    }

    #[test]
    fn rules_are_kept_also_where_only_few_passwords_do() {
        let tight = format!("length = 8\n{LETTERS}rule \"charset\" {{ charset = \"!?\" min-chars = 7 }}");
        let exact = "length = 8\nrule \"charset\" { charset = \"a\" min-chars = 4 }\nrule \"charset\" { charset = \"b\" min-chars = 4 }";
        for _ in 0..200 {
            let made = parse(&tight).unwrap().generate();
            assert!(made.expose().chars().filter(|c| "!?".contains(*c)).count() >= 7);
            let made = parse(exact).unwrap().generate();
            assert_eq!(made.expose().chars().filter(|c| *c == 'a').count(), 4);
        }
    }

    #[test]
    fn rules_without_a_minimum_cost_no_check_of_a_password() {
        let tight = "rule \"charset\" { charset = \"?\" min-chars = 100 }";
        let policy = parse(&format!("length = 100\n{}{tight}", LETTERS.repeat(1000))).unwrap();
        assert_eq!((policy.rules.len(), policy.charset.len()), (1, 27));
        assert_eq!(policy.generate().expose().as_str(), "?".repeat(100));
    }

    // Chi-square over 26 letters; 83.0 is the 0.9999999 quantile for 25 degrees of freedom.
    #[test]
    fn every_character_is_equally_likely() {
        let policy =
            parse(&format!("length = 100\n{LETTERS}{LETTERS}rule \"charset\" {{ charset = \"aaaa\" }}")).unwrap();
        let mut counts = [0_f64; 26];
        for _ in 0..1_000 {
            policy.generate().expose().bytes().for_each(|c| counts[usize::from(c - b'a')] += 1.0);
        }
        let expected = 100_000.0 / 26.0;
        let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!(chi < 83.0, "chi-square {chi}");
    }

    #[test]
    fn an_invalid_rule_is_named() {
        for (text, message) in [
            ("", "length must be > 0"),
            ("length = 8", "no charset"),
            ("length = 3\nrule \"charset\" { charset = \"a\" }", "between 4 and 100"),
            ("length = 8.5\nrule \"charset\" { charset = \"a\" }", "'length' expected type 'int'"),
            ("length = 8\nlength = 9\nrule \"charset\" { charset = \"a\" }", "twice"),
            ("length = 8\nrule \"charset\" { charset = \"a\" min-chars = 9 }", "at least 9 characters"),
            ("length = 8\nrule \"other\" { charset = \"a\" }", "unrecognized rule type other"),
            ("length = 8\nrule \"charset\" { charset = \"a\\n\" }", "non-printable"),
            ("length = 8\nrule \"charset\" { charset = 3 }", "'charset' must be a string"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_error_counts_its_faults() {
        let text = |policy: &str| parse(policy).unwrap_err().to_string();
        assert!(text(&format!("length = 0\n{LETTERS}")).contains(": 1 error occurred:\n\t* length must be > 0\n"));
        assert!(text("length = 0").contains(": 2 errors occurred:"));
    }

    #[test]
    fn the_content_of_a_rule_with_two_labels_is_ignored() {
        let policy = parse(&format!("length = 8\n{LETTERS}rule \"charset\" \"x\" {{ charset = \"xyz\" }}"));
        assert!(policy.unwrap_err().to_string().contains("no charset specified"));
    }

    #[test]
    fn required_characters_may_be_at_every_place() {
        let rules = ('a'..='t').map(|c| format!("rule \"charset\" {{ charset = \"{c}\" min-chars = 1 }}\n"));
        let policy = parse(&format!("length = 20\n{}", rules.collect::<String>())).unwrap();
        let drawn: Vec<String> = (0..500).map(|_| policy.generate().expose().to_owned()).collect();
        // Each has a chance of 1 in 20 per password; all of 500 miss it once in 10^11 runs.
        for (at, letter) in ('a'..='t').enumerate() {
            assert!(drawn.iter().any(|password| password.chars().nth(at) == Some(letter)), "{letter} at {at}");
        }
    }
}
