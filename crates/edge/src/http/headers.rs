//! The headers that the edge reads: token, namespace, wrapping TTL, content type, `X-Forwarded-For`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use keepfast_crypto::secret::SecretString;
use keepfast_framework::external_key::DEPTH_HEADER;
use keepfast_framework::fields::go_duration;
use keepfast_framework::{AuditedHeader, Authorization, ClusterPart, StateIndex};

use super::edge_response::EdgeResponse;
use crate::config::Forwarded;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const MFA: HeaderName = HeaderName::from_static("x-vault-mfa");
const WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
const FORWARD: HeaderName = HeaderName::from_static("x-vault-forward");
const NO_FORWARDING: HeaderName = HeaderName::from_static("x-vault-no-request-forwarding");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The number of external keys above a request of another server.
const EXTERNAL_KEY_DEPTH: HeaderName = HeaderName::from_static(DEPTH_HEADER);
/// The maximum length of that number.
const MAX_DEPTH_LENGTH: usize = 3;

/// The most header fields of a request.
const MAX_FIELDS: usize = 100;

/// Refuses a head that another server could read as a request to another host: without `Host` in HTTP/1.1, with
/// several, with an invalid one, or with another host in its target or `:authority` (RFC 9112 section 3.2, RFC 9113
/// section 8.3.1). Also refuses too many fields, which hyper limits for HTTP/1 only.
pub(crate) fn check_unambiguous(head: &Parts) -> Result<(), EdgeResponse> {
    if head.headers.len() > MAX_FIELDS {
        return Err(EdgeResponse::bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    // RFC 9110 section 10.1.1 defines one expectation.
    let expects = head.headers.get(EXPECT).filter(|_| head.version < Version::HTTP_2);
    if expects.is_some_and(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(EdgeResponse::empty(StatusCode::EXPECTATION_FAILED));
    }
    let refused = |text: &'static str| Err(EdgeResponse::text(StatusCode::BAD_REQUEST, text));
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (host, others) = (hosts.next(), hosts.next());
    if others.is_some() {
        return refused("400 Bad Request: too many Host headers");
    }
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (host, target) {
        (None, _) if head.version == Version::HTTP_11 => refused("400 Bad Request: missing required Host header"),
        (Some(host), _) if host.iter().any(|byte| !byte.is_ascii_graphic() || b"/\\@?#,".contains(byte)) => {
            refused("400 Bad Request: malformed Host header")
        }
        (Some(host), Some(target))
            if !without_default_port(host, &head.uri).eq_ignore_ascii_case(without_default_port(target, &head.uri)) =>
        {
            refused("400 Bad Request: the Host header names another host than the request")
        }
        _ => Ok(()),
    }
}

/// Removes the default port of the scheme from a host.
fn without_default_port<'a>(host: &'a [u8], target: &http::Uri) -> &'a [u8] {
    let port: &[u8] = if target.scheme_str() == Some("https") { b":443" } else { b":80" };
    host.strip_suffix(port).unwrap_or(host)
}

/// The headers that only a node of a cluster evaluates; `None` without them. `target` is the path of the request with
/// its query.
pub(crate) fn cluster_part(headers: &HeaderMap, target: &str) -> Result<Option<Box<ClusterPart>>, EdgeResponse> {
    let refused = |text: &'static str| EdgeResponse::error(StatusCode::BAD_REQUEST, text);
    let value = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
    let decode = |value| StateIndex::decode(value).ok_or_else(|| refused("failed to decode \"X-Vault-Index\""));
    let index = value(&INDEX).map(decode).transpose()?;
    let forward_when_behind = match headers.get(INCONSISTENT).map(HeaderValue::as_bytes) {
        None | Some(b"fail") => false,
        Some(b"forward-active-node") => true,
        Some(_) => return Err(refused("unknown value for \"X-Vault-Inconsistent\" header")),
    };
    let forward = value(&FORWARD).is_some_and(|value| value == b"active-node");
    let redirect = value(&NO_FORWARDING).map(|_| target.to_owned());
    let is_empty = index.is_none() && !forward_when_behind && !forward && redirect.is_none();
    let part = ClusterPart { index, forward_when_behind, forward, redirect, ..ClusterPart::default() };
    Ok((!is_empty).then(|| Box::new(part)))
}

