//! The rest of a body that the answer did not wait for.
//!
//! A connection that is closed while its client still sends is reset, and the reset destroys the answer before the client
//! reads it. The rest of the body is therefore received and dropped, within bounds, while the answer is on its way.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::body::Incoming;

use super::UNREAD;
use crate::connections::{Charge, Peer};

/// The most bytes that are received in order to be dropped. They hold no memory.
const MOST: usize = 256 << 20;

/// Receives and drops what is left of a body, in the background, for at most `longest`. The task counts for its connection.
pub(crate) fn discard(body: Incoming, longest: Duration, peer: &Arc<Peer>) {
    if !body.is_end_stream() {
        let held = Charge::new(peer, UNREAD);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(longest, drain(body)).await;
            drop(held);
        });
    }
}

async fn drain(mut body: Incoming) {
    let mut left = MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
