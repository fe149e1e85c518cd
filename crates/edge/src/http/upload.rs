//! Receives a body of bytes that may be larger than the memory for bodies, into a file.

use std::io::{self, ErrorKind, Write as _};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use keepfast_framework::FileBody;
use keepfast_framework::file_body::FileBodyWriter;
use tokio::task::spawn_blocking;

use super::edge_response::EdgeResponse;
use crate::config::Limits;
use crate::kernel::Upload;
use crate::timeouts::Stopwatch;

/// The bytes that are written at once.
const PART: usize = 1 << 20;
/// The minimum rate of a body in bytes per second, after the timeout of a body in memory.
const MIN_RATE: u64 = 256 << 10;

/// Receives a body. `incoming` is `None` afterwards when it was received to its end.
///
/// # Errors
/// 413 for a body that is too long, 408 for one that comes too slowly, 503 when the device has no room for it or
/// another caller has taken its turn.
pub(super) async fn receive(
    limits: &Limits,
    incoming: &mut Option<hyper::body::Incoming>,
    upload: &Upload,
) -> Result<FileBody, EdgeResponse> {
    let longest = upload.longest;
    if incoming.as_ref().is_some_and(|body| body.size_hint().lower() > longest) {
        return Err(too_large(longest));
    }
    let directory = upload.directory.clone();
    let mut writer =
        blocking(move || FileBodyWriter::new(&directory, longest)).await.map_err(|e| failed(&e, longest))?;
    let (stopwatch, mut length, mut part) = (Stopwatch::start(), 0, BytesMut::new());
    while let Some(body) = incoming {
        let deadline = stopwatch.after(limits.read_timeout + Duration::from_secs(length / MIN_RATE));
        let frame = tokio::select! {
            biased;
            () = upload.turn.taken() => return Err(taken()),
            frame = tokio::time::timeout_at(deadline, body.frame()) => frame,
        };
        let Ok(frame) = frame else {
            return Err(EdgeResponse::error(StatusCode::REQUEST_TIMEOUT, "the request body came too slowly"));
        };
        let unreadable = |_| EdgeResponse::error(StatusCode::BAD_REQUEST, "the request body could not be read");
        let is_end = match frame.transpose().map_err(unreadable)? {
            None => true,
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len() as u64;
                    if length > longest {
                        return Err(too_large(longest));
                    }
                    if !upload.turn.received(data.len() as u64) {
                        return Err(taken());
                    }
                    part.extend_from_slice(&data);
                }
                body.is_end_stream()
            }
        };
        if part.len() >= PART || is_end {
            let full = part.split().freeze();
            let written = blocking(move || writer.write_all(&full).map(|()| writer)).await;
            writer = written.map_err(|error| failed(&error, longest))?;
        }
        if is_end {
            *incoming = None;
        }
    }
    if !upload.turn.complete() {
        return Err(taken());
    }
    blocking(move || writer.finish()).await.map_err(|error| failed(&error, longest))
}

fn taken() -> EdgeResponse {
    let text = "the request body came too slowly, and another snapshot is being uploaded";
    EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(run).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn too_large(longest: u64) -> EdgeResponse {
    let text = format!("http: request body too large: a snapshot may have {longest} bytes (max_snapshot_size)");
    EdgeResponse::error(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn failed(error: &io::Error, longest: u64) -> EdgeResponse {
    match error.kind() {
        ErrorKind::FileTooLarge => too_large(longest),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let text = "the device of the storage has too little room for this snapshot";
            EdgeResponse::error(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        _ => {
            tracing::error!(%error, "an uploaded snapshot cannot be written");
            EdgeResponse::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}
