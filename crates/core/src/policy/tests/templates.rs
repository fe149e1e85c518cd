//! Identity values in paths.

use super::*;
use super::{NOW, policy, subject};

const SOURCES: [&str; 9] = [
    "identity.entity.id",
    "identity.entity.name",
    "identity.entity.metadata.k",
    "identity.entity.aliases.auth_userpass_1.id",
    "identity.entity.aliases.auth_userpass_1.name",
    "identity.entity.aliases.auth_userpass_1.metadata.k",
    "identity.entity.aliases.auth_userpass_1.custom_metadata.k",
    "identity.groups.ids.g-1.metadata.k",
    "identity.groups.names.dev.ops.metadata.k",
];

/// An identity value is a part of one segment; any other value grants nothing.
#[test]
fn sec_ac05_identity_values_cannot_widen_a_rule() {
    let others =
        ["x/", "x/zz", "x/zz/y", "x/a", "x/b", "x/a/b", "x/b/y", "x//y", "y", "a", "", "secret/x", "x/a*", "x/ab/c"];
    for source in SOURCES {
        let rules = policy(&format!(
            r#"path "x/{{{{{source}}}}}/y" {{ capabilities = ["read"] }} path "x/{{{{ {source} }}}}*" {{ capabilities = ["list"] }}"#
        ));
        assert!(rules.is_templated());
        let good = Acl::compile([&rules], &subject("Bo b.é{"));
        assert_eq!(good.capabilities("x/Bo b.é{/y", NOW), ["read"], "{source}");
        assert_eq!(good.capabilities("x/Bo b.é{z", NOW), ["list"], "{source}");
        assert_eq!(good.capabilities("x/other/y", NOW), ["deny"]);
        for value in [
            "/", "a/b", "a/../b", "../a", "x/*", "*", "a*", "+", "a+", "a/+", "", ".", "..", "a//b", "a\0", "a\n", "+*",
        ] {
            let acl = Acl::compile([&rules], &subject(value));
            for path in
                others.iter().map(|path| (*path).to_owned()).chain([format!("x/{value}/y"), format!("x/{value}")])
            {
                assert_eq!(acl.capabilities(&path, NOW), ["deny"], "{source} = {value:?} on {path}");
            }
        }
    }
}

