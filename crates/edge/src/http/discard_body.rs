//! Discards the rest of a body after an early response.
//!
//! When a connection is closed while its client still sends, it is reset, and the reset destroys the response before
//! the client reads it. The rest of the body is therefore received and dropped, within limits, while the response is
//! sent.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::body::Incoming;

use super::DISCARD_MEMORY;
use crate::connections::{Charge, Peer};

/// The most bytes that are received and dropped. They use no memory.
const MAX_DISCARDED: usize = 256 << 20;

/// Receives and drops the rest of a body in a background task, for at most `longest`. The task counts against its
/// connection.
pub(crate) fn discard(body: Incoming, longest: Duration, peer: &Arc<Peer>) {
    if !body.is_end_stream() {
        let held = Charge::new(peer, DISCARD_MEMORY);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(longest, drain(body)).await;
            drop(held);
        });
    }
}

async fn drain(mut body: Incoming) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