/// Whether `Accept` contains a format that Prometheus reads: OpenMetrics, its text format by version, or its oldest
/// name. Scrapers list several, in an order that depends on their version, so any of them counts.
pub(crate) fn accepts_prometheus(headers: &HeaderMap) -> bool {
    const FORMS: [&str; 3] = ["application/openmetrics-text", "prometheus/telemetry", "text/plain;version=0.0.4"];
    let named = |value: &HeaderValue| {
        let text: String = value.to_str().unwrap_or_default().chars().filter(|c| !c.is_ascii_whitespace()).collect();
        text.split(',')
            .any(|range| FORMS.iter().any(|form| range.get(..form.len()).is_some_and(|r| r.eq_ignore_ascii_case(form))))
    };
    headers.get_all(ACCEPT).iter().any(named)
}

/// The client token of `X-Vault-Token`, or of `Authorization: Bearer` where the first is absent or empty.
pub(crate) fn token(headers: &HeaderMap, longest: usize) -> Result<Option<SecretString>, EdgeResponse> {
    let bearer = || headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let bytes = own_token(headers).or_else(bearer).unwrap_or_default();
    if bytes.len() > longest {
        return Err(EdgeResponse::error(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the token header is too large (max_token_header_size)",
        ));
    }
    let bytes = bytes.trim_ascii();
    // Without an early end the compiler checks many bytes at once.
    if bytes.iter().fold(false, |found, byte| found | byte.is_ascii_control()) {
        return Err(EdgeResponse::text(StatusCode::BAD_REQUEST, "400 Bad Request: invalid header value"));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
    Ok(Some(SecretString::new(text)))
}

/// `X-Vault-Token`, unless it is empty.
fn own_token(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(TOKEN).map(HeaderValue::as_bytes).filter(|own| !own.trim_ascii().is_empty())
}

/// The `Authorization` header apart from the token; credentials that are longer than a token may be are ignored.
pub(crate) fn authorization(headers: &HeaderMap, longest: usize) -> Authorization {
    let Some(value) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return Authorization::None };
    if value.starts_with(b"Bearer ") {
        return if own_token(headers).is_some() { Authorization::None } else { Authorization::Bearer };
    }
    match value.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Basic ") && rest.len() <= longest => {
            let text = std::str::from_utf8(rest.trim_ascii()).map(str::to_owned);
            text.map_or(Authorization::None, |text| Authorization::Basic(SecretString::new(text)))
        }
        _ => Authorization::None,
    }
}

/// The values of `X-Vault-MFA`: the id or the name of an MFA method, and a code after a colon where it has one.
pub(crate) fn mfa(headers: &HeaderMap) -> Result<Vec<SecretString>, EdgeResponse> {
    let mut out = Vec::new();
    for value in headers.get_all(MFA).iter().filter(|value| !value.is_empty()) {
        let text = SecretString::new(String::from_utf8_lossy(value.as_bytes()).into_owned());
        let missing = match text.expose().split_once(':') {
            Some(("", _)) => Some("method name or ID"),
            Some((_, "")) => Some("method value"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(EdgeResponse::error(
                StatusCode::BAD_REQUEST,
                format!(
                    "failed to parse X-Vault-MFA header: invalid data in header \"X-Vault-MFA\"; missing {missing}"
                ),
            ));
        }
        out.push(text);
    }
    Ok(out)
}

/// An upper bound of the bytes of the header values that a request keeps: in memory or in its response, and again where
/// an audit device records them.
pub(crate) fn kept_length(headers: &HeaderMap, audited: &BTreeMap<String, bool>) -> usize {
    let length = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str();
        let is_own = matches!(
            name,
            "x-vault-token"
                | "authorization"
                | "x-vault-mfa"
                | "x-vault-namespace"
                | "x-vault-wrap-ttl"
                | "origin"
                | "x-vault-index"
        );
        let copies = usize::from(is_own) + usize::from(audited.contains_key(name));
        if copies == 0 { 0 } else { copies * text_length(value) }
    };
    headers.iter().map(length).sum()
}

