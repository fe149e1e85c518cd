//! "Did you mean": the known word nearest to a misspelled one.

use std::fmt;

/// The longest word that is compared, in bytes: comparing costs the product of both lengths.
const LONGEST: usize = 64;

/// The text `; did you mean "listener"?`, or nothing when no known word is near.
pub(super) struct Suggestion<'a>(Option<&'a str>);

impl<'a> Suggestion<'a> {
    /// The nearest of `known`, at most a third of the letters away and never more than three.
    pub(super) fn of(word: &str, known: &[&'a str]) -> Self {
        if word.len() > LONGEST {
            return Suggestion(None);
        }
        let word = word.to_ascii_lowercase();
        let allowed = (word.chars().count() / 3).clamp(1, 3);
        let distances = known.iter().map(|candidate| (strsim::osa_distance(&word, candidate), *candidate));
        Suggestion(distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate))
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
}
