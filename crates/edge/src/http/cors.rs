//! Cross-Origin Resource Sharing (WHATWG Fetch): whether a page of another origin may call, and the headers for its browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::answer::{Answer, Told};
use crate::kernel::{Admission, OriginCheck};

/// How long a browser may cache a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("300");
/// The methods that a preflight allows.
const METHODS: HeaderValue = HeaderValue::from_static("DELETE,GET,OPTIONS,POST,PUT,LIST,SCAN");
/// The methods that a preflight may ask for.
const PREFLIGHT_METHODS: &[&str] = &["DELETE", "GET", "OPTIONS", "POST", "PUT", "LIST", "SCAN"];

/// Checks the origin of a request, if it has one. `told` gets the headers for the response. `Err` is the response: a refusal, or that
/// to a preflight.
pub(crate) fn check(head: &Parts, admission: &impl Admission, told: &mut Told) -> Result<(), Answer> {
    let Some(origin) = head.headers.get(ORIGIN) else { return Ok(()) };
    match admission.check_origin(origin.to_str().ok()) {
        OriginCheck::NoRules => return Ok(()),
        OriginCheck::Denied => return Err(Answer::error(StatusCode::FORBIDDEN, "origin not allowed")),
        OriginCheck::Allowed => {}
    }
    if head.method != Method::OPTIONS {
        allow(origin, told);
        return Ok(());
    }
    let asked = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|m| m.to_str().ok());
    if !asked.is_some_and(|method| PREFLIGHT_METHODS.contains(&method)) {
        return Err(Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    allow(origin, told);
    let headers = HeaderValue::from_str(&admission.origin_headers());
    told.headers.extend(headers.ok().map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
    told.headers.push((ACCESS_CONTROL_ALLOW_METHODS, METHODS));
    told.headers.push((ACCESS_CONTROL_MAX_AGE, MAX_AGE));
    Err(Answer::empty(StatusCode::OK))
}

fn allow(origin: &HeaderValue, told: &mut Told) {
    told.headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
    told.headers.push((VARY, HeaderValue::from_static("Origin")));
}
