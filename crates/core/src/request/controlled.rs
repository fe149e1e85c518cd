//! Stores a request that a control group controls, and returns its wrapping token in place of the response.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Error, Result};
use keepfast_storage::{Index, StorageError};

use super::authorize::AuthorizedParts;
use super::dispatch::TRIES;
use super::envelope::Envelope;
use crate::control_group::StoredRequest;
use crate::mount::Mounted;
use crate::namespace::changes;
use crate::policy::control_group::RequiredApprovals;
use crate::unsealed::Unsealed;
use crate::wrapping::RequestToStore;

/// How long a request waits for approvals when neither the control group nor the request has a TTL.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Stores a request, and returns the response with the index of the commit.
pub(super) async fn store_request(
    unsealed: &Arc<Unsealed>,
    parts: &AuthorizedParts,
    mounted: &Mounted,
    required: &RequiredApprovals,
    creates: bool,
) -> Result<(Box<Envelope>, Option<Index>)> {
    let incoming = &parts.routed.incoming;
    let token = parts.caller.token.as_ref().ok_or_else(Error::denied)?;
    let stored = StoredRequest::of(incoming, token, creates, required.factors.clone())?.to_bytes()?;
    let requested = incoming.wrap_ttl.filter(|ttl| !ttl.is_zero());
    let ttl = required.ttl.or(requested).unwrap_or(DEFAULT_TTL);
    let path = parts.routed.wrapped_path();
    for _ in 0..TRIES {
        let mut tx = unsealed.barrier.begin();
        let (request, display_name) = (stored.clone(), token.record.display_name.as_str());
        let request = RequestToStore { request, path: &path, ttl, display_name };
        let info = unsealed.access.wrapper.store_request(&mut tx, request).await?;
        if !unsealed.access.namespace.id.is_root() {
            changes::before_write(unsealed, &mut tx, mounted).await?;
        }
        match tx.commit().await {
            Err(StorageError::Conflict) => {}
            committed => {
                return Ok((Box::new(Envelope { wrap: Some(Box::new(info)), ..Envelope::default() }), committed?));
            }
        }
    }
    Err(Error::internal(StorageError::Conflict))
}