/// An upper bound of the length of a value as text, in bytes: a byte that is not UTF-8 becomes a character of three.
fn text_length(value: &HeaderValue) -> usize {
    let bytes = value.as_bytes();
    bytes.len() + 2 * bytes.iter().filter(|byte| !byte.is_ascii()).count()
}

/// The namespace without slashes at its ends; empty for the root namespace.
pub(crate) fn namespace(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(NAMESPACE) else { return String::new() };
    let text = String::from_utf8_lossy(value.as_bytes());
    let name = text.trim().trim_matches('/');
    if name == "root" { String::new() } else { name.to_owned() }
}

/// The headers that audit devices record, and the depth of external keys, which has no value where it is not one
/// number. Bytes that are not UTF-8 are replaced.
pub(crate) fn audited(headers: &HeaderMap, wanted: &BTreeMap<String, bool>) -> Vec<AuditedHeader> {
    let mut out = Vec::new();
    for (name, &hmac) in wanted {
        let mut values =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).peekable();
        if values.peek().is_some() {
            out.push(AuditedHeader { name: name.clone(), values: values.collect(), hmac });
        }
    }
    // The server reads it from here, so it is kept without a setting, and without HMAC.
    if headers.contains_key(EXTERNAL_KEY_DEPTH) {
        let mut values = headers.get_all(EXTERNAL_KEY_DEPTH).iter();
        let is_short = |value: &&HeaderValue| value.len() <= MAX_DEPTH_LENGTH;
        let value =
            values.next().filter(is_short).and_then(|value| value.to_str().ok()).filter(|_| values.next().is_none());
        let values = value.map(str::to_owned).into_iter().collect();
        out.retain(|header| header.name != EXTERNAL_KEY_DEPTH.as_str());
        out.push(AuditedHeader { name: EXTERNAL_KEY_DEPTH.as_str().to_owned(), values, hmac: false });
    }
    out
}

/// The wrapping TTL of the response; `None` for a response that is not wrapped.
pub(crate) fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Duration>, EdgeResponse> {
    let Some(value) = headers.get(WRAP_TTL) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let refused = |why: String| {
        EdgeResponse::error(StatusCode::BAD_REQUEST, format!("error parsing X-Vault-Wrap-TTL header: {why}"))
    };
    let nanos = nanoseconds(text.trim()).map_err(refused)?;
    if nanos < 0 {
        return Err(refused("requested wrap ttl cannot be negative".into()));
    }
    Ok(u64::try_from(nanos).ok().filter(|n| *n > 0).map(Duration::from_nanos))
}

/// Parses seconds, days or Go's syntax to nanoseconds that fit Go's 64 bits.
fn nanoseconds(text: &str) -> Result<i128, String> {
    let seconds = if text.is_empty() {
        Some(0)
    } else if let Ok(seconds) = text.parse::<i64>() {
        Some(i128::from(seconds))
    } else {
        text.strip_suffix('d').and_then(|d| d.parse::<i64>().ok()).map(|days| i128::from(days) * 86_400)
    };
    let nanos = match seconds {
        Some(seconds) => seconds * 1_000_000_000,
        None => go_duration(text)?,
    };
    if i64::try_from(nanos).is_err() {
        return Err("multiplication of durations resulted in overflow, one operand may be too large".into());
    }
    Ok(nanos)
}

