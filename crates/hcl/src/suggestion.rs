//! "Did you mean": the known name nearest to a misspelled one.

use std::fmt;

/// The longest compared word in bytes: the comparison costs the product of both lengths.
const LONGEST: usize = 64;

/// The nearest of the `known` names. It differs in at most a third of the letters and in at most three; in a word of two
/// or three letters in one. The case of `word` is ignored.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let distances = known.iter().map(|candidate| (strsim::osa_distance(&word, candidate), *candidate));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Displays `; did you mean "listener"?`, or nothing when no known name is near.
pub struct Suggestion<'a>(Option<&'a str>);

impl<'a> Suggestion<'a> {
    /// The suggestion of [`nearest`].
    #[must_use]
    pub fn of(word: &str, known: &[&'a str]) -> Self {
        Suggestion(nearest(word, known))
    }
}

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, "; did you mean {word:?}?"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_near_words() {
        let known = ["listener", "storage", "api_addr", "ui"];
        for (word, expected) in [
            ("listner", "; did you mean \"listener\"?"),
            ("LISTENER", "; did you mean \"listener\"?"),
            ("sotrage", "; did you mean \"storage\"?"),
            ("apiaddr", "; did you mean \"api_addr\"?"),
            ("uo", "; did you mean \"ui\"?"),
            ("frobnicate", ""),
        ] {
            assert_eq!(Suggestion::of(word, &known).to_string(), expected, "{word}");
        }
        assert_eq!(Suggestion::of(&"listener".repeat(100), &known).to_string(), "");
    }

    #[test]
    fn nearest_ignores_case_and_unrelated_words() {
        let names = ["secrets", "server", "status", "kv"];
        for (word, expected) in
            [("secret", Some("secrets")), ("Stauts", Some("status")), ("vk", Some("kv")), ("nonsense", None)]
        {
            assert_eq!(nearest(word, &names), expected, "{word}");
        }
    }
}
