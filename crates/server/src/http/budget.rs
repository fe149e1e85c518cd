//! What a JSON body may cost, counted in one pass over its bytes before anything parses it.
//!
//! The pass does not judge whether the text is JSON; it only must never count less than a parser would build.

use http::StatusCode;

use super::answer::Answer;
use crate::config::JsonLimits;

/// Refuses a body that exceeds a limit.
pub(crate) fn check(text: &[u8], limits: &JsonLimits) -> Result<(), Answer> {
    if text.len() > limits.memory {
        return Err(too_complex("exceeded maximum memory"));
    }
    // Every string, level and entry takes at least one byte, so a short text cannot exceed anything.
    let least = limits
        .strings
        .min(limits.depth)
        .min(limits.string_length)
        .min(limits.object_entries)
        .min(limits.array_elements);
    if text.len() <= least {
        return Ok(());
    }
    Count { text, limits, at: 0, strings: 0, open: Vec::with_capacity(8) }.run()
}

struct Count<'a> {
    text: &'a [u8],
    limits: &'a JsonLimits,
    at: usize,
    strings: usize,
    /// The bound of each open object or array, and the commas seen in it.
    open: Vec<(usize, usize)>,
}

impl Count<'_> {
    fn run(mut self) -> Result<(), Answer> {
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => self.string()?,
                b'{' => self.descend(self.limits.object_entries)?,
                b'[' => self.descend(self.limits.array_elements)?,
                b'}' | b']' => {
                    self.open.pop();
                }
                b',' => self.comma()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A string behind its opening quote.
    fn string(&mut self) -> Result<(), Answer> {
        self.strings += 1;
        if self.strings > self.limits.strings {
            return Err(too_complex("exceeded maximum number of strings"));
        }
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        if self.at - start > self.limits.string_length.saturating_add(1) {
            return Err(too_complex("exceeded maximum string length"));
        }
        Ok(())
    }

    fn descend(&mut self, bound: usize) -> Result<(), Answer> {
        self.open.push((bound, 0));
        if self.open.len() > self.limits.depth {
            return Err(Answer::error(StatusCode::BAD_REQUEST, "failed to decode JSON input: exceeded max depth"));
        }
        Ok(())
    }

    fn comma(&mut self) -> Result<(), Answer> {
        if let Some((bound, commas)) = self.open.last_mut() {
            *commas += 1;
            if *commas >= *bound {
                return Err(too_complex("exceeded maximum number of entries"));
            }
        }
        Ok(())
    }
}

fn too_complex(why: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, format!("refused JSON input due to high complexity: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn verdict(text: &str) -> Result<(), String> {
        check(text.as_bytes(), &JsonLimits::default()).map_err(|a| String::from_utf8_lossy(&a.body).into_owned())
    }

    #[test]
    fn sec_ds02_a_body_within_the_limits_passes_and_one_beyond_does_not() {
        let strings = |n: usize| format!("{{\"data\":{{\"x\":[{}]}}}}", vec!["\"s\""; n].join(","));
        assert_eq!(verdict(&strings(998)), Ok(()));
        assert!(
            verdict(&strings(999))
                .unwrap_err()
                .contains("refused JSON input due to high complexity: exceeded maximum number of strings")
        );
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(verdict(&deep(300)), Ok(()));
        assert!(verdict(&deep(301)).unwrap_err().contains("exceeded max depth"));
        let wide = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert_eq!(verdict(&wide(10_000)), Ok(()));
        assert!(verdict(&wide(10_001)).unwrap_err().contains("maximum number of entries"));
        let long = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
        assert_eq!(verdict(&long(1 << 20)), Ok(()));
        assert!(verdict(&long((1 << 20) + 1)).unwrap_err().contains("maximum string length"));
    }

    #[test]
    fn sec_ds02_quotes_and_brackets_inside_strings_are_text() {
        let tricky = r#"{"a":"\"[[[[\\","b":"}}]]","c":"\u0022,"}"#;
        let limits = JsonLimits { strings: 6, depth: 1, object_entries: 3, ..JsonLimits::default() };
        assert!(check(tricky.as_bytes(), &limits).is_ok());
        assert!(check(tricky.as_bytes(), &JsonLimits { strings: 5, ..limits }).is_err());
        assert!(check(b"\"unterminated \\", &limits).is_ok());
    }

    use proptest::prelude::*;
    use serde_json::Value;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\"\\\\\\[\\]{},:a-zä\u{1}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[\"\\\\{,a-c]{0,3}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// Strings, depth, and the widest object or array of a tree: what the pass has to find without one.
    fn measure(value: &Value) -> (usize, usize, usize) {
        let join = |(s, d, w): (usize, usize, usize), of: &Value| {
            let (s2, d2, w2) = measure(of);
            (s + s2, d.max(d2), w.max(w2))
        };
        match value {
            Value::String(_) => (1, 0, 0),
            Value::Array(items) => {
                let (s, d, w) = items.iter().fold((0, 0, items.len()), join);
                (s, d + 1, w)
            }
            Value::Object(map) => {
                let (s, d, w) = map.values().fold((map.len(), 0, map.len()), join);
                (s, d + 1, w)
            }
            _ => (0, 0, 0),
        }
    }

    proptest! {
        #[test]
        fn sec_ds02_the_pass_counts_exactly_what_a_parser_builds(value in any_json(), pretty in any::<bool>()) {
            let (strings, depth, width) = measure(&value);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let exact = JsonLimits { strings, depth, object_entries: width, array_elements: width, ..JsonLimits::default() };
            prop_assert!(check(text.as_bytes(), &exact).is_ok());
            if strings > 0 {
                let fewer = JsonLimits { strings: strings - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &fewer).is_err());
            }
            if depth > 0 {
                let flatter = JsonLimits { depth: depth - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &flatter).is_err());
            }
            if width > 1 {
                let narrow = JsonLimits { object_entries: width - 1, array_elements: width - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &narrow).is_err());
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let tight = JsonLimits { strings: 3, depth: 2, object_entries: 2, array_elements: 2, string_length: 4, memory: 300 };
            let _ = check(&bytes, &tight);
        }
    }
}
