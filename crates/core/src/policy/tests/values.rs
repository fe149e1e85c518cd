//! Equality of values in conditions, and the texts of conditions.

use super::denied_values::Scope;
use super::*;

/// Whether a policy that allows only `allowed` for `p` allows this value.
fn allows(value: &str, given: &Value) -> bool {
    let text = format!(r#"path "a" {{ capabilities = ["update"] allowed_parameters = {{ "p" = [{value}] }} }}"#);
    ask(&acl(&[&text]), Operation::Update, "a", &json!({ "p": given })).allowed
}

#[test]
fn whole_numbers_are_compared_exactly_and_others_as_floats() {
    assert!(allows("9007199254740993", &json!(9_007_199_254_740_993_u64)));
    assert!(!allows("9007199254740993", &json!(9_007_199_254_740_992_u64)));
    assert!(allows("1", &json!(1.0)) && allows("1.0", &json!(1)) && allows("0", &json!(-0.0)));
    assert!(!allows("1", &json!(1.5)) && !allows("1.5", &json!(1)));
}

#[test]
fn lists_and_objects_are_equal_by_their_elements() {
    assert!(allows(r#"[1, ["a"]]"#, &json!([1.0, ["a"]])));
    for given in [json!([1]), json!([1, ["a"], 2]), json!([1, ["b"]]), json!([2, ["a"]]), json!(1)] {
        assert!(!allows(r#"[1, ["a"]]"#, &given), "{given}");
    }
    assert!(allows("{ k = 1, l = [2] }", &json!({ "k": 1.0, "l": [2.0] })));
    for given in [json!({ "k": 1 }), json!({ "k": 1, "l": [2], "m": 3 }), json!({ "k": 1, "x": [2] }), json!({})] {
        assert!(!allows("{ k = 1, l = [2] }", &given), "{given}");
    }
}

fn parses(rule: &str) -> bool {
    parse("test", &format!(r#"path "a/" {{ {rule} }}"#)).is_ok()
}

#[test]
fn a_filter_of_names_needs_list_or_scan() {
    let with = |capability: &str| {
        parses(&format!(r#"capabilities = ["{capability}"] list_scan_response_keys_filter_path = "{{{{ .key }}}}""#))
    };
    assert_eq!(["list", "scan", "read"].map(with), [true, true, false]);
}

#[test]
fn the_bounds_of_wrapping_may_be_equal() {
    let with =
        |max: u32| parses(&format!(r#"capabilities = ["read"] min_wrapping_ttl = "5s" max_wrapping_ttl = "{max}s""#));
    assert_eq!([4, 5, 6].map(with), [false, true, true]);
}

#[test]
fn the_limit_of_a_page_may_be_a_text() {
    let with = |limit: &str| {
        let acl = acl(&[&format!(r#"path "a/" {{ capabilities = ["list"] pagination_limit = {limit} }}"#)]);
        ask(&acl, Operation::List, "a", &json!({})).limit
    };
    assert_eq!([r#""5""#, "5", "0"].map(with), [Some(5), Some(5), None]);
    assert!(!parses(r#"capabilities = ["list"] pagination_limit = "x""#));
}

fn reaches(denied: &Value, given: &Value, scope: Scope) -> bool {
    super::denied_values::reaches(denied, given, scope)
}

#[test]
fn a_value_that_nests_too_deep_counts_as_denied() {
    let nested = |levels: usize| (0..levels).fold(json!("y"), |inner, _| json!([inner]));
    let denied = |levels: usize| reaches(&json!("x"), &nested(levels), Scope::Data);
    assert_eq!([1, 128, 129].map(denied), [false, false, true]);
}

#[test]
fn a_value_has_at_most_ten_thousand_words() {
    let too_many = |commas: usize| super::denied_values::has_too_many_words(&json!(",".repeat(commas)));
    assert_eq!([9_998, 9_999, 10_000].map(too_many), [false, false, true]);
    assert!(!super::denied_values::has_too_many_words(&json!(vec![0; 9_999])));
    assert!(super::denied_values::has_too_many_words(&json!(vec![0; 10_000])));
}

#[test]
fn undeclared_data_is_compared_as_it_is_stored() {
    for (denied, given) in [
        (json!({ "k": "1" }), json!("k=1")),
        (json!({ "k": "1" }), json!(r#"{"k":"1"}"#)),
        (json!([]), json!({})),
        (json!([]), json!(null)),
        (json!("x"), json!("k=x")),
        (json!("ab"), json!("AB")),
        (json!(["a", "b"]), json!("b,a")),
    ] {
        assert!(!reaches(&denied, &given, Scope::Data), "{denied} {given}");
        assert!(reaches(&denied, &given, Scope::Declared), "{denied} {given}");
    }
}

#[test]
fn an_empty_text_is_an_empty_list() {
    assert!(reaches(&json!([]), &json!(""), Scope::Data) && reaches(&json!([]), &json!(""), Scope::Declared));
}

#[test]
fn a_fraction_reaches_every_pattern_and_a_whole_number_its_digits() {
    for scope in [Scope::Data, Scope::Declared] {
        assert!(reaches(&json!("ab*"), &json!(5.5), scope) && !reaches(&json!("ab*"), &json!(5), scope));
        assert!(reaches(&json!("5*"), &json!(57), scope) && !reaches(&json!("ab"), &json!(5.5), scope));
        assert!(reaches(&json!("*"), &json!("z"), scope) && !reaches(&json!("**x"), &json!("z"), scope));
        assert!(reaches(&json!("ab*"), &json!("abc"), scope) && !reaches(&json!("ab*"), &json!("ac"), scope));
    }
    assert!(
        reaches(&json!("AB*"), &json!("abc"), Scope::Declared) && !reaches(&json!("AB*"), &json!("abc"), Scope::Data)
    );
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_a_block_with_line_0() {
    let reported = |rule: &str| parse("test", &format!("path \"a\" {{\n{rule}\n}}")).unwrap_err().to_string();
    assert!(reported("foo = 1").contains("1 error occurred:\n\t* invalid key \"foo\" on line 2"));
    assert!(reported("foo \"b\" {}").contains("invalid key \"foo\" on line 0"));
    assert!(reported("foo = 1\nbar = 2").contains("2 errors occurred"));
}

#[test]
fn words_of_a_filter_need_no_spaces() {
    let rendered = |text: &str| super::list_filter::KeysFilter::parse(text).unwrap().render("a/", "xY").unwrap();
    assert_eq!(rendered("{{.path}}{{.key|uppercase}}"), "a/XY");
    assert_eq!(rendered(r#"{{.path}}{{.key|replace"x" "z"|lowercase}}"#), "a/zy");
}

#[test]
fn equal_filters_of_two_rules_are_one() {
    let rule = |filter: &str| {
        format!(r#"path "a/" {{ capabilities = ["list"] list_scan_response_keys_filter_path = "{filter}" }}"#)
    };
    let (one, other) = (rule("{{ .path }}{{ .key }}"), rule("b/{{ .key }}"));
    let filters = |texts: &[&str]| ask(&acl(texts), Operation::List, "a", &json!({})).keys_filters.len();
    assert_eq!((filters(&[&one, &one]), filters(&[&one, &other])), (1, 2));
}
