//! The exact second at which rules, denials and sources of grants end, and what granting policies and reachable folders
//! are.

use std::time::Duration;

use super::*;

/// `NOW` and the second after it, as policy texts have them.
const UNTIL: &str = "1800000000";
const LATER: &str = "1800000001";

fn named(name: &str, text: &str) -> Policy {
    parse(name, text).unwrap()
}

fn compiled(policies: &[(&str, &str)]) -> Acl {
    let policies: Vec<_> = policies.iter().map(|(name, text)| named(name, text)).collect();
    Acl::compile(&policies, &Subject::default())
}

fn granting(acl: &Acl, path: &str, operation: Operation) -> Vec<String> {
    acl.granting(path, operation, false, NOW).iter().map(ToString::to_string).collect()
}

#[test]
fn a_rule_holds_until_its_expiration_and_not_at_it() {
    let rule = |until: &str| format!(r#"path "a" {{ capabilities = ["read"] expiration = {until} }}"#);
    assert!(!allowed(&acl(&[&rule(UNTIL)]), Operation::Read, "a"));
    assert!(allowed(&acl(&[&rule(LATER)]), Operation::Read, "a"));
    // Beside a rule without an expiration.
    let lasting = r#"path "a" { capabilities = ["list"] }"#;
    assert_eq!(can(&[lasting, &rule(UNTIL)], "a"), "list");
    assert_eq!(can(&[lasting, &rule(LATER)], "a"), "list,read");
}

#[test]
fn a_denial_in_another_case_ends_with_its_expiration() {
    let grant = r#"path "kv/*" { capabilities = ["read"] }"#;
    let denial = |until: &str| format!(r#"path "KV/x" {{ capabilities = ["deny"] expiration = {until} }}"#);
    let reads = |texts: &[&str]| allowed(&acl(texts), Operation::Read, "kv/x");
    assert!(!reads(&[grant, r#"path "KV/x" { capabilities = ["deny"] }"#]));
    assert!(!reads(&[grant, &denial(LATER)]));
    assert!(reads(&[grant, &denial(UNTIL)]));
    assert!(reads(&[grant, &denial("5")]));
}

#[test]
fn granting_policies_are_those_that_add_the_capability_now() {
    let acl = compiled(&[
        ("lasting", r#"path "kv/a" { capabilities = ["read"] }"#),
        ("ended", &format!(r#"path "kv/a" {{ capabilities = ["read"] expiration = {UNTIL} }}"#)),
        ("ending", &format!(r#"path "kv/a" {{ capabilities = ["read"] expiration = {LATER} }}"#)),
        ("other", r#"path "kv/a" { capabilities = ["update"] }"#),
        ("lists", r#"path "kv/" { capabilities = ["list"] }"#),
    ]);
    assert_eq!(granting(&acl, "kv/a", Operation::Read), ["ending", "lasting"]);
    assert_eq!(granting(&acl, "kv/a", Operation::Update), ["other"]);
    assert_eq!(granting(&acl, "kv", Operation::List), ["lists"]);
    assert_eq!(granting(&acl, "kv/", Operation::List), ["lists"]);
    assert!(granting(&acl, "kv/a", Operation::Help).is_empty() && granting(&acl, "kv/b", Operation::Read).is_empty());
    assert_eq!(granting(&Acl::Root, "kv/a", Operation::Read), ["root"]);
}

#[test]
fn help_is_allowed_on_every_path_and_grants_nothing_else() {
    let acl = acl(&[r#"path "a" { capabilities = ["read"] }"#]);
    for path in ["a", "b"] {
        assert!(allowed(&acl, Operation::Help, path) && !allowed(&acl, Operation::Head, path), "{path}");
    }
}

#[test]
fn a_folder_is_reached_by_a_rule_that_holds_and_denies_nothing() {
    let reaches = |text: &str| acl(&[text]).reaches("kv/", NOW);
    assert!(reaches(r#"path "kv/a" { capabilities = ["read"] }"#) && Acl::Root.reaches("kv/", NOW));
    assert!(!reaches(r#"path "kv/a" { capabilities = ["deny"] }"#));
    assert!(
        reaches(r#"path "kv*" { capabilities = ["read"] }"#) && reaches(r#"path "k*" { capabilities = ["read"] }"#)
    );
    assert!(!reaches(r#"path "other*" { capabilities = ["read"] }"#));
    assert!(!reaches(r#"path "kv/+/x" { capabilities = ["deny"] }"#));
    assert!(reaches(r#"path "kv/+/x" { capabilities = ["read"] }"#));
    assert!(!reaches(r#"path "other/+/x" { capabilities = ["read"] }"#));
    assert!(!reaches(r#"path "other/a" { capabilities = ["read"] }"#));
    assert!(!reaches(&format!(r#"path "kv/a" {{ capabilities = ["read"] expiration = {UNTIL} }}"#)));
    assert!(reaches(&format!(r#"path "kv/a" {{ capabilities = ["read"] expiration = {LATER} }}"#)));
}

#[test]
fn a_filtered_list_shows_names_to_read_and_folders_to_list() {
    let acl = acl(&[r#"
        path "kv/" { capabilities = ["list"] list_scan_response_keys_filter_path = "{{ .path }}{{ .key }}" }
        path "kv/both" { capabilities = ["read"] }
        path "kv/listed" { capabilities = ["list"] }
        path "kv/folder/" { capabilities = ["list"] }
        path "kv/secret/" { capabilities = ["read"] }
        path "kv/bare" { capabilities = ["list"] }
    "#]);
    let decision = ask(&acl, Operation::List, "kv", &json!({}));
    let shown: Vec<&str> = ["both", "listed", "none", "folder/", "secret/", "empty/", "bare/"]
        .into_iter()
        .filter(|name| acl.lists_name(&decision, "kv/", name, NOW))
        .collect();
    assert!(decision.allowed);
    assert_eq!(shown, ["both", "folder/", "bare/"]);
}

#[test]
fn the_wrapping_ttl_is_within_both_bounds() {
    let acl = acl(&[r#"path "a" { capabilities = ["read"] min_wrapping_ttl = "5s" max_wrapping_ttl = "9s" }"#]);
    let allowed = |seconds: Option<u64>| {
        let request = AclRequest {
            path: "a",
            operation: Operation::Read,
            creates: false,
            parameters: &|| Some(serde_json::Map::new()),
            declared: None,
            wrap_ttl: seconds.map(Duration::from_secs),
            now: NOW,
        };
        acl.allow(&request).allowed
    };
    let all = [None, Some(0), Some(4), Some(5), Some(9), Some(10)].map(allowed);
    assert_eq!(all, [false, false, false, true, true, false]);
}
