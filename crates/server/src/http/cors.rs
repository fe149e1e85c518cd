//! Cross-Origin Resource Sharing: whether a page of another origin may ask, and what its browser is told of that.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use keepfast_core::admission::cors::{Cors, METHODS};

use super::answer::{Answer, Told};

/// How long a browser may remember what a preflight said, in seconds.
const REMEMBER: HeaderValue = HeaderValue::from_static("300");
const ASKABLE: &[&str] = &["DELETE", "GET", "OPTIONS", "POST", "PUT", "LIST", "SCAN"];

/// Judges a request by its origin, if it has one. `told` gets the headers for the answer. `Err` is the answer: a refusal,
/// or the answer to a preflight.
pub(crate) fn judge(head: &Parts, cors: Option<&Cors>, told: &mut Told) -> Result<(), Answer> {
    let (Some(cors), Some(origin)) = (cors, head.headers.get(ORIGIN)) else { return Ok(()) };
    if !origin.to_str().is_ok_and(|origin| cors.allows(origin)) {
        return Err(Answer::error(StatusCode::FORBIDDEN, "origin not allowed"));
    }
    if head.method != Method::OPTIONS {
        allow(origin, told);
        return Ok(());
    }
    let asked = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|m| m.to_str().ok());
    if !asked.is_some_and(|method| ASKABLE.contains(&method)) {
        return Err(Answer::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    allow(origin, told);
    let headers = HeaderValue::from_str(&cors.allowed_headers.join(","));
    told.headers.extend(headers.ok().map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
    told.headers.push((ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)));
    told.headers.push((ACCESS_CONTROL_MAX_AGE, REMEMBER));
    Err(Answer::empty(StatusCode::OK))
}

fn allow(origin: &HeaderValue, told: &mut Told) {
    told.headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
    told.headers.push((VARY, HeaderValue::from_static("Origin")));
}
