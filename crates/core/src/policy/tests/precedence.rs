//! The deciding rule, and its grant.

use keepfast_framework::{Operation, Timestamp};
use serde_json::json;

use super::super::builtin::{self, reads_like_root};
use super::*;
use super::{NOW, acl, allowed, ask, can, policy, subject};

/// Policies, a path, and the response of `sys/capabilities` of OpenBao 2.7.2.
#[test]
fn precedence_is_the_peers() {
    let rule = |path: &str, capabilities: &str| {
        let quoted: Vec<_> =
            capabilities.split(',').filter(|name| !name.is_empty()).map(|name| format!("{name:?}")).collect();
        format!("path {path:?} {{ capabilities = [{}] }}\n", quoted.join(", "))
    };
    for (rules, path, answer) in [
        (vec![("a", "sudo,scan,list"), ("a", "read")], "a", "list,read,scan,sudo"),
        (vec![("a", "read"), ("a", "deny")], "a", "deny"),
        (vec![("a", "read"), ("a", "")], "a", "read"),
        (vec![("a*", "read"), ("a", "")], "a", "deny"),
        (vec![("/a/b", "read")], "a/b", "read"),
        (vec![("a/*", "read")], "a", "deny"),
        (vec![("a/*", "read")], "a/", "read"),
        (vec![("a/+", "read")], "a/b/", "read"),
        (vec![("a/+", "read")], "a/b/c", "deny"),
        (vec![("a", "read,list")], "a/", "list,read"),
        (vec![("a/", "read")], "a", "deny"),
        (vec![("+/b*", "read")], "a/bc/d", "read"),
        (vec![("a+", "read")], "ab", "deny"),
        (vec![("a+", "read")], "a+", "read"),
        (vec![("a/*/b", "read")], "a/x/b", "deny"),
        (vec![("a/**", "read")], "a/*b", "read"),
        (vec![("a/*", "read"), ("a/b*", "list"), ("a/bc", "delete")], "a/bd", "list"),
        (vec![("a/*", "read"), ("a/b*", "list"), ("a/bc", "delete")], "a/bc", "delete"),
        (vec![("+/b", "read"), ("a/*", "list")], "a/b", "list"),
        (vec![("a/+/c", "read"), ("a/b/+", "list"), ("+/b/c", "delete")], "a/b/c", "list"),
        (vec![("a/+/c", "read"), ("a/*", "list")], "a/b/c", "read"),
        (vec![("a/+/c*", "read"), ("a/+/c", "list")], "a/b/c", "list"),
        (vec![("m/private/", "list"), ("m/private", "read")], "m/private/", "list"),
    ] {
        let text: String = rules.iter().map(|(path, capabilities)| rule(path, capabilities)).collect();
        assert_eq!(can(&[&text], path), answer, "{text} on {path}");
        let apart: Vec<_> = rules.iter().map(|(path, capabilities)| rule(path, capabilities)).collect();
        let apart: Vec<_> = apart.iter().map(String::as_str).collect();
        assert_eq!(can(&apart, path), answer, "{text} on {path}");
    }
    assert_eq!(
        can(&[r#"path "a" { policy = "write" } path "b" { policy = "sudo" }"#], "a"),
        "create,delete,list,read,update"
    );
    assert_eq!(can(&[r#"path "a" { policy = "read" capabilities = ["delete"] }"#], "a"), "delete,list,read");
    assert_eq!(can(&[r#"{"path": [{"a": {"capabilities": ["read"]}}, {"b": {"policy": "deny"}}]}"#], "a"), "read");
}

#[test]
fn root_may_do_everything_and_help_is_for_everybody() {
    let decision = ask(&Acl::Root, Operation::Delete, "sys/anything", &json!({}));
    assert!(decision.allowed && decision.sudo && decision.root);
    assert_eq!(Acl::Root.capabilities("a", NOW), ["root"]);
    let nothing = acl(&[]);
    assert!(
        Operation::ALL.iter().all(|operation| allowed(&nothing, *operation, "a") == (*operation == Operation::Help))
    );
    assert!(!ask(&nothing, Operation::Help, "a", &json!({})).root);
}

#[test]
fn creating_and_updating_are_two_capabilities() {
    let acl = acl(&[r#"path "a" { capabilities = ["create"] } path "b" { capabilities = ["update", "sudo"] }"#]);
    let write = |path: &str, creates: bool| {
        acl.allow(&AclRequest {
            path,
            operation: Operation::Update,
            creates,
            parameters: &|| None,
            declared: None,
            wrap_ttl: None,
            now: NOW,
        })
    };
    assert!(write("a", true).allowed && !write("a", false).allowed);
    assert!(!write("b", true).allowed && write("b", false).allowed);
    assert!(write("b", false).sudo && !write("a", true).sudo);
}

/// LIST on `p` and `p/` is one decision, made by the most specific rule for either.
#[test]
fn sec_ac03_list_with_and_without_slash_is_one_decision() {
    let text = r#"path "m/*" { capabilities = ["list", "scan", "read"] }
        path "m/private/*" { capabilities = ["deny"] }
        path "m/plus/*" { capabilities = ["list"] }  path "m/plus/+/x" { capabilities = ["deny"] }
        path "m/exact" { capabilities = ["deny"] }   path "m/slash/" { capabilities = ["deny"] }"#;
    let acl = acl(&[text, r#"path "n/*" { capabilities = ["list", "scan"] } path "n/+" { capabilities = ["deny"] }"#]);
    for operation in [Operation::List, Operation::Scan] {
        for path in [
            "m/private",
            "m/private/",
            "m/private/k",
            "m/private/k/",
            "m/plus/a/x",
            "m/plus/a/x/",
            "m/exact",
            "m/exact/",
            "m/slash",
            "m/slash/",
        ] {
            assert!(!allowed(&acl, operation, path), "{operation:?} {path}");
        }
        // OpenBao allows this one: the wider `n/*` matches `n/k/`, the denial `n/+` only `n/k`.
        assert!(!allowed(&acl, operation, "n/k") && !allowed(&acl, operation, "n/k/"));
        assert!(
            allowed(&acl, operation, "n/k/l")
                && allowed(&acl, operation, "m/other")
                && allowed(&acl, operation, "m/other/")
        );
    }
    for rule in ["p", "p/"] {
        let acl = super::acl(&[&format!("path {rule:?} {{ capabilities = [\"list\", \"read\"] }}")]);
        assert!(allowed(&acl, Operation::List, "p") && allowed(&acl, Operation::List, "p/"));
        assert_eq!(allowed(&acl, Operation::Read, "p/"), rule == "p/", "reads are of the path as it stands");
    }
}

/// A denial covers every letter case of its path, unless a rule has that very spelling.
#[test]
fn sec_ac04_denial_covers_case_variants() {
    let acl = acl(&[r#"path "secret/data/*" { capabilities = ["read", "update", "delete", "list", "sudo"] }
        path "secret/data/example" { capabilities = ["deny"] }
        path "secret/data/Tree/*" { capabilities = ["deny"] }
        path "secret/data/+/Key" { capabilities = ["deny"] }
        path "secret/data/stra\u00dfe" { capabilities = ["deny"] }
        path "secret/data/EXAMPLE2" { capabilities = ["read"] } path "secret/data/example2" { capabilities = ["deny"] }"#]);
    for path in [
        "example",
        "Example",
        "EXAMPLE",
        "eXaMpLe",
        "tree/x",
        "TREE/X/Y",
        "Tree/x",
        "a/key",
        "a/KEY",
        "stra\u{df}e",
        "STRASSE",
    ] {
        let path = format!("secret/data/{path}");
        for operation in [Operation::Read, Operation::Update, Operation::Delete, Operation::List] {
            assert!(!allowed(&acl, operation, &path), "{operation:?} {path}");
        }
        assert_eq!(acl.capabilities(&path, NOW), ["deny"], "{path}");
    }
    assert!(!allowed(&acl, Operation::List, "secret/data/EXAMPLE/"));
    for path in ["examples", "tree", "a/key/b", "EXAMPLE2"] {
        assert!(allowed(&acl, Operation::Read, &format!("secret/data/{path}")), "{path}");
    }
    assert!(!allowed(&acl, Operation::Read, "secret/data/Example2"));
    assert_eq!(can(&[r#"path "a" { capabilities = ["read"] }"#], "A"), "deny", "a grant is for its own spelling only");
}

#[test]
fn expired_rules_are_as_if_not_written() {
    let text = r#"path "a" { capabilities = ["read"] expiration = "2027-01-01T00:00:00Z" } path "a*" { capabilities = ["list"] }
        path "b" { capabilities = ["deny"] expiration = 5 } path "b" { capabilities = ["read"] }
        path "c" { capabilities = ["read"] expiration = "99999999999" } path "d" { capabilities = ["read"] expiration = "" }"#;
    let mut rules = policy(text);
    let acl = Acl::compile([&rules], &Subject::default());
    let moment = Timestamp::parse_rfc3339("2027-01-01T00:00:00Z").unwrap();
    assert_eq!(acl.capabilities("a", Timestamp::from_nanos(moment.nanos() - 1)), ["read"]);
    assert_eq!(acl.capabilities("a", moment), ["list"]);
    assert_eq!(acl.capabilities("b", moment), ["read"]);
    assert_eq!(acl.capabilities("b", Timestamp::EPOCH), ["deny"]);
    assert_eq!((acl.capabilities("c", moment), acl.capabilities("d", moment)), (vec!["read"], vec!["read"]));
    rules.expiration = Some(moment);
    assert_eq!(Acl::compile([&rules], &Subject::default()).capabilities("d", moment), ["deny"]);
}

/// The names of a list that OpenBao 2.7.2 shows.
#[test]
fn lists_contain_the_names_that_the_filter_allows() {
    for (filter, shown) in [
        ("kv/data/l/{{ .key }}", vec!["1"]),
        ("{{ .path }}{{.key}}", vec!["4", "f/"]),
        (r#"{{.path | replace \"metadata\" \"data\"}}{{ .key | lowercase }}"#, vec!["1"]),
        ("", vec!["1", "2", "4", "f/"]),
    ] {
        let acl = acl(&[&format!(
            r#"path "kv/metadata/*" {{ capabilities = ["list"] list_scan_response_keys_filter_path = "{filter}" }}
            path "kv/data/l/1" {{ capabilities = ["read"] }} path "kv/data/l/2" {{ capabilities = ["list"] }} path "kv/metadata/l/4" {{ capabilities = ["read"] }}"#
        )]);
        let decision = ask(&acl, Operation::List, "kv/metadata/l/", &json!({}));
        assert!(decision.allowed);
        let keys =
            ["1", "2", "4", "f/"].into_iter().filter(|key| acl.lists_name(&decision, "kv/metadata/l/", key, NOW));
        assert_eq!(keys.collect::<Vec<_>>(), shown, "{filter}");
    }
}

/// No string is root: similar names are refused, others are ordinary names, and a stored policy with the name is an
/// ordinary policy.
#[test]
fn sec_ns02_no_spelling_of_root_is_root() {
    for name in [
        "root",
        "Root",
        "ROOT",
        " root",
        "root ",
        "\troot\n",
        "\u{ff52}\u{ff4f}\u{ff4f}\u{ff54}",
        "root\u{0}",
        "ro\u{200b}ot",
        "r\u{f6}\u{f6}t",
        "\u{feff}root",
    ] {
        assert!(reads_like_root(name), "{name:?}");
    }
    for name in ["ro\u{131}t", "roots", "root-2", "r", "", "my root policy"] {
        assert!(!reads_like_root(name), "{name:?}");
    }
    let impostor = parse("root", r#"path "a" { capabilities = ["read"] }"#).unwrap();
    let acl = Acl::compile([&impostor], &Subject::default());
    assert_eq!(acl.capabilities("sys/raw/x", NOW), ["deny"]);
    let decision = ask(&acl, Operation::Read, "a", &json!({}));
    assert!(decision.allowed && !decision.root && !decision.sudo);
}

/// The grants of OpenBao 2.7.2's default policy.
#[test]
fn built_in_policies_grant_the_same_as_openbaos() {
    let default = parse("default", builtin::DEFAULT_TEXT).unwrap();
    let acl = Acl::compile([&default], &subject("e-1"));
    for (path, answer) in [
        ("auth/token/lookup-self", "read"),
        ("auth/token/renew-self", "update"),
        ("auth/token/revoke-self", "update"),
        ("sys/capabilities-self", "update"),
        ("identity/entity/id/e-1", "read"),
        ("identity/entity/name/e-1", "read"),
        ("identity/entity/id/e-2", "deny"),
        ("sys/internal/ui/resultant-acl", "read"),
        ("sys/leases/renew", "update"),
        ("sys/leases/lookup", "update"),
        ("cubbyhole/x", "create,delete,list,read,update"),
        ("sys/wrapping/wrap", "update"),
        ("sys/wrapping/lookup", "update"),
        ("sys/wrapping/unwrap", "update"),
        ("sys/tools/hash", "update"),
        ("sys/tools/hash/x", "update"),
        ("identity/oidc/provider/p/authorize", "read,update"),
        ("sys/renew", "deny"),
        ("sys/mounts", "deny"),
    ] {
        assert_eq!(acl.capabilities(path, NOW).join(","), answer, "{path}");
    }
    assert_eq!(default.paths.len(), 16);
    let wrapping = parse("response-wrapping", builtin::RESPONSE_WRAPPING_TEXT).unwrap();
    let acl = Acl::compile([&wrapping], &Subject::default());
    assert_eq!(acl.capabilities("cubbyhole/response", NOW), ["create", "read"]);
    assert_eq!(acl.capabilities("cubbyhole/other", NOW), ["deny"]);
}

#[test]
fn resultant_shows_paths_with_their_grants() {
    let text = r#"path "a/b" { capabilities = ["read"] required_parameters = ["x"] allowed_parameters = { a = ["1"] } min_wrapping_ttl = "1m" }
        path "a/+/c" { capabilities = ["deny"] } path "z*" { capabilities = ["list", "sudo"] }
        path "old" { capabilities = ["read"] expiration = 5 }"#;
    let expected = json!({
        "exact_paths": { "a/b": { "capabilities": ["read"], "allowed_parameters": { "a": ["1"] }, "required_parameters": ["x"], "min_wrapping_ttl": 60 } },
        "glob_paths": { "z": { "capabilities": ["list", "sudo"] } },
        "root": false,
    });
    assert_eq!(acl(&[text]).resultant("", NOW), expected);
    assert_eq!(Acl::Root.resultant("", NOW), json!({ "root": true }));
}
