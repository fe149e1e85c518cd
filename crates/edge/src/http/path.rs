//! From the target of a request to the one canonical path: decoded once, refused when it could be read in two ways.

use std::borrow::Cow;

use http::{StatusCode, Uri};
use keepfast_framework::CanonicalPath;
use keepfast_framework::path::PathError;

use super::answer::Answer;

/// The path below `/v1/`, or the answer for a target that has none.
pub(crate) fn canonical(uri: &Uri) -> Result<CanonicalPath, Answer> {
    let raw = uri.path();
    let Some(below) = raw.strip_prefix("/v1/") else {
        return Err(elsewhere(raw));
    };
    let asks_for_help = || uri.query().is_some_and(|q| q.split('&').any(|p| p == "help" || p.starts_with("help=")));
    if FOLDERS.contains(&raw) && !asks_for_help() {
        return Err(redirect(uri, raw));
    }
    if let Cow::Owned(clean) = clean(raw) {
        // Browsers read `\` as `/`, and `/\host/` as another server.
        if clean.contains('\\') {
            return Err(Answer::text(StatusCode::BAD_REQUEST, "400 Bad Request"));
        }
        // The peer sends clients to the clean form, and some build their paths relying on it. Nothing is done here under
        // the unclean one.
        return Err(redirect(uri, &clean));
    }
    let decoded = decode(below).map_err(|fault| match fault {
        Undecodable::Percent => Answer::text(StatusCode::BAD_REQUEST, "400 Bad Request"),
        Undecodable::Utf8 => Answer::error(StatusCode::BAD_REQUEST, "path must be UTF-8"),
    })?;
    CanonicalPath::new(decoded).map_err(|error| match error {
        PathError::TooLong => Answer::error(StatusCode::URI_TOO_LONG, error.to_string()),
        PathError::Relative | PathError::Control | PathError::EmptySegment => {
            Answer::error(StatusCode::BAD_REQUEST, error.to_string())
        }
    })
}

/// Paths that are folders and nothing else.
const FOLDERS: [&str; 3] = ["/v1", "/v1/sys", "/v1/sys/config/state"];

