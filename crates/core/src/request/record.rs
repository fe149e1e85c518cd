//! Makes sure that an audit device has the request before it runs and the answer before it leaves.
//!
//! Only this file makes a [`Recorded`] and, but for the short list of exempt paths, a [`Response`].

use bytes::Bytes;
use keepfast_framework::reply::Raw;
use keepfast_framework::sealed::SealedReply;
use keepfast_framework::{Error, Incoming, Status};

use super::authenticate::RequestCaller;
use super::authorize::{Authorized, AuthorizedParts};
use super::dispatch::{Answered, AnsweredParts};
use super::envelope::{self, Answer};
use super::{Refused, wiped};
use crate::audit::{Entry, RequestPart, ResponsePart, Said};
use crate::mount::Mounted;
use crate::namespace::NamespaceId;
use crate::unsealed::Unsealed;

/// An authorized request that an audit device has.
pub(crate) struct Recorded {
    parts: AuthorizedParts,
    said: Said,
}

impl Recorded {
    pub(super) fn into_parts(self) -> (AuthorizedParts, Said) {
        (self.parts, self.said)
    }
}

/// What may be sent: an audit device has it, or its path is on the short list of exempt ones.
pub struct Response {
    status: Status,
    /// The status that the server decided, which is counted; the caller may have chosen another one.
    decided: Status,
    content_type: &'static str,
    body: Bytes,
}

impl Response {
    /// An answer of an exempt path: those that work on a sealed server.
    pub(crate) fn exempt(reply: SealedReply) -> Self {
        Response { decided: reply.decided, ..Self::json(reply.sent, reply.body) }
    }

    /// Bytes that no device records: metrics, where a listener gives them to everybody.
    pub(crate) fn unrecorded(raw: Raw) -> Self {
        Self::document(raw.status, raw.content_type, Bytes::from(raw.body))
    }

    /// The same without a copy of the bytes.
    pub(crate) fn document(status: Status, content_type: &'static str, body: Bytes) -> Self {
        Response { status, decided: status, content_type, body }
    }

    /// A failure that no device could record, or that came before there is a device.
    pub(crate) fn failed(error: &Error) -> Self {
        log(error);
        Self::json(error.status(), envelope::failure(error))
    }

    fn json(status: Status, body: Vec<u8>) -> Self {
        Response { status, decided: status, content_type: "application/json", body: wiped::body(body) }
    }

    /// The status code.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The status code that is counted: that of the server's own decision.
    pub fn decided(&self) -> Status {
        self.decided
    }

    /// The `Content-Type` of a body that is not empty.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The body; empty with 204.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

impl Unsealed {
    /// Records a request, admitted or refused.
    pub(super) async fn record_request(
        &self,
        admitted: Result<Authorized, Box<Refused>>,
    ) -> Result<Recorded, Box<Refused>> {
        match admitted {
            Ok(authorized) => {
                let routed = authorized.routed();
                let mounted = Some(&**routed.destination.mounted());
                let entry = self.entry(&routed.incoming, mounted, authorized.caller(), None);
                let recorded = self.record(&entry, &Said::default()).await;
                let parts = authorized.into_parts();
                match recorded {
                    Ok(said) => Ok(Recorded { parts, said }),
                    Err(error) => {
                        let routed = parts.routed.into_routed();
                        Err(Box::new(Refused::new(routed, parts.caller, error)))
                    }
                }
            }
            Err(mut refused) => {
                if let Some(reason) = refused.error.reason() {
                    let incoming = &refused.routed.incoming;
                    tracing::debug!(request = %incoming.id, remote = ?incoming.remote, reason, "request refused");
                }
                let routed = &refused.routed;
                let mounted = routed.destination.mounted().map(|mounted| &**mounted);
                let entry = self.entry(&routed.incoming, mounted, &refused.caller, Some(&refused.error));
                match self.record(&entry, &Said::default()).await {
                    Ok(said) => refused.said = said,
                    Err(error) => refused.error = error,
                }
                Err(refused)
            }
        }
    }

