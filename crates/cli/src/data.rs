//! The data arguments of a write: `key=value`, `key=@file`, `key=-`, `@file.json`, `-`.

use std::io::Read;

use serde_json::{Map, Value};

use crate::command_error::CommandError;

/// Parses data arguments. A repeated key becomes a list. `@file` and `-`, as an argument or as a value, read a
/// file or stdin; `\@` is a literal `@`.
pub(crate) fn parse(arguments: &[String], stdin: &mut dyn Read) -> Result<Map<String, Value>, CommandError> {
    let mut data = Map::new();
    let mut source = Source { stdin, drained: false };
    for argument in arguments {
        source.add(argument, &mut data).map_err(|reason| {
            CommandError::usage(format!("Failed to parse K=V data: invalid key/value pair {argument:?}: {reason}"))
        })?;
    }
    Ok(data)
}

/// Parses data arguments into query parameters, whose values are text.
pub(crate) fn parse_query(arguments: &[String], stdin: &mut dyn Read) -> Result<Vec<(String, String)>, CommandError> {
    let mut query = Vec::new();
    for (key, value) in parse(arguments, stdin)? {
        match value {
            Value::Array(values) => query.extend(values.iter().map(|value| (key.clone(), crate::output::plain(value)))),
            value => query.push((key, crate::output::plain(&value))),
        }
    }
    Ok(query)
}

struct Source<'a> {
    stdin: &'a mut dyn Read,
    drained: bool,
}

impl Source<'_> {
    fn add(&mut self, argument: &str, data: &mut Map<String, Value>) -> Result<(), String> {
        if argument == "-" {
            return merge(data, &self.stdin()?);
        }
        // The first `=` is parsed before `@`: `@key=value` is a field whose name begins with `@`.
        let Some((key, value)) = argument.split_once('=') else {
            let file = argument.strip_prefix('@').ok_or("format must be key=value")?;
            return merge(data, &file_text(file)?);
        };
        let value = match value {
            "-" => self.stdin()?,
            value => match (value.strip_prefix('@'), value.strip_prefix("\\@")) {
                (Some(file), _) => file_text(file)?,
                (None, Some(rest)) => format!("@{rest}"),
                (None, None) => value.to_owned(),
            },
        };
        insert(data, key, Value::String(value));
        Ok(())
    }

    fn stdin(&mut self) -> Result<String, String> {
        if std::mem::replace(&mut self.drained, true) {
            return Err("stdin can be read only once".to_owned());
        }
        let mut text = String::new();
        self.stdin.read_to_string(&mut text).map_err(|error| format!("error reading stdin: {error}"))?;
        Ok(text)
    }
}

fn file_text(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("error reading file: {}", opening(path, &error)))
}

/// Why a file cannot be opened, in the text of Go.
pub(crate) fn opening(path: &str, error: &std::io::Error) -> String {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("open {path}: {reason}")
}

fn merge(data: &mut Map<String, Value>, text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("EOF".to_owned());
    }
    // Without the text of the error: the input may be a secret.
    let object: Map<String, Value> = serde_json::from_slice(&crate::exact_numbers::keep(text.as_bytes()))
        .map_err(|error| format!("not a JSON object (line {}, column {})", error.line(), error.column()))?;
    for (key, value) in object {
        insert(data, &key, value);
    }
    Ok(())
}

fn insert(data: &mut Map<String, Value>, key: &str, value: Value) {
    match data.get_mut(key) {
        None => drop(data.insert(key.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    fn read(arguments: &[&str], stdin: &str) -> Result<Value, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        parse(&arguments, &mut stdin.as_bytes()).map(Value::Object).map_err(|error| error.message.unwrap_or_default())
    }

    #[test]
    fn parses_pairs_lists_and_escapes() {
        let data = read(&["a=1", "b=x=y", "c=", "k=1", "k=2", "k=3", "e=\\@x", "@f=y"], "");
        assert_eq!(data, Ok(json!({"a": "1", "b": "x=y", "c": "", "k": ["1", "2", "3"], "e": "@x", "@f": "y"})));
    }

    #[test]
    fn stdin_is_a_value_or_all_data_and_read_once() {
        assert_eq!(read(&["p=-"], "line\n"), Ok(json!({"p": "line\n"})));
        assert_eq!(read(&["-", "b=2"], r#"{"a": {"x": [1]}}"#), Ok(json!({"a": {"x": [1]}, "b": "2"})));
        assert!(read(&["a=-", "b=-"], "x").unwrap_err().contains("only once"));
    }

    #[test]
    fn reads_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f.json");
        std::fs::write(&file, r#"{"n": 5}"#).unwrap();
        assert_eq!(read(&[&format!("@{}", file.display())], ""), Ok(json!({"n": 5})));
        assert_eq!(read(&[&format!("v=@{}", file.display())], ""), Ok(json!({"v": "{\"n\": 5}"})));
    }

    #[test]
    fn errors_do_not_quote_a_secret_file() {
        let message = read(&["-"], "hunter2").unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
        assert_eq!(
            read(&["b"], "").unwrap_err(),
            "Failed to parse K=V data: invalid key/value pair \"b\": format must be key=value"
        );
        let missing = tempfile::tempdir().unwrap().path().join("missing");
        let message = read(&[&format!("a=@{}", missing.display())], "").unwrap_err();
        assert!(
            message.ends_with(&format!("error reading file: open {}: no such file or directory", missing.display())),
            "{message}"
        );
    }
}