/// To a clean path, with the query; a folder ends in a slash.
fn redirect(uri: &Uri, clean: &str) -> Answer {
    let slash = if FOLDERS.contains(&clean) { "/" } else { "" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Answer::redirect(&format!("{clean}{slash}{query}"))
}

/// There is one API and no user interface.
fn elsewhere(raw: &str) -> Answer {
    if raw == "/" || raw == "/ui" || raw.starts_with("/ui/") || raw == "/robots.txt" {
        return Answer::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    Answer::bare(StatusCode::NOT_FOUND)
}

/// Why a component cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// A `%` without two hexadecimal digits.
    Percent,
    /// Bytes that are not UTF-8.
    Utf8,
}

/// Percent-decoding, once. Unlike in a form, `+` is a plus.
pub(crate) fn decode(raw: &str) -> Result<String, Undecodable> {
    if !raw.contains('%') {
        return Ok(raw.to_owned());
    }
    let bytes = raw.as_bytes();
    let well_formed = bytes.iter().enumerate().filter(|(_, b)| **b == b'%').all(
        |(at, _)| matches!(bytes.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
    );
    if !well_formed {
        return Err(Undecodable::Percent);
    }
    percent_encoding::percent_decode(bytes).decode_utf8().map(Cow::into_owned).map_err(|_| Undecodable::Utf8)
}

/// The path with empty, `.` and `..` segments resolved; borrowed when there are none. It keeps a trailing slash.
fn clean(raw: &str) -> Cow<'_, str> {
    let unclean = |segment: &str| matches!(segment, "" | "." | "..");
    let body = raw.strip_prefix('/').unwrap_or(raw);
    if !body.strip_suffix('/').unwrap_or(body).split('/').any(unclean) || body.is_empty() {
        return Cow::Borrowed(raw);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in body.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let folder = raw.ends_with('/') && !kept.is_empty();
    Cow::Owned(format!("/{}{}", kept.join("/"), if folder { "/" } else { "" }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn told(target: &str) -> Result<String, (u16, String)> {
        let uri: Uri = target.parse().unwrap();
        canonical(&uri).map(|p| p.to_string()).map_err(|a| {
            let text = a
                .location
                .map_or_else(|| String::from_utf8_lossy(&a.body).into_owned(), |l| l.to_str().unwrap().to_owned());
            (a.status.as_u16(), text)
        })
    }

    #[test]
    fn sec_ac02_a_path_is_decoded_exactly_once() {
        for (target, path) in [
            ("/v1/secret/data/a%252e%252e", "secret/data/a%2e%2e"),
            ("/v1/secret/data/%252e%252e/b", "secret/data/%2e%2e/b"),
            ("/v1/secret/data/a%252fb", "secret/data/a%2fb"),
            ("/v1/secret/data/a%2fb", "secret/data/a/b"),
            ("/v1/secret/data/a+b", "secret/data/a+b"),
            ("/v1/secret/data/a%20b", "secret/data/a b"),
            ("/v1/secret/data/%C3%A4", "secret/data/ä"),
            ("/v1/secret/data/...", "secret/data/..."),
            ("/v1/secret/data/..a", "secret/data/..a"),
            ("/v1/secret/metadata/", "secret/metadata/"),
            ("/v1/", ""),
        ] {
            assert_eq!(told(target), Ok(path.to_owned()), "{target}");
        }
    }

    #[test]
    fn sec_ac02_what_decodes_to_a_second_reading_is_refused() {
        for target in [
            "/v1/secret/data/%2e%2e/b",
            "/v1/secret/data/..%2fb",
            "/v1/secret/data/%2e/b",
            "/v1/secret/data/%2fb",
            "/v1/secret/data/a%2f%2fb",
            "/v1/%2fsecret/data/a",
            "/v1/secret/data/a%00b",
            "/v1/secret/data/a%0ab",
            "/v1/secret/data/a%zz",
            "/v1/secret/data/a%2",
            "/v1/secret/data/%ff",
            "/v1/secret/data/%c0%ae%c0%ae/b",
        ] {
            assert_eq!(told(target).map_err(|(status, _)| status), Err(400), "{target}");
        }
        assert_eq!(told(&format!("/v1/{}", "a".repeat(9000))).map_err(|(s, _)| s), Err(414));
        assert_eq!(
            told("/v1/secret/data/%2e%2e/b").unwrap_err().1,
            "{\"errors\":[\"relative paths not supported\"]}\n"
        );
    }

    #[test]
    fn an_unclean_target_is_sent_to_its_clean_form() {
        for (target, location) in [
            ("/v1//secret/data/a", "/v1/secret/data/a"),
            ("/v1/secret/data/a//", "/v1/secret/data/a/"),
            ("/v1/secret/data/../data/a", "/v1/secret/data/a"),
            ("/v1/secret/./data/a?x=1&y=%2f", "/v1/secret/data/a?x=1&y=%2f"),
            ("/v1/../../..", "/"),
            ("/v1/..//evil.example/", "/evil.example/"),
        ] {
            assert_eq!(told(target), Err((307, location.to_owned())), "{target}");
        }
    }

    #[test]
    fn sec_kf15_no_target_is_sent_to_another_server() {
        for target in ["/v1/../\\evil.example/x", "/v1/../a/../\\evil", "/v1/..//\\evil", "/v1/./a\\b", "/v1/a//\\"] {
            assert_eq!(told(target), Err((400, "400 Bad Request".into())), "{target}");
        }
        assert_eq!(told("/v1/a\\b"), Ok("a\\b".into()));
    }

    #[test]
    fn there_is_nothing_outside_of_v1() {
        assert_eq!(told("/"), Err((404, "404 page not found\n".into())));
        assert_eq!(told("/ui/vault"), Err((404, "404 page not found\n".into())));
        for target in ["/v1", "/v2/x", "//v1/sys/health", "/V1/sys/health", "/v1%2fsys/health"] {
            assert_eq!(told(target), Err((404, "{\"errors\":[]}\n".into())), "{target}");
        }
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sec_ac01_what_is_let_through_has_one_reading(below in "([a-c.%/~;+]|%2e|%2f|%25|%00|%ff|\\.\\.|//){0,12}") {
            let Ok(uri) = format!("/v1/{below}").parse::<Uri>() else { return Ok(()) };
            if let Ok(path) = canonical(&uri) {
                let text = path.to_string();
                let body = text.strip_suffix('/').unwrap_or(&text);
                prop_assert!(body.is_empty() || body.split('/').all(|s| !matches!(s, "" | "." | "..")));
                // Decoding once more is another path, or none; encoding what was decoded leads back.
                let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
                prop_assert_eq!(decode(&encoded), Ok(text));
            }
        }

        #[test]
        fn a_clean_form_is_clean_and_stays_on_this_server(below in "([ab.]|/|\\.\\.|\\.){0,14}") {
            let raw = format!("/v1/{below}");
            let once = clean(&raw).into_owned();
            prop_assert_eq!(clean(&once), Cow::Borrowed(once.as_str()));
            prop_assert!(once.starts_with('/') && !once.starts_with("//"));
        }
    }
}
