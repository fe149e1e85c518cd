//! `list_scan_response_keys_filter_path`: a list includes a name only if the caller may read (or, for a name that ends
//! in `/`, list) the path that a template renders for it.
//!
//! The template is a subset of Go's `text/template`: `{{ .path }}` (the listed path, with its trailing slash), `{{ .key
//! }}` (the name), each with `| replace "a" "b"`, `| lowercase` or `| uppercase`. Templates and their values have the
//! limits of [`keepfast_framework::text_limits`].

use keepfast_framework::text_limits::{self, ExceedsLimit, PIPELINE_STEPS, TemplateValue, check_template, check_value};

/// A template of the path whose capabilities decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeysFilter {
    parts: Vec<Part>,
    /// The limit that a stored template exceeds: then it excludes every name.
    exceeds: Option<ExceedsLimit>,
}

/// Why a template is refused.
enum Fault {
    Limit(ExceedsLimit),
    Text(String),
}

impl From<ExceedsLimit> for Fault {
    fn from(limit: ExceedsLimit) -> Self {
        Fault::Limit(limit)
    }
}

/// The prefix of OpenBao's template errors.
const CANNOT: &str = "unable to compile template for list_scan_response_keys_filter_path: unable to parse template: template: template:1:";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field, Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Path,
    Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Replace(String, String),
    Lowercase,
    Uppercase,
}

impl KeysFilter {
    /// Parses a template.
    ///
    /// # Errors
    /// The reason, in OpenBao's wording where it has one.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|fault| match fault {
            Fault::Limit(limit) => format!("{CANNOT} {limit}"),
            Fault::Text(text) => text,
        })
    }

    /// Parses a stored template, which may be older than a limit: one that exceeds it excludes every name.
    ///
    /// # Errors
    /// As [`KeysFilter::parse`], except for limits.
    pub(crate) fn parse_stored(text: &str) -> Result<Self, String> {
        match Self::read(text) {
            Ok(filter) => Ok(filter),
            Err(Fault::Limit(limit)) => Ok(Self { parts: Vec::new(), exceeds: Some(limit) }),
            Err(Fault::Text(text)) => Err(text),
        }
    }

    fn read(text: &str) -> Result<Self, Fault> {
        check_template(text)?;
        let fault = |text: String| Fault::Text(format!("{CANNOT} {text}"));
        let mut parts = Vec::new();
        let mut pieces = text.split("{{");
        parts.push(Part::Literal(pieces.next().unwrap_or_default().to_owned()));
        for piece in pieces {
            let (action, literal) = piece.split_once("}}").ok_or_else(|| fault("unclosed action".to_owned()))?;
            let part = field(action).ok_or_else(|| fault(format!("unsupported action {{{{{action}}}}}")))?;
            if matches!(&part, Part::Field(_, steps) if steps.len() >= PIPELINE_STEPS) {
                return Err(ExceedsLimit::PipelineSteps.into());
            }
            parts.push(part);
            parts.push(Part::Literal(literal.to_owned()));
        }
        let filter = Self { parts, exceeds: None };
        if filter.render("path/", "first")? == filter.render("path/", "second")? {
            let text = "list_scan_response_keys_filter_path resulted in same path for two different keys";
            return Err(Fault::Text(text.to_owned()));
        }
        Ok(filter)
    }

    /// The path whose capabilities decide.
    ///
    /// Fails when it, or the value of a step, is too long; always when the template exceeds a limit.
    pub(crate) fn render(&self, path: &str, key: &str) -> Result<String, ExceedsLimit> {
        if let Some(limit) = self.exceeds {
            return Err(limit);
        }
        let mut out = TemplateValue::default();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text)?,
                Part::Field(field, steps) => {
                    let value = if *field == Field::Path { path } else { key };
                    let value = check_value(value.to_owned())?;
                    out.push_str(&steps.iter().try_fold(value, |value, step| step.apply(&value))?)?;
                }
            }
        }
        Ok(out.into_text())
    }
}

impl Step {
    fn apply(&self, value: &str) -> Result<String, ExceedsLimit> {
        match self {
            Self::Replace(from, to) => text_limits::replace(value, from, to),
            Self::Lowercase => check_value(value.to_lowercase()),
            Self::Uppercase => check_value(value.to_uppercase()),
        }
    }
}

/// Parses the text between the braces.
fn field(action: &str) -> Option<Part> {
    let mut words = words(action)?.into_iter();
    let field = match words.next()?.as_str() {
        ".path" => Field::Path,
        ".key" => Field::Key,
        _ => return None,
    };
    let mut steps = Vec::new();
    while let Some(word) = words.next() {
        if word != "|" {
            return None;
        }
        steps.push(match words.next()?.as_str() {
            "lowercase" => Step::Lowercase,
            "uppercase" => Step::Uppercase,
            "replace" => Step::Replace(quoted(words.next()?)?, quoted(words.next()?)?),
            _ => return None,
        });
    }
    Some(Part::Field(field, steps))
}

/// Splits an action into fields, bars and quoted strings, which keep their first quote.
fn words(action: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = action.trim();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => 1 + rest.get(1..)?.find('"')? + 1,
            '|' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || c == '|' || c == '"').unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        words.push(if first == '"' { word.trim_end_matches('"').to_owned() } else { word.to_owned() });
        rest = tail.trim_start();
    }
    Some(words)
}

fn quoted(word: String) -> Option<String> {
    // `""` loses both quotes above.
    if word.is_empty() { Some(word) } else { word.strip_prefix('"').map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_kf04_filters_have_limits_of_length_steps_and_values() {
        let refused = |text: &str| KeysFilter::parse(text).unwrap_err();
        let chained = |steps: usize| format!("{{{{ .path }}}}{{{{ .key{} }}}}", " | uppercase".repeat(steps));
        assert!(KeysFilter::parse(&chained(PIPELINE_STEPS - 1)).is_ok());
        assert!(refused(&chained(PIPELINE_STEPS)).contains("at most 32 steps"));
        assert!(refused(&chained(90_000)).contains("at most 4096 bytes"));
        assert!(refused(&"{{ .key }}".repeat(100_000)).contains("at most 4096 bytes"));
        let growing = " | replace \"f\" \"ffffffffff\"".repeat(11);
        assert!(refused(&format!("{{{{ .key{growing} }}}}")).contains("at most 4096 characters"));
        let hides = KeysFilter::parse_stored(&chained(PIPELINE_STEPS)).unwrap();
        assert_eq!(hides.render("a/", "x"), Err(ExceedsLimit::PipelineSteps), "a stored one shows no name");
        assert!(KeysFilter::parse_stored("{{ .nope }}").is_err());
        // Parsing renders samples without these letters; a name with them exceeds the limit.
        let growing = " | replace \"z\" \"zzzzzzzzzz\"".repeat(11);
        let filter = KeysFilter::parse(&format!("{{{{ .path }}}}{{{{ .key{growing} }}}}")).unwrap();
        assert_eq!(filter.render("a/", "z"), Err(ExceedsLimit::ValueCharacters));
        assert_eq!(filter.render("a/", "x").unwrap(), "a/x");
    }
}