    /// Records an answer and turns it into what may be sent; ends a token whose last use this was.
    pub(super) async fn record_response(&self, answered: Answered) -> Response {
        let mut answered = answered.into_parts();
        let mut recorded = self.record_outcome(&answered).await;
        if recorded.is_ok()
            && let Some(step) = answered.last_step.take()
            && let Err(error) = step().await
        {
            answered.outcome = Err(error);
            recorded = self.record_outcome(&answered).await;
        }
        let caller = &answered.caller;
        if caller.last_use
            && let Some(key) = caller.token.as_ref().and_then(|t| t.key.as_ref())
            && let Err(error) = Box::pin(self.tokens.revoke(key)).await
        {
            tracing::error!(%error, "a token whose uses are spent could not be deleted; it is not accepted any more");
        }
        if let Err(error) = recorded {
            return Response::failed(&error);
        }
        match answered.outcome {
            Err(error) => Response::failed(&error),
            Ok(Answer::Raw(raw)) => Response::document(raw.status, raw.content_type, wiped::body(raw.body)),
            Ok(Answer::Envelope(envelope)) if envelope.is_empty() => {
                Response::json(envelope.status.unwrap_or(Status::NO_CONTENT), Vec::new())
            }
            Ok(Answer::Envelope(envelope)) => {
                let response = Response::json(envelope.status.unwrap_or(Status::OK), envelope.to_json());
                Response { decided: envelope.decided.unwrap_or(response.status), ..response }
            }
        }
    }

    /// Records a request that a quota has refused before it was read.
    pub(crate) async fn record_refusal(&self, refused: Box<Incoming>) {
        let path = refused.path.as_str();
        let error = Error::new(Status::TOO_MANY_REQUESTS, format!("request path {path:?}: rate limit quota exceeded"));
        let routed = self.route(refused);
        let (caller, mounted) = (RequestCaller::default(), routed.destination.mounted().map(|mounted| &**mounted));
        let entry = self.entry(&routed.incoming, mounted, &caller, Some(&error));
        // The broker tells the log of devices that fail; the request is refused all the same.
        let _ = self.record(&entry, &Said::default()).await;
    }

    /// Records an entry with the devices that are stored now.
    async fn record(&self, entry: &Entry<'_>, said: &Said) -> Result<Said, Error> {
        if self.stored_devices.is_behind() {
            Box::pin(self.stored_devices.follow(&self.audit)).await?;
        }
        self.audit.record(entry, said).await
    }

    async fn record_outcome(&self, answered: &AnsweredParts) -> Result<(), Error> {
        let AnsweredParts { incoming, mounted, caller, said, outcome, .. } = answered;
        let mounted = mounted.as_deref();
        let keys = mounted.map_or(&[][..], |mounted| &mounted.entry.config.audit_non_hmac_response_keys);
        let public = |name: &str| keys.iter().any(|key| key == name);
        let public = (!keys.is_empty()).then_some(&public as &(dyn Fn(&str) -> bool + Sync));
        let mut part = ResponsePart { public, ..ResponsePart::default() };
        if let Ok(Answer::Envelope(envelope)) = outcome {
            part.data = envelope.data.as_ref().map(|d| d.get());
            part.auth = envelope.auth.as_deref();
            part.login = envelope.login_auth();
            part.lease_id = &envelope.lease_id;
            part.wrap = envelope.wrap.as_deref();
            part.warnings = &envelope.warnings;
        }
        let entry = self.entry(incoming, mounted, caller, outcome.as_ref().err());
        self.record(&Entry { response: Some(part), ..entry }, said).await.map(drop)
    }

    fn entry<'a>(
        &self,
        incoming: &'a Incoming,
        mounted: Option<&'a Mounted>,
        caller: &'a RequestCaller,
        error: Option<&'a Error>,
    ) -> Entry<'a> {
        let mount = mounted;
        let data = incoming.input.body.raw();
        Entry {
            time: self.clock.now(),
            request: RequestPart {
                id: &incoming.id,
                // A namespace that does not exist has no id.
                namespace: NamespaceId::of_header(&incoming.namespace).unwrap_or_default(),
                operation: incoming.operation.name(),
                path: incoming.path.as_str(),
                mount: mount.map(|m| &m.audit),
                token: incoming.token.as_ref().map(|t| t.expose().as_str()),
                data: if data.is_empty() { None } else { std::str::from_utf8(data).ok() },
                query: &incoming.input.query,
                headers: &incoming.headers,
                remote: incoming.remote,
                wrap_ttl: incoming.wrap_ttl.map_or(0, |d| d.as_secs()),
                public: mount.map(|m| &m.entry.config.audit_non_hmac_request_keys),
            },
            caller: caller.token.as_deref(),
            verdict: &caller.verdict,
            response: None,
            error,
        }
    }
}

/// The cause of a failure goes to the log and nowhere else. A request to a sealed server is no failure of the server.
fn log(error: &Error) {
    if error.status() == Status::UNAVAILABLE && error.cause().is_none() {
        tracing::debug!(public = error.public(), "request refused");
    } else if error.status().0 >= 500 {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(status = error.status().0, public = error.logged(), %cause, "request failed");
    }
}
