//! Rules for the route table of every engine.

use std::collections::BTreeMap;

use keepfast_framework::engine::{Kind, Registered};
use keepfast_framework::input::WHOLE_BODY;

use super::all;

fn each(mut check: impl FnMut(&str, &Registered)) {
    for engine in all().all() {
        let name = format!("{:?} {} {:?}", engine.kind, engine.engine, engine.variant);
        check(&name, engine);
    }
}

#[test]
fn no_table_has_two_rows_for_the_same_request() {
    each(|name, engine| assert!(engine.table().ambiguities().is_empty(), "{name}: {:?}", engine.table().ambiguities()));
}

#[test]
fn every_path_has_a_synopsis() {
    each(|name, engine| {
        for row in engine.table().rows() {
            let synopsis = &row.help.synopsis;
            let path = row.patterns[0].source();
            assert!(synopsis.len() > 5 && synopsis.ends_with('.'), "{name} {path}: {synopsis:?}");
            assert!(!row.operations.is_empty(), "{name} {path} has no operation");
        }
    });
}

#[test]
fn every_field_is_described_and_named_in_snake_case() {
    each(|name, engine| {
        for row in engine.table().rows() {
            for operation in &row.operations {
                let request = operation.request();
                let Some(fields) = request.get("properties").and_then(|p| p.as_object()) else { continue };
                for (field, schema) in fields {
                    let place = format!("{name} {} {}: {field}", row.patterns[0].source(), operation.operation.name());
                    let described = schema.get("description").and_then(|d| d.as_str()).is_some_and(|d| !d.is_empty());
                    assert!(described, "{place} has no description");
                    let snake = field.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                    assert!(snake || field == WHOLE_BODY, "{place} is not in snake case");
                }
            }
        }
    });
}

#[test]
fn every_capture_is_a_field_of_the_request() {
    each(|name, engine| {
        for row in engine.table().rows().iter().filter(|row| !row.fallback) {
            for operation in &row.operations {
                let request = operation.request();
                let fields = request.get("properties").and_then(|p| p.as_object());
                for capture in row.patterns.iter().flat_map(|p| p.captures()) {
                    let known = fields.is_some_and(|f| f.contains_key(&**capture));
                    let refuses = fields.is_none_or(|f| f.is_empty());
                    assert!(
                        known || refuses,
                        "{name} {} {}: {capture}",
                        row.patterns[0].source(),
                        operation.operation.name()
                    );
                }
            }
        }
    });
}

#[test]
fn every_list_path_ends_in_a_slash() {
    each(|name, engine| {
        for row in engine.table().rows() {
            let lists = row.operations.iter().any(|o| o.operation.lists());
            for pattern in &row.patterns {
                assert!(!lists || pattern.is_folder(), "{name} {} lists without a final slash", pattern.source());
            }
        }
    });
}

#[test]
fn engines_are_found_by_type_and_kv_defaults_to_version_1() {
    let registry = all();
    let find = |engine: &str, version: Option<&str>| {
        let options: BTreeMap<String, String> =
            version.into_iter().map(|v| ("version".to_owned(), v.to_owned())).collect();
        registry.find(Kind::Secrets, engine, &options).map(|e| e.variant)
    };
    for name in ["kv", "generic"] {
        assert_eq!(find(name, None), Some(Some(("version", "1"))));
        assert_eq!(find(name, Some("1")), Some(Some(("version", "1"))));
        assert_eq!(find(name, Some("2")), Some(Some(("version", "2"))));
    }
    assert_eq!(registry.versions(Kind::Secrets, "kv").collect::<Vec<_>>(), ["1", "2"]);
    for unversioned in ["generic", "transit"] {
        assert_eq!(registry.versions(Kind::Secrets, unversioned).count(), 0);
    }
    assert_eq!(find("cubbyhole", None), Some(None));
    assert_eq!(find("nothing", None), None);
    each(|name, engine| {
        let same = all()
            .all()
            .iter()
            .filter(|e| (e.kind, &e.engine, e.variant) == (engine.kind, &engine.engine, engine.variant))
            .count();
        assert_eq!(same, 1, "{name} is registered more than once");
    });
}
