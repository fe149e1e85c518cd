//! Calls to real servers: limits, trust, proxies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod calls;
mod proxy;
mod trust;

use bytes::Bytes;
use keepfast_outbound::{CallError, Outbound, Settings};

/// Sends a `GET` with these settings; returns the status and the body.
async fn get(settings: &Settings, url: &str) -> Result<(u16, String), CallError> {
    let request = http::Request::get(url).body(Bytes::new()).unwrap();
    let response = Outbound::new(settings).unwrap().call(request).await?;
    Ok((response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap()))
}
