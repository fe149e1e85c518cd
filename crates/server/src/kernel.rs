//! The node as the kernel of the edge.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use keepfast_core::{Node, Response, ResponseHeaders};
use keepfast_crypto::secret::SecretString;
use keepfast_edge::{Admission, EdgeResponse, Kernel, OriginCheck, QuotaResult, Upload, UploadTurn};
use keepfast_framework::{Incoming, Status};
use keepfast_seals::{at_external_key_depth, external_key_depth};

/// Implements [`Kernel`] for the node.
pub(crate) struct Served(pub(crate) Arc<Node>);

impl Admission for Served {
    fn is_served_sealed(&self, path: &str) -> bool {
        keepfast_core::is_served_sealed(path)
    }

    fn takes_raw_body(&self, path: &str) -> bool {
        keepfast_core::takes_raw_body(path)
    }

    fn audited_headers(&self) -> Arc<BTreeMap<String, bool>> {
        self.0.admission().rules().audited_headers.clone()
    }

    fn has_quotas(&self) -> bool {
        self.0.admission().has_quotas()
    }

    async fn count_request(&self, namespace: &str, path: &str, remote: Option<IpAddr>) -> Option<QuotaResult> {
        let result = self.0.preliminaries().check_quota(namespace, path, remote).await?;
        Some(QuotaResult {
            refused: result.refused,
            limit: result.limit,
            remaining: result.remaining,
            reset: result.reset,
            retry_after: result.retry_after,
            with_headers: result.with_headers,
            audits_refusal: result.audits_refusal,
        })
    }

    fn check_origin(&self, origin: Option<&str>) -> OriginCheck {
        match &self.0.admission().rules().cors {
            None => OriginCheck::NoRules,
            Some(cors) if origin.is_some_and(|origin| cors.allows(origin)) => OriginCheck::Allowed,
            Some(_) => OriginCheck::Denied,
        }
    }

    fn origin_headers(&self) -> String {
        self.0.admission().rules().cors.as_ref().map(|cors| cors.allowed_headers.join(",")).unwrap_or_default()
    }
}

impl Kernel for Served {
    async fn handle(&self, incoming: Box<Incoming>) -> EdgeResponse {
        let response = match external_key_depth(&incoming.headers) {
            0 => self.0.handle(incoming).await,
            depth => Box::pin(at_external_key_depth(depth, self.0.handle(incoming))).await,
        };
        edge_response(response)
    }

    async fn settle(&self) {
        let preliminaries = self.0.preliminaries();
        Box::pin(preliminaries.settle()).await;
    }

    // Both futures are large and rarely run. In a box they do not enlarge the future of every request, which is copied.
    async fn is_live_token(&self, token: &SecretString, remote: Option<IpAddr>) -> bool {
        let preliminaries = self.0.preliminaries();
        Box::pin(preliminaries.is_live_token(token, remote)).await
    }

    async fn upload(&self, head: &Incoming, fits: bool) -> Result<Option<Upload>, EdgeResponse> {
        let preliminaries = self.0.preliminaries();
        let place = Box::pin(preliminaries.upload(head, fits)).await.map_err(EdgeResponse::from)?;
        Ok(place.map(|place| Upload {
            directory: place.files.directory,
            longest: place.files.longest,
            turn: Box::new(Turn(place.turn)),
        }))
    }

    async fn audit_refusal(&self, refused: Box<Incoming>) {
        let preliminaries = self.0.preliminaries();
        Box::pin(preliminaries.audit_refusal(refused)).await;
    }

    fn metrics(&self, format: &str, accepts_prometheus: bool) -> EdgeResponse {
        edge_response(self.0.monitoring().open_metrics(format, accepts_prometheus))
    }

    fn count_response(&self, status: StatusCode) {
        self.0.monitoring().count_response(status.as_u16());
    }

    fn in_flight(&self, caller: &Incoming) -> EdgeResponse {
        edge_response(self.0.monitoring().open_in_flight(caller))
    }
}

/// Converts a response of the node to one of the edge.
fn edge_response(response: Response) -> EdgeResponse {
    let code = |status: Status| StatusCode::from_u16(status.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let none = ResponseHeaders::default();
    let headers = response.headers().unwrap_or(&none);
    EdgeResponse {
        status: code(response.status()),
        decided: code(response.decided()),
        // As on OpenBao a redirect has no body and no type of it.
        content_type: headers.location.is_none().then(|| response.content_type().clone()),
        headers: further_headers(headers),
        file: response.file().cloned(),
        body: response.into_body(),
    }
}

/// The headers of a node of a cluster and of the handler.
fn further_headers(headers: &ResponseHeaders) -> Vec<(HeaderName, HeaderValue)> {
    let text = |name, text: Option<&str>| Some((name, HeaderValue::from_str(text?).ok()?));
    let index = text(HeaderName::from_static("x-vault-index"), headers.index.as_deref());
    let location = text(LOCATION, headers.location.as_deref());
    let retry_after = headers.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds)));
    let further = headers
        .further
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)));
    [index, location, retry_after].into_iter().flatten().chain(further).collect()
}

/// The turn of an upload.
struct Turn(keepfast_core::UploadTurn);

impl UploadTurn for Turn {
    fn received(&self, bytes: u64) -> bool {
        self.0.received(bytes)
    }

    fn complete(&self) -> bool {
        self.0.complete()
    }

    fn taken(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.taken())
    }
}
