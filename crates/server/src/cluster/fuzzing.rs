//! Entry points for fuzz targets to what members send: each function decodes bytes, and encodes them again.

use bytes::Bytes;

use super::frames::{self, Hello, Outgoing, limit_of, welcome};
use super::{coming_root as root, failure as error, request as form};

/// Reads frames of at most `limit` bytes until one is refused. Returns them as they are sent.
pub async fn frames(mut bytes: &[u8], limit: usize) -> Vec<u8> {
    let mut again = Vec::new();
    while let Ok(frame) = frames::read(&mut bytes, limit).await {
        // A vector accepts every write.
        let _ = Outgoing::new(frame.tag, &[], frame.body).write(&mut again).await;
    }
    again
}

/// The first bytes of the node that dials, and of the one that accepts.
#[must_use]
pub fn greeting(bytes: &[u8]) -> Option<Vec<u8>> {
    match bytes.len() {
        Hello::LENGTH => Hello::decode(bytes.try_into().ok()?).map(|hello| hello.encode().to_vec()),
        _ => limit_of(bytes.try_into().ok()?).map(|limit| welcome(limit).to_vec()),
    }
}

/// A forwarded request.
#[must_use]
pub fn request(bytes: Bytes) -> Option<Vec<u8>> {
    let request = form::decode(bytes)?;
    let head = form::encode(&request)?;
    Some([head.expose(), &form::body(&request)[..]].concat())
}

/// Its response.
#[must_use]
pub fn response(bytes: Bytes) -> Option<Vec<u8>> {
    let response = form::decode_response(bytes)?;
    let head = form::encode_response(response.status, response.decided, response.index, &response.content_type);
    Some([&head[..], &response.body].concat())
}

/// An error of the storage of another node.
#[must_use]
pub fn failure(bytes: Bytes) -> Option<Vec<u8>> {
    error::decode(bytes).map(|decoded| error::encode(&decoded).to_vec())
}

/// A coming root key; without the id of its call.
#[must_use]
pub fn coming_root(bytes: Bytes) -> Option<Vec<u8>> {
    root::decode(bytes).map(|coming| root::encode(0, &coming).expose()[8..].to_vec())
}
