//! Conditions on a grant: parameters, page sizes, wrapping.

use std::time::Duration;

use keepfast_framework::Operation;
use serde_json::{Value, json};

use super::*;
use super::{NOW, acl, ask};

/// A constraint applies to every value that a handler could read as the constrained one.
#[test]
fn sec_ac10_denied_values_are_denied_in_every_spelling() {
    let denied = acl(&[r#"path "a" { capabilities = ["update", "read"]
        denied_parameters = { "Ttl" = [0, "1h"] "name" = ["x", "evil*"] "flag" = [true] "any" = [] "lone" = ["*"] "both" = [["x", "y"]] } }"#]);
    for body in [
        json!({"ttl": 0}),
        json!({"TTL": 0}),
        json!({"ttl": "0"}),
        json!({"ttl": 0.0}),
        json!({"ttl": -0.0}),
        json!({"ttl": ""}),
        json!({"ttl": "0s"}),
        json!({"ttl": [0]}),
        json!({"ttl": null}),
        json!({"ttl": 3600}),
        json!({"ttl": "60m"}),
        json!({"ttl": {"k": "3600"}}),
        json!({"name": "x"}),
        json!({"name": ["x"]}),
        json!({"name": "y,x"}),
        json!({"name": "y , x"}),
        json!({"name": [["x"]]}),
        json!({"name": {"k": ["x"]}}),
        json!({"name": "evilness"}),
        json!({"name": "a,evil"}),
        json!({"NAME": "x", "name": "ok"}),
        json!({"flag": true}),
        json!({"flag": "true"}),
        json!({"flag": "T"}),
        json!({"flag": 1}),
        json!({"flag": "1"}),
        json!({"flag": [true]}),
        json!({"any": null}),
        json!({"any": 1}),
        json!({"Any": []}),
        json!({"lone": "z"}),
        json!({"lone": ["z"]}),
        json!({"both": ["x", "y"]}),
        json!({"both": "x,y"}),
    ] {
        assert!(!ask(&denied, Operation::Update, "a", &body).allowed, "{body}");
        assert!(!ask(&denied, Operation::Read, "a", &body).allowed, "{body}");
    }
    for body in [
        json!({}),
        json!({"ttl": 1}),
        json!({"ttl": -1}),
        json!({"name": "y"}),
        json!({"name": "X"}),
        json!({"flag": false}),
        json!({"flag": []}),
        json!({"other": 0}),
        json!({"both": ["y", "x"]}),
    ] {
        assert!(ask(&denied, Operation::Update, "a", &body).allowed, "{body}");
    }
}

#[test]
fn sec_ac10_allowed_values_are_allowed_literally() {
    let constrained = acl(&[r#"path "a" { capabilities = ["update"]
        allowed_parameters = { "Foo" = ["a", "b*", "*.example.com"] "n" = [1, true] "l" = [["a", "b"]] "any" = [] "lone" = ["*"] } }"#]);
    for body in [
        json!({}),
        json!({"foo": "a"}),
        json!({"FOO": "a"}),
        json!({"foo": "bx"}),
        json!({"foo": "b, bc"}),
        json!({"foo": "x.example.com"}),
        json!({"n": 1}),
        json!({"n": 1.0}),
        json!({"n": true}),
        json!({"l": ["a", "b"]}),
        json!({"any": {"deep": []}}),
        json!({"lone": "*"}),
    ] {
        assert!(ask(&constrained, Operation::Update, "a", &body).allowed, "{body}");
    }
    for body in [
        json!({"foo": "A"}),
        json!({"foo": "c"}),
        json!({"foo": ["a"]}),
        json!({"foo": "a,b"}),
        json!({"foo": "b,c"}),
        json!({"foo": ""}),
        json!({"foo": null}),
        json!({"foo": {"a": 1}}),
        json!({"foo": []}),
        json!({"foo": "evil.com,x.example.com"}),
        json!({"n": "1"}),
        json!({"n": 0}),
        json!({"n": -1}),
        json!({"n": [1]}),
        json!({"n": "true"}),
        json!({"l": ["a"]}),
        json!({"l": "a,b"}),
        json!({"l": []}),
        json!({"lone": "x"}),
        json!({"foo": "a", "z": 1}),
        json!({"foo": "a", "FOO": "c"}),
    ] {
        assert!(!ask(&constrained, Operation::Update, "a", &body).allowed, "{body}");
    }
    let unreadable = AclRequest {
        path: "a",
        operation: Operation::Update,
        creates: false,
        parameters: &|| None,
        declared: None,
        wrap_ttl: None,
        now: NOW,
    };
    assert!(!constrained.allow(&unreadable).allowed, "what cannot be read satisfies nothing");
    let star = acl(&[r#"path "a" { capabilities = ["update"] allowed_parameters = { "*" = [] "a" = ["1"] } }"#]);
    assert!(
        ask(&star, Operation::Update, "a", &json!({"b": 2, "a": "1"})).allowed
            && !ask(&star, Operation::Update, "a", &json!({"a": "2"})).allowed
    );
    let none = acl(&[r#"path "a" { capabilities = ["update"] denied_parameters = { "*" = ["x"] } }"#]);
    assert!(
        !ask(&none, Operation::Update, "a", &json!({"b": 2})).allowed
            && ask(&none, Operation::Update, "a", &json!({})).allowed
    );
}

#[test]
fn sec_ac10_required_names_are_exact_and_constraints_unite() {
    let required = acl(&[
        r#"path "a" { capabilities = ["update", "read", "delete", "list"] required_parameters = ["Foo", "bar"] }"#,
    ]);
    assert!(ask(&required, Operation::Update, "a", &json!({"foo": 1, "bar": null})).allowed);
    for body in [json!({"Foo": 1, "bar": 1}), json!({"foo": 1}), json!({})] {
        assert!(!ask(&required, Operation::Update, "a", &body).allowed, "{body}");
        assert!(
            ask(&required, Operation::Delete, "a", &body).allowed
                && ask(&required, Operation::List, "a", &body).allowed
        );
    }
    let with = |constraint: &str| format!(r#"path "a" {{ capabilities = ["update"] {constraint} }}"#);
    for (one, other, good, bad) in [
        (r#"allowed_parameters={a=["1"]}"#, "", vec![json!({"a": "1"})], vec![json!({"a": "2"}), json!({"b": 1})]),
        (
            r#"allowed_parameters={a=["1"]}"#,
            r#"allowed_parameters={a=["2"]}"#,
            vec![json!({"a": "1"}), json!({"a": "2"})],
            vec![json!({"a": "3"})],
        ),
        (
            r#"allowed_parameters={a=["1"]}"#,
            "allowed_parameters={a=[]}",
            vec![json!({"a": "3"})],
            vec![json!({"b": 1})],
        ),
        (
            r#"allowed_parameters={a=["1"]}"#,
            r#"allowed_parameters={"*"=[]}"#,
            vec![json!({"b": "3"})],
            vec![json!({"a": "2"})],
        ),
        (r#"denied_parameters={a=["1"]}"#, "denied_parameters={a=[]}", vec![json!({"b": 1})], vec![json!({"a": "3"})]),
        (
            r#"required_parameters=["a"]"#,
            r#"required_parameters=["b"]"#,
            vec![json!({"a": 1, "b": 1})],
            vec![json!({"a": 1})],
        ),
    ] {
        for texts in [[with(one), with(other)], [with(other), with(one)]] {
            let acl = acl(&[&texts[0], &texts[1]]);
            assert!(good.iter().all(|body| ask(&acl, Operation::Update, "a", body).allowed), "{texts:?}");
            assert!(!bad.iter().any(|body| ask(&acl, Operation::Update, "a", body).allowed), "{texts:?}");
        }
    }
}

#[test]
fn sec_ac10_page_size_cannot_be_evaded() {
    let rule = |limit: i32| format!(r#"path "l/*" {{ capabilities = ["list", "scan"] pagination_limit = {limit} }}"#);
    let limited = acl(&[&rule(3), &rule(2)]);
    for operation in [Operation::List, Operation::Scan] {
        let limit = |parameters: Value| {
            let decision = ask(&limited, operation, "l/a", &parameters);
            assert_eq!(decision.allowed, decision.limit.is_some());
            decision.limit
        };
        for (parameters, expected) in [
            (json!({}), Some(2)),
            (json!({"limit": ""}), Some(2)),
            (json!({"limit": 0}), Some(2)),
            (json!({"limit": "0"}), Some(2)),
            (json!({"limit": null}), Some(2)),
            (json!({"limit": "1"}), Some(1)),
            (json!({"limit": 2}), Some(2)),
            (json!({"limit": "01"}), Some(1)),
            (json!({"limit": "3"}), None),
            (json!({"limit": -1}), None),
            (json!({"limit": "-1"}), None),
            (json!({"limit": "abc"}), None),
            (json!({"limit": "99999999999999999999"}), None),
            (json!({"limit": ["1", "4"]}), None),
            (json!({"limit": [1]}), None),
            (json!({"limit": 1.5}), None),
            (json!({"limit": "0x1"}), None),
            (json!({"limit": "+1"}), None),
            (json!({"LIMIT": 9}), None),
            (json!({"limit": true}), None),
            (json!({"limit": 1, "Limit": 3}), None),
        ] {
            assert_eq!(limit(parameters.clone()), expected, "{operation:?} {parameters}");
        }
    }
    let unlimited = ask(&acl(&[&rule(0)]), Operation::List, "l/a", &json!({"limit": -1}));
    assert!(unlimited.allowed && unlimited.limit.is_none());
}

#[test]
fn sec_ac10_wrapping_bounds() {
    let ask = |rules: &[&str], ttl: u64| {
        let texts: Vec<_> =
            rules.iter().map(|rule| format!(r#"path "a" {{ capabilities = ["read"] {rule} }}"#)).collect();
        let acl = acl(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let wrap_ttl = (ttl != u64::MAX).then(|| Duration::from_secs(ttl));
        acl.allow(&AclRequest {
            path: "a",
            operation: Operation::Read,
            creates: false,
            parameters: &|| None,
            declared: None,
            wrap_ttl,
            now: NOW,
        })
        .allowed
    };
    let unwrapped = u64::MAX;
    for (rules, good, bad) in [
        (vec![r#"min_wrapping_ttl = "60s""#], vec![60, 61], vec![0, 59, unwrapped]),
        (vec!["max_wrapping_ttl = 60"], vec![1, 60], vec![0, 61, unwrapped]),
        (vec![r#"min_wrapping_ttl = "1m" max_wrapping_ttl = "2m""#], vec![60, 120], vec![0, 59, 121, unwrapped]),
        (vec!["min_wrapping_ttl = 60", "min_wrapping_ttl = 120"], vec![60], vec![59, unwrapped]),
        (vec!["max_wrapping_ttl = 120", "max_wrapping_ttl = 60"], vec![60], vec![61, unwrapped]),
        (vec!["max_wrapping_ttl = 60", ""], vec![60], vec![61, unwrapped]),
        (vec!["min_wrapping_ttl = 60", "max_wrapping_ttl = 30"], vec![], vec![29, 30, 45, 60, 61, unwrapped]),
        (vec![r#"min_wrapping_ttl = "0" max_wrapping_ttl = """#], vec![0, 1, unwrapped], vec![]),
    ] {
        assert!(good.iter().all(|ttl| ask(&rules, *ttl)), "{rules:?}");
        assert!(!bad.iter().any(|ttl| ask(&rules, *ttl)), "{rules:?}");
    }
}