/// A refused value must not remove a narrower rule and let a wider one decide.
#[test]
fn sec_ac05_refused_value_does_not_uncover_a_wider_rule() {
    let rules = policy(
        r#"path "x/*" { capabilities = ["read", "update"] } path "x/y/{{identity.entity.name}}" { capabilities = ["deny"] }"#,
    );
    assert_eq!(Acl::compile([&rules], &subject("b")).capabilities("x/y/b", NOW), ["deny"]);
    assert_eq!(Acl::compile([&rules], &subject("b/c")).capabilities("x/y/b/c", NOW), ["deny"]);
    assert_eq!(Acl::compile([&rules], &subject("b/c")).capabilities("x/z", NOW), ["read", "update"]);
    let mut wide = policy(r#"path "x/{{identity.entity.name}}*" { capabilities = ["read"] }"#);
    wide.templates.allow_slashes = true;
    assert_eq!(Acl::compile([&wide], &subject("b/c")).capabilities("x/b/cd", NOW), ["read"]);
    assert_eq!(Acl::compile([&wide], &subject("b/../c")).capabilities("x/b/../c", NOW), ["deny"]);
    wide.templates.allow_wildcards = true;
    assert_eq!(
        Acl::compile([&wide], &subject("+")).capabilities("x/a", NOW),
        ["deny"],
        "`+*` is forbidden however it arises"
    );
}

/// Only the alias that authenticated counts; without one no alias does.
#[test]
fn sec_ac06_only_the_authenticating_alias_counts() {
    let rules = policy(r#"path "x/{{identity.entity.aliases.auth_a.name}}" { capabilities = ["read"] }"#);
    let with = |accessor: &str, name: &str| {
        let alias = Alias { mount_accessor: accessor.to_owned(), name: name.to_owned(), ..Alias::default() };
        Acl::compile([&rules], &Subject { alias: Some(alias), entity: Some(Entity::default()), groups: Vec::new() })
    };
    assert_eq!(with("auth_a", "second").capabilities("x/second", NOW), ["read"]);
    assert_eq!(with("auth_a", "second").capabilities("x/first", NOW), ["deny"]);
    assert_eq!(with("auth_b", "second").capabilities("x/second", NOW), ["deny"]);
    assert_eq!(with("auth_a.name", "second").capabilities("x/second", NOW), ["deny"]);
    let nobody = Acl::compile([&rules], &Subject { entity: Some(Entity::default()), ..Subject::default() });
    assert_eq!(nobody.capabilities("x/", NOW), ["deny"]);
}

/// A path that is too long with its values denies all paths that it could cover.
#[test]
fn sec_kf04_identity_templates_have_a_length_and_their_paths_too() {
    let expressions = "{{identity.entity.name}}".repeat(100);
    let text = format!(r#"path "x/{expressions}" {{ capabilities = ["read"] }}"#);
    let wide = policy(r#"path "x/*" { capabilities = ["read"] }"#);
    let long = Acl::compile([&wide, &policy(&text)], &subject(&"b".repeat(1000)));
    assert_eq!(long.capabilities(&format!("x/{}", "b".repeat(4000)), NOW), ["deny"]);
    assert_eq!(long.capabilities("x/c", NOW), ["read"]);
    let short = Acl::compile([&policy(&text)], &subject("b"));
    assert_eq!(short.capabilities(&format!("x/{}", "b".repeat(100)), NOW), ["read"]);
    let text = format!(r#"path "x/{}" {{ capabilities = ["read"] }}"#, "{{identity.entity.name}}".repeat(200));
    assert!(parse("test", &text).unwrap_err().to_string().contains("a template has at most 4096 bytes"));
}

#[test]
fn unknown_expressions_grant_nothing_and_unpaired_braces_are_refused() {
    for expression in [
        "",
        "foo",
        "identity.entity.foo",
        "identity.entity",
        "identity.entity.metadata",
        "IDENTITY.entity.name",
        "identity.groups.names.other.id",
    ] {
        let rules = policy(&format!(r#"path "x/{{{{{expression}}}}}" {{ capabilities = ["read"] }}"#));
        let acl = Acl::compile([&rules], &subject("b"));
        assert!(["x/", "x/b", "x/{{}}"].iter().all(|path| acl.capabilities(path, NOW) == ["deny"]), "{expression}");
    }
    for path in ["x/}}", "x/{{a{{b}}", "x/{{a}}}}", "x/{{a"] {
        let error = parse("test", &format!("path {path:?} {{}}")).unwrap_err().to_string();
        assert!(error.contains("failed to validate policy templating: unbalanced templating characters"), "{error}");
    }
}

#[test]
fn a_rendered_path_has_the_length_of_a_value_at_most() {
    use keepfast_framework::text_limits::{TEMPLATE_BYTES, VALUE_CHARACTERS};

    use crate::policy::template::{Rendered, Template, TemplateOptions};
    let of = |template: &str, value: usize| {
        let template = Template::parse_stored(template).unwrap();
        let rendered = template.render(&subject(&"b".repeat(value)), TemplateOptions::default());
        matches!(rendered, Rendered::Path(path) if path.len() >= value)
    };
    let short = "x/{{identity.entity.name}}";
    assert_eq!([1, VALUE_CHARACTERS - 2, VALUE_CHARACTERS - 1].map(|value| of(short, value)), [true, true, false]);
    // A stored template may be longer than one that is written now, by the limit of which its path is longer.
    let long = format!("{}{{{{identity.entity.name}}}}", "x".repeat(TEMPLATE_BYTES));
    let beyond = long.len() - TEMPLATE_BYTES;
    let room = VALUE_CHARACTERS + beyond - TEMPLATE_BYTES;
    assert_eq!([1, room, room + 1].map(|value| of(&long, value)), [true, true, false]);
}
