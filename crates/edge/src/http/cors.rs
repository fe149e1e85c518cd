//! Cross-Origin Resource Sharing (WHATWG Fetch): the check of a request's origin, and the headers for the browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::edge_response::{EdgeResponse, ResponseExtras};
use crate::kernel::{Admission, OriginCheck};

/// The time that a browser may cache a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("300");
/// The methods that a preflight allows.
const METHODS: HeaderValue = HeaderValue::from_static("DELETE,GET,OPTIONS,POST,PUT,LIST,SCAN");
/// The methods that a preflight may request.
const PREFLIGHT_METHODS: &[&str] = &["DELETE", "GET", "OPTIONS", "POST", "PUT", "LIST", "SCAN"];

/// Checks the origin of a request, if it has one. `extras` receives the headers of the response. `Err` is the response: a
/// refusal, or the response to a preflight.
pub(crate) fn check(head: &Parts, admission: &impl Admission, extras: &mut ResponseExtras) -> Result<(), EdgeResponse> {
    let Some(origin) = head.headers.get(ORIGIN) else { return Ok(()) };
    match admission.check_origin(origin.to_str().ok()) {
        OriginCheck::NoRules => return Ok(()),
        OriginCheck::Denied => return Err(EdgeResponse::error(StatusCode::FORBIDDEN, "origin not allowed")),
        OriginCheck::Allowed => {}
    }
    if head.method != Method::OPTIONS {
        allow(origin, extras);
        return Ok(());
    }
    let requested = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|m| m.to_str().ok());
    if !requested.is_some_and(|method| PREFLIGHT_METHODS.contains(&method)) {
        return Err(EdgeResponse::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    allow(origin, extras);
    let headers = HeaderValue::from_str(&admission.origin_headers());
    extras.headers.extend(headers.ok().map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
    extras.headers.push((ACCESS_CONTROL_ALLOW_METHODS, METHODS));
    extras.headers.push((ACCESS_CONTROL_MAX_AGE, MAX_AGE));
    Err(EdgeResponse::empty(StatusCode::OK))
}

fn allow(origin: &HeaderValue, extras: &mut ResponseExtras) {
    extras.headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
    extras.headers.push((VARY, HeaderValue::from_static("Origin")));
}
