//! Joins between the nodes in memory.

use super::*;
use crate::cluster::join::client::{JoinClient, JoinError, JoinStep, JoinTarget};

#[async_trait]
impl JoinClient for Replica {
    async fn send(&self, to: &JoinTarget, step: JoinStep, body: Vec<u8>) -> Result<Bytes, JoinError> {
        assert!(to.any_certificate, "a member has no CA of the others");
        let name = to.api_addr.trim_start_matches("http://");
        let node = self.shared.servers.lock().get(name).and_then(Weak::upgrade);
        let node = node.ok_or_else(|| JoinError::Call("no response".to_owned()))?;
        let send = RequestOptions { body: String::from_utf8(body).ok(), ..RequestOptions::default() };
        let response = node.handle(incoming("POST", step.path(), send)).await;
        let (status, bytes) = (response.status().0, response.into_body());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status == 200 { Ok(bytes) } else { Err(JoinError::Refused { status, text }) }
    }
}
