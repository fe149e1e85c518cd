//! The stanza `control_group`: what OpenBao 2.7.2 reads, and what rules require together.

use super::super::control_group::RequiredApprovals;
use super::super::parse_stored;
use super::*;

const IDENTITY: &str = r#"identity { group_names = ["g"] approvals = 1 }"#;
const READ: &str = r#"controlled_capabilities = ["read"]"#;

/// A rule with this stanza, in which `I` is an identity and `C` controls `read`.
fn rule(stanza: &str) -> String {
    let stanza = stanza.replace(" I", &format!(" {IDENTITY}")).replace(" C", &format!(" {READ}"));
    format!("path \"kv/x\" {{ capabilities = [\"read\", \"update\"]\n {stanza} }}")
}

const GROUP: &str = "failed to parse policy: path \"kv/x\": error handling control_group: 1 error occurred:\n\t* ";
const FACTOR: &str = "error handling control_group factor: 1 error occurred:\n\t* path control_group factor: ";

/// The results of OpenBao 2.7.2 for the same texts; the messages are those after its two frames.
#[test]
fn stanzas_are_read_as_openbao_reads_them() {
    let factor = |text: &str| format!("{GROUP}{FACTOR}{text}\n\n\n\n");
    let group = |text: &str| format!("{GROUP}{text}\n\n");
    for (stanza, expected) in [
        (r#"control_group { factor "a" { C I } }"#, None),
        (r#"control_group = { ttl = "1h" factor "a" { I C } }"#, None),
        (r#"control_group { ttl = 3600 factor "a" { C I } factor "b" { C I } }"#, None),
        (r#"control_group { factor "a" { C I } factor "a" { C I } }"#, None),
        (r#"control_group { ttl = "" factor "a" { C I } }"#, None),
        (r#"control_group { factor "a" { controlled_capabilities = ["read", "read"] I } }"#, None),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = "2" } } }"#, None),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1 ttl = "1h" } } }"#, None),
        (
            r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1 self_authorization = true } } }"#,
            None,
        ),
        (
            r#"control_group { factor "a" { C identity { group_ids = ["i"] group_names = ["g"] approvals = 1 } } }"#,
            None,
        ),
        ("control_group {}", Some(group("requires at least one factor but had none"))),
        (r#"control_group { ttl = "1h" }"#, Some(group("requires at least one factor but had none"))),
        ("control_group = []", Some(group("cannot check HCL keys of type *ast.ListType"))),
        (r#"control_group = "x""#, Some(group("cannot check HCL keys of type *ast.LiteralType"))),
        ("control_group = 5", Some(group("cannot check HCL keys of type *ast.LiteralType"))),
        (r#"control_group = [{ factor "a" { C I } }]"#, Some(group("cannot check HCL keys of type *ast.ListType"))),
        (
            r#"control_group { ttl = "x" factor "a" { C I } }"#,
            Some(group("path control_group: invalid ttl: time: invalid duration \"x\"")),
        ),
        (
            r#"control_group { ttl = true factor "a" { C I } }"#,
            Some(group("path control_group: invalid ttl: could not parse duration from input")),
        ),
        (r#"control_group { max_ttl = "1h" factor "a" { C I } }"#, Some(group("invalid key \"max_ttl\" on line 2"))),
        ("control_group { factor {} }", Some(factor("require name key"))),
        (r#"control_group { factor = "x" }"#, Some(factor("cannot check HCL keys of type *ast.LiteralType"))),
        (r#"control_group { factor "a" { C name = "n" I } }"#, Some(factor("invalid key \"name\" on line 2"))),
        (
            r#"control_group { factor "a" { C self_authorization = true I } }"#,
            Some(factor("invalid key \"self_authorization\" on line 2")),
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities = [] I } }"#,
            Some(group("factor 0: missing controlled capabilities")),
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities = ["sudo"] I } }"#,
            Some(group("path control_group Operation(s) not valid: sudo")),
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities = ["READ", "x"] I } }"#,
            Some(group("path control_group Operation(s) not valid: READ")),
        ),
        (
            r#"control_group { factor "a" { controlled_capabilities = [5] I } }"#,
            Some(group("path control_group Operation(s) not valid: 5")),
        ),
        (r#"control_group { factor "a" { C} }"#, Some(group("factor 0: missing required approvals"))),
        (
            r#"control_group { factor "a" { C I } factor "b" { C identity { group_names = ["g"] approvals = 0 } } }"#,
            Some(group("factor 1: missing required approvals")),
        ),
        (
            r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = -1 } } }"#,
            Some(group("factor 0: missing required approvals")),
        ),
        (
            r#"control_group { factor "a" { C identity { approvals = 1 } } }"#,
            Some(group("factor 0: missing approving groups")),
        ),
        (
            r#"control_group { factor "a" { C identity { group_names = [] approvals = 1 } } }"#,
            Some(group("factor 0: missing approving groups")),
        ),
    ] {
        let error = parse("test", &rule(stanza)).err().map(|error| error.to_string());
        assert_eq!(error, expected, "{stanza}");
    }
}

/// Where OpenBao 2.7.2 reads a text in another way: whether Keepfast accepts it.
#[test]
fn ambiguous_stanzas_are_refused_and_documented_ones_accepted() {
    for (stanza, accepted) in [
        // The documentation: without the field a factor controls every operation.
        (r#"control_group { factor "a" { I } }"#, true),
        (r#"control_group { factor "a" { C identity { group_ids = ["i"] approvals = 1 } } }"#, true),
        (r#"control_group { factor = { "a" = { C I } } }"#, true),
        // The documentation: a controlled capability is one of the capabilities of the path.
        (r#"control_group { factor "a" { controlled_capabilities = ["delete"] I } }"#, false),
        (r#"control_group { factor "a" { C I } } control_group { factor "b" { C I } }"#, false),
        (r#"control_group "x" { factor "a" { C I } }"#, false),
        (r#"control_group { factor "a" "b" { C I } }"#, false),
        (r#"control_group { ttl = "1h" ttl = "2h" factor "a" { C I } }"#, false),
        (r#"control_group { ttl = "-5s" factor "a" { C I } }"#, false),
        (r#"control_group { factor "a" { C I I } }"#, false),
        (r#"control_group { factor "a" { C identity "x" { group_names = ["g"] approvals = 1 } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1 foo = 1 } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = [""] approvals = 1 } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1 ttl = "x" } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = "g" approvals = 1 } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1.5 } } }"#, false),
        (r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = "x" } } }"#, false),
        (
            r#"control_group { factor "a" { C identity { group_names = ["g"] approvals = 1 self_authorization = "x" } } }"#,
            false,
        ),
    ] {
        assert_eq!(parse("test", &rule(stanza)).is_ok(), accepted, "{stanza}");
    }
    // A stored text of another server is not lost for a capability that it lacks, nor for a list that had no effect.
    let stored = rule(r#"control_group { factor "a" { controlled_capabilities = ["delete"] I } }"#);
    assert!(parse_stored("test", &stored).is_ok() && parse_stored("test", &rule("control_group = []")).is_ok());
    let json = r#"{"path": {"a": {"capabilities": ["read"], "control_group": {"ttl": "1h", "factor": [
        {"a": {"controlled_capabilities": ["read"], "identity": {"group_names": ["g"], "approvals": 1}}},
        {"b": {"identity": [{"group_names": ["g"], "approvals": 1}]}}]}}}}"#;
    assert_eq!(required(&[json], Operation::Read).unwrap().factors.len(), 2);
}

fn required(texts: &[&str], operation: Operation) -> Option<Box<RequiredApprovals>> {
    let decision = ask(&acl(texts), operation, "a", &json!({}));
    assert!(decision.allowed, "{operation:?}");
    decision.required
}

#[test]
fn the_factors_of_all_rules_that_decide_apply() {
    let policy = |capabilities: &str, ttl: &str, factor: &str, controlled: &str| {
        format!(
            "path \"a\" {{ capabilities = [{capabilities}] control_group {{ {ttl} factor {factor:?} {{ {controlled} {IDENTITY} }} }} }}"
        )
    };
    let plain = "path \"a\" { capabilities = [\"read\", \"update\", \"delete\"] }".to_owned();
    let read = policy("\"read\"", "ttl = 600", "one", READ);
    let all = policy("\"list\"", "ttl = 300", "two", "");
    let of = |texts: &[&String], operation| {
        let texts: Vec<_> = texts.iter().map(|text| text.as_str()).collect();
        required(&texts, operation).map(|required| {
            let names: Vec<_> = required.factors.iter().map(|factor| factor.name.clone()).collect();
            (names.join(","), required.ttl.map(|ttl| ttl.as_secs()))
        })
    };
    assert_eq!(of(&[&read], Operation::Read), Some(("one".to_owned(), Some(600))));
    assert_eq!(
        of(&[&plain, &read], Operation::Read),
        Some(("one".to_owned(), Some(600))),
        "another rule takes it not off"
    );
    assert_eq!(of(&[&plain, &read], Operation::Delete), None);
    assert_eq!(of(&[&plain, &read, &all], Operation::Read), Some(("one,two".to_owned(), Some(300))));
    assert_eq!(of(&[&all, &plain], Operation::Delete), Some(("two".to_owned(), Some(300))), "it controls everything");
    assert_eq!(of(&[&read, &read], Operation::Read).unwrap().0, "one");
}
