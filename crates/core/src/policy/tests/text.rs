//! Policy texts.

use super::super::parse;

/// An ambiguous text, or one with keys that have no effect, is refused with its position.
#[test]
fn sec_ac11_ambiguous_and_unknown_text_is_refused() {
    for (text, message) in [
        (
            r#"path "a" { capabilities = ["read"] capabilities = ["list"] }"#,
            r#"path "a": The argument "capabilities" at 1:36 was already set. Each argument can only be defined once"#,
        ),
        (r#"{"path": {"a": {"capabilities": ["read"], "capabilities": ["list"]}}}"#, "at 1:43 was already set"),
        (
            r#"{"path": {"a": {"policy": "read"}, "a": {"policy": "deny"}}}"#,
            r#"The argument "a" at 1:36 was already set"#,
        ),
        (r#"{"path": {"a": {}}, "path": {"a": {}}}"#, r#"The argument "path" at 1:21"#),
        (r#"name = "x" name = "y""#, r#"The argument "name" at 1:12"#),
        (r#"path "a" { allowed_parameters = { a = [] A = [] } }"#, r#"The argument "A" at 1:42"#),
        (r#"path "a" { denied_parameters = { a = [{ b = 1 b = 2 }] } }"#, r#"The argument "b" at 1:47"#),
        (r#"path "a" { allowed_parameters { a = [] } allowed_parameters { b = [] } }"#, "was already set"),
        (
            "path \"a\" {\n  capabilites = [\"read\"]\n}",
            "path \"a\": 1 error occurred:\n\t* invalid key \"capabilites\" on line 2\n\n",
        ),
        (
            r#"path "a" { x = 1 y = 2 }"#,
            "2 errors occurred:\n\t* invalid key \"x\" on line 1\n\t* invalid key \"y\" on line 1\n",
        ),
        (r#"foo = "bar""#, "failed to parse policy: 1 error occurred:\n\t* invalid key \"foo\" on line 1\n"),
        (r#"PATH "a" {}"#, "invalid key \"PATH\""),
        (r#"path "a" { CAPABILITIES = [] }"#, "invalid key \"CAPABILITIES\""),
        (r#"path "a" { capabilities = ["reed"] }"#, r#"path "a": invalid capability "reed""#),
        (r#"path "a" { capabilities = ["READ"] }"#, "invalid capability"),
        (r#"path "a" { capabilities = ["root"] }"#, "invalid capability"),
        (r#"path "a" { capabilities = "read" }"#, "At 1:27: expected a list, got string"),
        (r#"path "a" { capabilities = [5] }"#, r#"invalid capability "5""#),
        (r#"path "a" { policy = "boo" }"#, r#"invalid policy "boo""#),
        (r#"path "a/+*" {}"#, "invalid use of wildcards ('+*' is forbidden)"),
        (r#"path "a" "b" {}"#, "expected a block"),
        ("path {}", "expected a block"),
        (r#"path = "a""#, "expected a block"),
        (r#"path = { "a" = {} }"#, "expected a block"),
        (r#"{"path": {"a": 5}}"#, "At 1:16: expected an object, got integer"),
        (r#"{"path": "a"}"#, "At 1:10: expected an object, got string"),
        (r#"path "a" { mfa_methods = ["x"] }"#, "mfa_methods is not supported"),
        (r#"path "a" { control_group = {} }"#, "requires at least one factor but had none"),
        (r#"path "a" { allowed_parameters "x" { a = [] } }"#, "unexpected label"),
        (r#"path "a" { allowed_parameters = { a = "x" } }"#, "expected a list, got string"),
        (r#"path "a" { allowed_parameters = ["x"] }"#, "expected an object, got list"),
        (
            r#"path "a" { min_wrapping_ttl = "1h" max_wrapping_ttl = "1m" }"#,
            "max_wrapping_ttl cannot be less than min_wrapping_ttl",
        ),
        (r#"path "a" { min_wrapping_ttl = "boo" }"#, r#"error parsing min_wrapping_ttl: time: invalid duration "boo""#),
        (
            r#"path "a" { max_wrapping_ttl = true }"#,
            "error parsing max_wrapping_ttl: could not parse duration from input",
        ),
        (r#"path "a" { max_wrapping_ttl = -1 }"#, "must not be negative"),
        (r#"path "a" { pagination_limit = -1 }"#, "expected a number that is not negative"),
        (r#"path "a" { pagination_limit = "x" }"#, "expected a number"),
        (r#"path "a" { expiration = "1h" }"#, "invalid expiration time: could not parse string as date and time"),
        (
            r#"path "a" { capabilities = ["list"] list_scan_response_keys_filter_path = "{{ .path }}" }"#,
            "resulted in same path for two different keys",
        ),
        (r#"path "a" { capabilities = ["list"] list_scan_response_keys_filter_path = "a/{{ .ke" }"#, "unclosed action"),
        (
            r#"path "a" { capabilities = ["list"] list_scan_response_keys_filter_path = "{{ .key }}{{ env }}" }"#,
            "unsupported action",
        ),
        ("path \"a\" {", "failed to parse policy: At 1:12: object expected closing RBRACE got: EOF"),
        ("[]", "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: LBRACK"),
    ] {
        let error = parse("test", text).unwrap_err();
        assert!(error.to_string().contains(message), "{text}\n{error}\n{message}");
        assert!(error.to_string().starts_with("failed to parse policy: "));
    }
    for text in [
        "",
        " ",
        "# only",
        "name = \"x\"",
        "path \"a\" {}",
        "path \"a\" { capabilities = [\"read\",,\"list\",], comment = 5 }",
        "path \"\" {}",
        "{}",
        "path a { mfa_methods = [] }",
        "path \"a\" {} path \"a\" {}",
    ] {
        assert!(parse("test", text).is_ok(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,80}") {
        let _ = parse("test", &text);
        let _ = parse("test", &format!("path \"a\" {{ {text} }}"));
        let _ = parse("test", &format!("path {text:?} {{ list_scan_response_keys_filter_path = {text:?} }}"));
    }
}