/// Whether the content type is a form. `curl -d` declares JSON as a form, too.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = value.split(|b| *b == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Requires the content type of a JSON merge patch (RFC 7396), for PATCH.
pub(crate) fn require_merge_patch(headers: &HeaderMap) -> Result<(), EdgeResponse> {
    let bad = |text: &'static str| EdgeResponse::error(StatusCode::BAD_REQUEST, text);
    let text =
        headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default();
    let mut parts = text.split(';');
    let kind = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.is_empty() {
        return Err(bad("mime: no media type"));
    }
    let parts: Vec<&str> = parts.map(str::trim).collect();
    // A single `;` at the end is valid.
    let last = parts.len().saturating_sub(1);
    if parts.iter().enumerate().any(|(at, p)| !(p.contains('=') || at == last && p.is_empty())) {
        return Err(bad("mime: invalid media parameter"));
    }
    if kind != "application/merge-patch+json" {
        let text = format!("PATCH requires Content-Type of application/merge-patch+json, provided {kind}");
        return Err(EdgeResponse::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

/// The address of the caller: the peer of the connection, or the address that an authorized proxy forwards.
pub(crate) fn remote(
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    rules: &Forwarded,
) -> Result<Option<SocketAddr>, EdgeResponse> {
    let Some(peer) = peer else { return Ok(None) };
    if rules.authorized.is_empty() {
        return Ok(Some(peer));
    }
    let refused = |text: String| Err(EdgeResponse::error(StatusCode::BAD_REQUEST, text));
    let addresses: Vec<&[u8]> =
        headers.get_all(FORWARDED_FOR).iter().flat_map(|v| v.as_bytes().split(|b| *b == b',')).collect();
    if addresses.is_empty() {
        if rules.reject_not_present {
            return refused("missing x-forwarded-for header and configured to reject when not present".into());
        }
        return Ok(Some(peer));
    }
    if !rules.authorized.iter().any(|net| net.contains(&peer.ip().to_canonical())) {
        if rules.reject_not_authorized {
            return refused(
                "client address not authorized for x-forwarded-for and configured to reject connection".into(),
            );
        }
        return Ok(Some(peer));
    }
    let Some(place) = addresses.len().checked_sub(rules.hop_skips + 1) else {
        return refused(format!(
            "malformed x-forwarded-for configuration or request, hops to skip ({}) would skip before earliest chain link (chain length {})",
            rules.hop_skips,
            addresses.len()
        ));
    };
    match std::str::from_utf8(addresses[place]).ok().and_then(|text| address(text.trim(), peer.port())) {
        Some(address) => Ok(Some(address)),
        // Bound CIDRs need a real address; OpenBao accepts any text.
        None => refused("malformed x-forwarded-for header: not an address".into()),
    }
}

/// Parses an address with or without a port and brackets.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return Some(whole);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn outcome(a: &EdgeResponse) -> (u16, String) {
        (a.status.as_u16(), String::from_utf8_lossy(&a.body).into_owned())
    }

    fn token_of(pairs: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        token(&headers(pairs), 8192).map(|t| t.map(|t| t.expose().clone())).map_err(|a| a.status.as_u16())
    }

    #[test]
    fn credentials_and_the_source_of_the_token_are_kept() {
        let of = |fields: &[(&'static str, &str)]| authorization(&headers(fields), 8);
        assert!(matches!(of(&[]), Authorization::None));
        assert!(matches!(of(&[("authorization", "Digest a")]), Authorization::None));
        let bearer = ("authorization", "Bearer t");
        assert!(matches!(of(&[bearer]), Authorization::Bearer));
        assert!(matches!(of(&[bearer, ("x-vault-token", " ")]), Authorization::Bearer));
        assert!(matches!(of(&[bearer, ("x-vault-token", "t")]), Authorization::None));
        for value in ["Basic aTpzMTI=", "basic aTpzMTI="] {
            let kept = of(&[("authorization", value)]);
            assert!(matches!(kept, Authorization::Basic(text) if text.expose() == "aTpzMTI="), "{value}");
        }
        assert!(matches!(of(&[("authorization", "Basic aTpzMTIz1")]), Authorization::None), "longer than a token");
    }

    #[test]
    fn the_depth_of_external_keys_is_kept_without_a_setting() {
        let depth = |fields: &[(&'static str, &str)]| {
            let kept = audited(&headers(fields), &BTreeMap::new());
            kept.into_iter().next().map(|header| (header.name, header.values))
        };
        let name = "x-keepfast-external-key-depth";
        let kept = |values: &[&str]| Some((name.to_owned(), values.iter().map(|it| (*it).to_owned()).collect()));
        assert_eq!(depth(&[]), None);
        assert_eq!(depth(&[(name, "2")]), kept(&["2"]));
        assert_eq!(depth(&[(name, "2"), (name, "0")]), kept(&[]));
        assert_eq!(depth(&[(name, "0002")]), kept(&[]));
    }

    #[test]
    fn accept_headers_of_scrapers_select_prometheus() {
        for accept in [
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.6, Application/OpenMetrics-Text; version=1.0.0",
            "text/plain; version=0.0.4",
            "prometheus/telemetry",
        ] {
            assert!(accepts_prometheus(&headers(&[("accept", "*/*"), ("accept", accept)])), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/json, text/plain;version=1.0.0",
            "x/application/openmetrics-text",
            "\u{e9}\u{e9}",
        ] {
            assert!(!accepts_prometheus(&headers(&[("accept", accept)])), "{accept}");
        }
    }

    #[test]
    fn the_token_header_takes_precedence_over_bearer() {
        assert_eq!(token_of(&[("x-vault-token", " a "), ("authorization", "Bearer b")]), Ok(Some("a".into())));
        assert_eq!(token_of(&[("x-vault-token", ""), ("authorization", "Bearer  b")]), Ok(Some("b".into())));
        assert_eq!(token_of(&[("x-vault-token", "a"), ("x-vault-token", "b")]), Ok(Some("a".into())));
        for none in ["bearer b", "Basic b", "Bearer"] {
            assert_eq!(token_of(&[("authorization", none)]), Ok(None), "{none}");
        }
        assert_eq!(token_of(&[("x-vault-token", "a\tb")]), Err(400));
    }

    #[test]
    fn sec_ds10_a_token_header_of_more_than_8_kib_is_431() {
        assert_eq!(token_of(&[("x-vault-token", &"x".repeat(8192))]).map(|t| t.unwrap().len()), Ok(8192));
        assert_eq!(token_of(&[("x-vault-token", &"x".repeat(8193))]), Err(431));
        assert_eq!(token_of(&[("authorization", &format!("Bearer {}", "x".repeat(8193)))]), Err(431));
    }

    #[test]
    fn namespaces_lose_their_slashes_and_root_is_empty() {
        for (header, name) in [
            ("", ""),
            ("root", ""),
            ("root/", ""),
            ("/", ""),
            ("//", ""),
            ("ns1/", "ns1"),
            ("/a/b/", "a/b"),
            ("..", ".."),
        ] {
            assert_eq!(namespace(&headers(&[("x-vault-namespace", header)])), name, "{header}");
        }
    }

    #[test]
    fn headers_for_a_cluster_are_read_as_by_openbao() {
        let read = |pairs: &[(&'static str, &str)]| {
            let part = cluster_part(&headers(pairs), "/v1/a?b=c").map_err(|a| outcome(&a))?;
            Ok(part.map(|part| (part.index, part.forward_when_behind, part.forward, part.redirect)))
        };
        assert_eq!(read(&[]), Ok(None));
        let none = [("x-vault-index", ""), ("x-vault-inconsistent", "fail"), ("x-vault-forward", "other")];
        assert_eq!(read(&none), Ok(None));
        let index = StateIndex { cluster: "c".to_owned(), value: 34 };
        let encoded = StateIndex::encode(&index.cluster, index.value);
        let behind = [("x-vault-index", encoded.as_str()), ("x-vault-inconsistent", "forward-active-node")];
        assert_eq!(read(&behind), Ok(Some((Some(index), true, false, None))));
        assert_eq!(read(&[("x-vault-forward", "active-node")]), Ok(Some((None, false, true, None))));
        let redirected = read(&[("x-vault-no-request-forwarding", "1")]);
        assert_eq!(redirected, Ok(Some((None, false, false, Some("/v1/a?b=c".to_owned())))));
        let text = "{\"errors\":[\"failed to decode \\\"X-Vault-Index\\\"\"]}\n";
        assert_eq!(read(&[("x-vault-index", "AAAA")]), Err((400, text.to_owned())));
        let text = "{\"errors\":[\"unknown value for \\\"X-Vault-Inconsistent\\\" header\"]}\n";
        assert_eq!(read(&[("x-vault-inconsistent", "x")]), Err((400, text.to_owned())));
    }

    #[test]
    fn mfa_credentials_name_a_method() {
        let values = |texts: &[&str]| {
            let pairs: Vec<_> = texts.iter().map(|text| ("x-vault-mfa", *text)).collect();
            mfa(&headers(&pairs)).map(|found| found.iter().map(|text| text.expose().clone()).collect::<Vec<_>>())
        };
        let read = |texts: &[&str]| values(texts).unwrap_or_else(|_| panic!("{texts:?}"));
        assert_eq!(read(&["id:123456", "", "name"]), ["id:123456", "name"]);
        assert_eq!(read(&["a:b:c"]), ["a:b:c"]);
        assert!(read(&[]).is_empty());
        for (text, missing) in [(":1", "missing method name or ID"), ("id:", "missing method value")] {
            let refused = values(&[text]).map_err(|refused| outcome(&refused)).unwrap_err();
            assert!(refused.0 == 400 && refused.1.contains(missing), "{refused:?}");
        }
    }

    #[test]
    fn wrap_ttls_are_parsed_as_by_openbao() {
        let ttl = |text: &str| wrap_ttl(&headers(&[("x-vault-wrap-ttl", text)])).map_err(|a| outcome(&a));
        for (text, millis) in [
            ("60", 60_000),
            ("60s", 60_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1.5s", 1500),
            ("5ms", 5),
            ("+5", 5000),
        ] {
            assert_eq!(ttl(text), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!((ttl("0"), ttl("")), (Ok(None), Ok(None)));
        for (text, why) in [
            ("-1", "requested wrap ttl cannot be negative"),
            ("abc", "time: invalid duration \\\"abc\\\""),
            ("999999999999", "multiplication of durations resulted in overflow, one operand may be too large"),
        ] {
            let expected = format!("{{\"errors\":[\"error parsing X-Vault-Wrap-TTL header: {why}\"]}}\n");
            assert_eq!(ttl(text), Err((400, expected)), "{text}");
        }
    }

    #[test]
    fn patch_requires_the_merge_patch_content_type() {
        let check = |kind: &str| require_merge_patch(&headers(&[("content-type", kind)])).map_err(|a| outcome(&a).0);
        assert_eq!(check("application/merge-patch+json"), Ok(()));
        assert_eq!(check("application/merge-patch+json; charset=utf-8"), Ok(()));
        assert_eq!(check("application/merge-patch+json;"), Ok(()));
        assert_eq!((check(""), check("garbage;;"), check("application/json")), (Err(400), Err(400), Err(415)));
    }

    fn remote_of(rules: &Forwarded, values: &[&str]) -> Result<String, String> {
        let pairs: Vec<_> = values.iter().map(|v| ("x-forwarded-for", *v)).collect();
        remote(&headers(&pairs), Some("127.0.0.1:4000".parse().unwrap()), rules)
            .map(|a| a.unwrap().to_string())
            .map_err(|a| outcome(&a).1)
    }

    #[test]
    fn only_authorized_proxies_forward_addresses() {
        let nobody = Forwarded::default();
        assert_eq!(remote_of(&nobody, &["1.2.3.4"]), Ok("127.0.0.1:4000".into()));
        let local = Forwarded { authorized: vec!["127.0.0.0/8".parse().unwrap()], ..Forwarded::default() };
        for (values, expected) in [
            (&["1.2.3.4"][..], "1.2.3.4:4000"),
            (&["9.9.9.9, 1.2.3.4:80"], "1.2.3.4:80"),
            (&["9.9.9.9", "1.2.3.4"], "1.2.3.4:4000"),
            (&["[::1]:80"], "[::1]:80"),
            (&["::1"], "[::1]:4000"),
            (&[], "127.0.0.1:4000"),
        ] {
            assert_eq!(remote_of(&local, values), Ok(expected.into()), "{values:?}");
        }
        assert!(remote_of(&local, &["unknown"]).unwrap_err().contains("not an address"));
        let skipping = Forwarded { hop_skips: 1, ..local.clone() };
        assert_eq!(remote_of(&skipping, &["1.2.3.4, 5.6.7.8"]), Ok("1.2.3.4:4000".into()));
        assert!(
            remote_of(&skipping, &["1.2.3.4"])
                .unwrap_err()
                .contains("hops to skip (1) would skip before earliest chain link (chain length 1)")
        );
        let strict = Forwarded { reject_not_present: true, reject_not_authorized: true, ..local };
        assert!(
            remote_of(&strict, &[])
                .unwrap_err()
                .contains("missing x-forwarded-for header and configured to reject when not present")
        );
        let others = Forwarded { authorized: vec!["10.0.0.0/8".parse().unwrap()], ..strict };
        assert!(
            remote_of(&others, &["1.2.3.4"]).unwrap_err().contains("client address not authorized for x-forwarded-for")
        );
    }
}
