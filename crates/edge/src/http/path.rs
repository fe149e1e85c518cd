//! Converts the target of a request to the canonical path: decodes it once, refuses an ambiguous one.

use std::borrow::Cow;

use http::{StatusCode, Uri};
use keepfast_framework::CanonicalPath;
use keepfast_framework::path::{PathError, may_have_unclean_segment};

use super::edge_response::EdgeResponse;

/// The path below `/v1/`, or the response to a target without one.
pub(crate) fn canonical(uri: &Uri) -> Result<CanonicalPath, EdgeResponse> {
    let raw = uri.path();
    let Some(below) = raw.strip_prefix("/v1/") else {
        return Err(outside_api(raw));
    };
    let asks_for_help = || uri.query().is_some_and(|q| q.split('&').any(|p| p == "help" || p.starts_with("help=")));
    if FOLDERS.contains(&raw) && !asks_for_help() {
        return Err(redirect(uri, raw));
    }
    if let Cow::Owned(clean) = clean(raw) {
        // Browsers read `\` as `/`, and `/\host/` as another server.
        if clean.contains('\\') {
            return Err(EdgeResponse::text(StatusCode::BAD_REQUEST, "400 Bad Request"));
        }
        // OpenBao redirects to the clean path, and some clients rely on it. The unclean path is never served.
        return Err(redirect(uri, &clean));
    }
    let decoded = decode(below).map_err(|fault| match fault {
        Undecodable::Percent => EdgeResponse::text(StatusCode::BAD_REQUEST, "400 Bad Request"),
        Undecodable::Utf8 => EdgeResponse::error(StatusCode::BAD_REQUEST, "path must be UTF-8"),
    })?;
    CanonicalPath::new(decoded).map_err(|error| match error {
        PathError::TooLong => EdgeResponse::error(StatusCode::URI_TOO_LONG, error.to_string()),
        PathError::Relative | PathError::Control | PathError::EmptySegment => {
            EdgeResponse::error(StatusCode::BAD_REQUEST, error.to_string())
        }
    })
}

/// Paths that only contain other paths.
const FOLDERS: [&str; 3] = ["/v1", "/v1/sys", "/v1/sys/config/state"];

/// Redirects to a clean path with the query; a path that only contains others ends in a slash.
fn redirect(uri: &Uri, clean: &str) -> EdgeResponse {
    let slash = if FOLDERS.contains(&clean) { "/" } else { "" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    EdgeResponse::redirect(&format!("{clean}{slash}{query}"))
}

/// The response outside of `/v1/`: there is one API and no user interface.
fn outside_api(raw: &str) -> EdgeResponse {
    if raw == "/" || raw == "/ui" || raw.starts_with("/ui/") || raw == "/robots.txt" {
        return EdgeResponse::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    EdgeResponse::bare(StatusCode::NOT_FOUND)
}

/// Why a component cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// A `%` without two hexadecimal digits.
    Percent,
    /// Bytes that are not UTF-8.
    Utf8,
}

/// Decodes percent-encoding once. Unlike in a form, `+` is a plus.
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

/// Resolves empty, `.` and `..` segments; borrowed when there are none. Keeps a trailing slash.
fn clean(raw: &str) -> Cow<'_, str> {
    if raw.strip_prefix('/').is_some_and(|path| !may_have_unclean_segment(path.as_bytes())) {
        return Cow::Borrowed(raw);
    }
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

    fn outcome(target: &str) -> Result<String, (u16, String)> {
        let uri: Uri = target.parse().unwrap();
        canonical(&uri).map(|p| p.to_string()).map_err(|a| {
            let text = a.location().map_or_else(|| String::from_utf8_lossy(&a.body).into_owned(), str::to_owned);
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
            assert_eq!(outcome(target), Ok(path.to_owned()), "{target}");
        }
    }

    #[test]
    fn sec_ac02_a_path_that_decodes_to_another_reading_is_refused() {
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
            assert_eq!(outcome(target).map_err(|(status, _)| status), Err(400), "{target}");
        }
        assert_eq!(outcome(&format!("/v1/{}", "a".repeat(9000))).map_err(|(s, _)| s), Err(414));
        assert_eq!(
            outcome("/v1/secret/data/%2e%2e/b").unwrap_err().1,
            "{\"errors\":[\"relative paths not supported\"]}\n"
        );
    }

    #[test]
    fn an_unclean_target_is_redirected_to_its_clean_path() {
        for (target, location) in [
            ("/v1//secret/data/a", "/v1/secret/data/a"),
            ("/v1/secret/data/a//", "/v1/secret/data/a/"),
            ("/v1/secret/data/../data/a", "/v1/secret/data/a"),
            ("/v1/secret/./data/a?x=1&y=%2f", "/v1/secret/data/a?x=1&y=%2f"),
            ("/v1/../../..", "/"),
            ("/v1/..//evil.example/", "/evil.example/"),
        ] {
            assert_eq!(outcome(target), Err((307, location.to_owned())), "{target}");
        }
    }

    #[test]
    fn sec_kf15_no_target_is_redirected_to_another_server() {
        for target in ["/v1/../\\evil.example/x", "/v1/../a/../\\evil", "/v1/..//\\evil", "/v1/./a\\b", "/v1/a//\\"] {
            assert_eq!(outcome(target), Err((400, "400 Bad Request".into())), "{target}");
        }
        assert_eq!(outcome("/v1/a\\b"), Ok("a\\b".into()));
    }

    #[test]
    fn paths_outside_of_v1_are_404() {
        assert_eq!(outcome("/"), Err((404, "404 page not found\n".into())));
        assert_eq!(outcome("/ui/vault"), Err((404, "404 page not found\n".into())));
        for target in ["/v1", "/v2/x", "//v1/sys/health", "/V1/sys/health", "/v1%2fsys/health"] {
            assert_eq!(outcome(target), Err((404, "{\"errors\":[]}\n".into())), "{target}");
        }
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sec_ac01_an_accepted_path_has_one_reading(below in "([a-c.%/~;+]|%2e|%2f|%25|%00|%ff|\\.\\.|//){0,12}") {
            let Ok(uri) = format!("/v1/{below}").parse::<Uri>() else { return Ok(()) };
            if let Ok(path) = canonical(&uri) {
                let text = path.to_string();
                let body = text.strip_suffix('/').unwrap_or(&text);
                prop_assert!(body.is_empty() || body.split('/').all(|s| !matches!(s, "" | "." | "..")));
                // A second decoding gives another path or none; encoding the decoded path gives the target.
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
