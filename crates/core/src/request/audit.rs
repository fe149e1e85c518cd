//! Audit: a device has written the request before it runs, and the response before it is sent.
//!
//! Only this file creates an [`Audited`], and the [`Response`] of an audited request.

use std::sync::Arc;

use keepfast_framework::{Clock, Error, Incoming, Status, Timestamp};

use super::authenticate::RequestCaller;
use super::authorize::{Authorized, AuthorizedParts};
use super::dispatch::{Handled, HandledParts};
use super::envelope::ResponseContent;
use super::route::Routed;
use super::{Refused, Response};
use crate::audit::stored_devices::StoredDevices;
use crate::audit::{Broker, Entry, RequestPart, ResponsePart, SerializedRequest};
use crate::mount::Mounted;
use crate::unsealed::{Access, Unsealed};

/// An authorized request that an audit device has written.
pub(crate) struct Audited {
    parts: AuthorizedParts,
    serialized: SerializedRequest,
}

impl Audited {
    pub(super) fn into_parts(self) -> (AuthorizedParts, SerializedRequest) {
        (self.parts, self.serialized)
    }
}

/// Writes the audit entries of requests.
pub(super) struct RequestAuditor {
    audit: Arc<Broker>,
    stored_devices: Arc<StoredDevices>,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
}

impl RequestAuditor {
    pub(super) fn new(unsealed: &Unsealed) -> Self {
        RequestAuditor {
            audit: unsealed.observability.audit.clone(),
            stored_devices: unsealed.observability.stored_devices.clone(),
            access: unsealed.access.clone(),
            clock: unsealed.clock.clone(),
        }
    }

    /// Audits a request, authorized or refused at this time.
    pub(super) async fn audit_request(
        &self,
        admitted: Result<Authorized, Box<Refused>>,
        now: Timestamp,
    ) -> Result<Audited, Box<Refused>> {
        match admitted {
            Ok(authorized) => {
                let routed = authorized.routed();
                let mounted = Some(&**routed.destination.mounted());
                let entry = self.entry(now, &routed.incoming, mounted, authorized.caller(), None);
                let written = self.write(&entry, &SerializedRequest::default()).await;
                let parts = authorized.into_parts();
                match written {
                    Ok(serialized) => Ok(Audited { parts, serialized }),
                    Err(error) => {
                        let routed = parts.routed.into_routed();
                        Err(Box::new(Refused::new(routed, parts.caller, error)))
                    }
                }
            }
            Err(refused) => Err(self.audit_refused(refused, now).await),
        }
    }

    /// Audits a request that was refused at this time.
    pub(super) async fn audit_refused(&self, mut refused: Box<Refused>, now: Timestamp) -> Box<Refused> {
        if let Some(reason) = refused.error.reason() {
            let incoming = &refused.routed.incoming;
            tracing::debug!(request = %incoming.id, remote = ?incoming.remote, reason, "request refused");
        }
        let routed = &refused.routed;
        let mounted = routed.destination.mounted().map(|mounted| &**mounted);
        let entry = self.entry(now, &routed.incoming, mounted, &refused.caller, Some(&refused.error));
        match self.write(&entry, &SerializedRequest::default()).await {
            Ok(serialized) => refused.serialized = serialized,
            Err(error) => refused.error = error,
        }
        refused
    }

    /// Audits an outcome and converts it to the response. Runs the last step of the handler, such as a commit that must
    /// follow the audit, and revokes a token whose last use this was.
    pub(super) async fn audit_response(&self, handled: Handled) -> Response {
        let mut handled = handled.into_parts();
        let mut written = self.write_response_entry(&handled).await;
        if written.is_ok()
            && let Some(step) = handled.last_step.take()
            && let Err(error) = step().await
        {
            handled.outcome = Err(error);
            written = self.write_response_entry(&handled).await;
        }
        let caller = &handled.caller;
        if caller.last_use
            && let Some(key) = caller.token.as_ref().and_then(|t| t.key.as_ref())
            && let Err(error) = Box::pin(self.access.tokens.revoke(key)).await
        {
            tracing::error!(%error, "a token without remaining uses could not be deleted; it is no longer accepted");
        }
        if let Err(error) = written {
            return Response::failed(&error);
        }
        Response::audited(handled.outcome, handled.committed)
    }

    /// Audits a request that a quota has refused before it was read.
    pub(super) async fn audit_refusal(&self, routed: Routed) {
        let path = routed.incoming.path.as_str();
        let error = Error::new(Status::TOO_MANY_REQUESTS, format!("request path {path:?}: rate limit quota exceeded"));
        let (caller, mounted) = (RequestCaller::default(), routed.destination.mounted().map(|mounted| &**mounted));
        let entry = self.entry(self.clock.now(), &routed.incoming, mounted, &caller, Some(&error));
        // The broker logs devices that fail; the request is refused anyway.
        let _ = self.write(&entry, &SerializedRequest::default()).await;
    }

    /// Writes an entry to the current devices.
    async fn write(&self, entry: &Entry<'_>, serialized: &SerializedRequest) -> Result<SerializedRequest, Error> {
        if self.stored_devices.is_behind() {
            Box::pin(self.stored_devices.follow(&self.audit)).await?;
        }
        self.audit.record(entry, serialized).await
    }

    async fn write_response_entry(&self, handled: &HandledParts) -> Result<(), Error> {
        let HandledParts { incoming, mounted, caller, serialized, outcome, .. } = handled;
        let mounted = mounted.as_deref();
        let keys = mounted.map_or(&[][..], |mounted| &mounted.entry.config.audit_non_hmac_response_keys);
        let public = |name: &str| keys.iter().any(|key| key == name);
        let public = (!keys.is_empty()).then_some(&public as &(dyn Fn(&str) -> bool + Sync));
        let mut part = ResponsePart { public, ..ResponsePart::default() };
        if let Ok(ResponseContent::Envelope(envelope)) = outcome {
            part.data = envelope.data.as_ref().map(|d| d.get());
            part.auth = envelope.auth.as_deref();
            part.login = envelope.login_auth();
            part.lease_id = &envelope.lease_id;
            part.wrap = envelope.wrap.as_deref();
            part.warnings = &envelope.warnings;
        }
        let entry = self.entry(self.clock.now(), incoming, mounted, caller, outcome.as_ref().err());
        self.write(&Entry { response: Some(part), ..entry }, serialized).await.map(drop)
    }

    fn entry<'a>(
        &'a self,
        time: Timestamp,
        incoming: &'a Incoming,
        mounted: Option<&'a Mounted>,
        caller: &'a RequestCaller,
        error: Option<&'a Error>,
    ) -> Entry<'a> {
        let mount = mounted;
        let data = incoming.input.body.raw();
        Entry {
            time,
            request: RequestPart {
                id: &incoming.id,
                namespace: &self.access.namespace,
                operation: incoming.operation.name(),
                path: incoming.path.as_str(),
                mount: mount.map(|m| &m.audit),
                token: incoming.token.as_ref().map(|t| t.expose().as_str()),
                data: if data.is_empty() { None } else { std::str::from_utf8(data).ok() },
                query: &incoming.input.query,
                headers: &incoming.headers,
                remote: incoming.remote,
                forwarded_from: incoming.cluster.as_ref().and_then(|part| part.forwarded_from.as_deref()),
                wrap_ttl: incoming.wrap_ttl.map_or(0, |d| d.as_secs()),
                public: mount.map(|m| &m.entry.config.audit_non_hmac_request_keys),
            },
            caller: caller.token.as_deref(),
            policy_results: &caller.policy_results,
            response: None,
            error,
        }
    }
}
