//! The first stage: converts an HTTP request to [`Incoming`], with the cheapest checks of unauthenticated requests
//! first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{EXPECT, ORIGIN};
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};
use hyper::body::Body as _;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{Authorization, Body, CanonicalPath, Incoming, Input, Operation, UnauthedEndpoints};

use super::body::{self, BodyMemory, Receiving, Sender, Share};
use super::edge_response::{EdgeResponse, ResponseExtras};
use super::query::{self, Query};
use super::{FIRST_STREAMS, cors, discard_body, headers, path, quota, upload};
use crate::config::{Forwarded, Limits};
use crate::connection::HEAD_INCLUDED;
use crate::connections::{Charge, Peer};
use crate::kernel::{Kernel, QuotaResult, Upload};

/// The settings of one listener.
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) forwarded: Forwarded,
    pub(crate) open: UnauthedEndpoints,
}

/// An admitted request and its part of the memory for bodies.
pub(crate) struct Admitted {
    pub(crate) incoming: Box<Incoming>,
    pub(crate) share: Option<Share>,
    /// The place of a body in a file.
    pub(crate) upload: Option<Upload>,
}

impl Admitted {
    fn new(incoming: Box<Incoming>, share: Option<Share>) -> Self {
        Admitted { incoming, share, upload: None }
    }
}

/// The inputs of the checks of a request.
pub(crate) struct Admitting<'a, K> {
    pub(crate) kernel: &'a K,
    pub(crate) rules: &'a Rules,
    pub(crate) memory: &'a Arc<BodyMemory>,
    pub(crate) peer: &'a Arc<Peer>,
    /// The memory of the request, held until its response is sent.
    pub(crate) held: &'a mut Charge,
}

/// Converts a request to an [`Incoming`], or returns the response that refuses it. Headers and quotas are checked
/// before a byte of the body is read, and the head is dropped before the body is awaited. `extras` receives the headers
/// of the response: those of CORS and of quotas.
pub(crate) async fn admit<K: Kernel>(
    request: Request<hyper::body::Incoming>,
    admitting: Admitting<'_, K>,
    extras: &mut ResponseExtras,
) -> Result<Admitted, EdgeResponse> {
    let (head, body) = request.into_parts();
    let (longest, peer) = (admitting.rules.limits.read_timeout, admitting.peer);
    let (expects, announced) = (head.headers.contains_key(EXPECT), body.size_hint().exact());
    let mut body = Some(body);
    let outcome = admit_parts(head, &mut body, admitting, extras).await;
    if let Some(rest) = body {
        // A client that waits for "100 Continue" has sent nothing; receiving would make it send.
        let waits = expects && announced.is_some() && rest.size_hint().exact() == announced;
        if !waits {
            discard_body::discard(rest, longest, peer);
        }
    }
    outcome
}

/// Like [`admit`]; `body` is `None` afterwards when it was received to its end.
async fn admit_parts<K: Kernel>(
    head: Parts,
    body: &mut Option<hyper::body::Incoming>,
    mut admitting: Admitting<'_, K>,
    extras: &mut ResponseExtras,
) -> Result<Admitted, EdgeResponse> {
    let audited = admitting.kernel.audited_headers();
    charge(&head, &mut admitting, &audited)?;
    if head.headers.contains_key(ORIGIN) {
        // A path that a sealed node serves does not wait for a leader.
        if !path::canonical(&head.uri).is_ok_and(|path| admitting.kernel.is_served_sealed(path.as_str())) {
            admitting.kernel.settle().await;
        }
        cors::check(&head, admitting.kernel, extras)?;
    }
    // In a box, because most servers have no quotas.
    let quota = if admitting.kernel.has_quotas() { Box::pin(count(&head, &admitting)).await } else { None };
    let (mut head, form) = read_head(head, &admitting, &audited, quota, extras)?;
    let announced = body.as_ref().map_or(Some(0), |body| body.size_hint().exact());
    let sender = admitting.sender(head.token.as_ref(), head.remote, announced).await?;
    if !matches!(head.operation, Operation::Update | Operation::Patch) {
        return Ok(Admitted::new(head, None));
    }
    let Admitting { kernel, rules, memory, peer, .. } = admitting;
    let raw = kernel.takes_raw_body(head.path.as_str());
    if raw
        && matches!(sender, Sender::Authenticated)
        && announced.is_none_or(|length| length > body::FREE as u64)
        && let Some(place) =
            kernel.upload(&head, announced.is_some_and(|length| length <= rules.limits.body as u64)).await?
    {
        head.input.body = Body::of_file(upload::receive(&rules.limits, body, &place).await?);
        return Ok(Admitted { upload: Some(place), ..Admitted::new(head, None) });
    }
    let receiving = Receiving { limits: &rules.limits, memory, peer, sender, form, raw };
    let is_live = async {
        match &head.token {
            Some(token) => kernel.is_live_token(token, head.remote.map(|a| a.ip())).await,
            None => false,
        }
    };
    match receiving.receive(body, is_live).await? {
        Some((body, share)) => {
            head.input.body = body;
            Ok(Admitted::new(head, Some(share)))
        }
        // The kernel refuses the invalid token and audits that: clients log in again after a 403.
        None if head.token.is_some() && !kernel.is_served_sealed(head.path.as_str()) => {
            head.body_withheld = true;
            Ok(Admitted::new(head, None))
        }
        None => Err(body::too_large_without_token()),
    }
}

/// Counts the memory of a request's head, before the request is handled or audited.
///
/// # Errors
/// 431 when the heads of an HTTP/2 connection are out of proportion to its received bytes.
fn charge<K>(
    head: &Parts,
    admitting: &mut Admitting<'_, K>,
    audited: &BTreeMap<String, bool>,
) -> Result<(), EdgeResponse> {
    let length = head_length(head, audited);
    let expands = head.version == Version::HTTP_2;
    if expands && !admitting.peer.count_head(length) {
        let text = "the header fields of the requests without a live token on this connection are too long";
        return Err(EdgeResponse::error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
    }
    let parameters = head.uri.query().map_or(0, query::count) * body::PARAMETER;
    // A short head of HTTP/1 counts with the connection.
    admitting.held.add(if expands { length } else { length.saturating_sub(HEAD_INCLUDED) } + parameters);
    Ok(())
}

/// An upper bound of the bytes that a request keeps of its head: in the audit entry, in memory while it is handled, and
/// in a response that repeats them.
fn head_length(head: &Parts, audited: &BTreeMap<String, bool>) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    // The target again, for a redirect to the leader of a cluster.
    2 * target + headers::kept_length(&head.headers, audited)
}

impl<K: Kernel> Admitting<'_, K> {
    /// Finds the sender of a request with a body. The token is looked up until the connection is authenticated, and for
    /// each body that uses counted memory: a proxy sends the requests of several callers over one connection. Small
    /// bodies use the memory of unauthenticated callers instead, while it is sufficient.
    async fn sender(
        &self,
        token: Option<&SecretString>,
        remote: Option<SocketAddr>,
        announced: Option<u64>,
    ) -> Result<Sender, EdgeResponse> {
        if let Some(token) = token {
            if self.peer.is_authenticated()
                && let Some(sender) = self.memory.unchecked(announced)
            {
                return Ok(sender);
            }
            if self.kernel.is_live_token(token, remote.map(|a| a.ip())).await {
                self.peer.set_authenticated();
                return Ok(Sender::Authenticated);
            }
        }
        if !self.peer.is_authenticated() && self.peer.activity.open() > FIRST_STREAMS {
            return Err(EdgeResponse::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once on a connection without an authenticated request",
            ));
        }
        Ok(Sender::Unauthenticated)
    }
}

/// Counts a request against its quota. One that [`read_head`] refuses for its head alone does not count.
async fn count<K: Kernel>(head: &Parts, admitting: &Admitting<'_, K>) -> Option<QuotaResult> {
    headers::check_unambiguous(head).ok()?;
    let remote = headers::remote(&head.headers, admitting.peer.address(), &admitting.rules.forwarded).ok()?;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    headers::cluster_part(&head.headers, target).ok()?;
    let path = path::canonical(&head.uri).ok()?;
    let namespace = headers::namespace(&head.headers);
    admitting.kernel.count_request(&namespace, path.as_str(), remote.map(|address| address.ip())).await
}

/// Reads a request without its body, and whether the body is declared as a form.
fn read_head<K: Kernel>(
    head: Parts,
    admitting: &Admitting<'_, K>,
    audited: &BTreeMap<String, bool>,
    quota: Option<QuotaResult>,
    extras: &mut ResponseExtras,
) -> Result<(Box<Incoming>, bool), EdgeResponse> {
    let Admitting { rules, kernel, peer, .. } = admitting;
    headers::check_unambiguous(&head)?;
    let remote = headers::remote(&head.headers, peer.address(), &rules.forwarded)?;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let cluster = headers::cluster_part(&head.headers, target)?;
    let is_get = head.method == Method::GET;
    let path = path::canonical(&head.uri).map_err(|refusal| if is_get { refusal.with_page() } else { refusal })?;
    // Paths of a sealed server wrap no response.
    let is_sealed_path = kernel.is_served_sealed(path.as_str());
    if let Some(quota) = quota {
        if quota.refused && quota.audits_refusal {
            extras.refused = Some(of_head(&head, path.clone(), is_sealed_path, remote)?);
        }
        quota::apply(&path, quota, extras)?;
    }
    let query = Query::parse(head.uri.query(), is_get)?;
    let operation = operation(&head, &path, is_sealed_path, &query)?;
    let token = headers::token(&head.headers, rules.limits.token)?;
    let authorization = headers::authorization(&head.headers, rules.limits.token);
    let wrap_ttl = if is_sealed_path { None } else { headers::wrap_ttl(&head.headers)? };
    let mfa = if is_sealed_path { Vec::new() } else { headers::mfa(&head.headers)? };
    let is_write = matches!(operation, Operation::Update | Operation::Patch);
    let accepts_prometheus = super::is_metrics_path(&path) && headers::accepts_prometheus(&head.headers);
    let incoming = Box::new(Incoming {
        id: random::request_id(),
        method: method_name(&head.method),
        operation,
        path,
        input: Input {
            // Writes have parameters in the body only.
            query: if is_write { keepfast_framework::Query::default() } else { query.parameters.into_iter().collect() },
            ..Input::default()
        },
        body_withheld: false,
        token,
        authorization,
        mfa,
        namespace: headers::namespace(&head.headers),
        headers: headers::audited(&head.headers, audited),
        wrap_ttl,
        remote,
        tls: peer.tls().cloned(),
        open: rules.open,
        accepts_prometheus,
        cluster,
    });
    Ok((incoming, is_write && headers::is_form(&head.headers)))
}

/// A request with only its head, to audit its refusal.
fn of_head(
    head: &Parts,
    path: CanonicalPath,
    is_sealed_path: bool,
    remote: Option<SocketAddr>,
) -> Result<Box<Incoming>, EdgeResponse> {
    let query = Query::parse(head.uri.query(), head.method == Method::GET)?;
    Ok(Box::new(Incoming {
        id: random::request_id(),
        method: method_name(&head.method),
        operation: operation(head, &path, is_sealed_path, &query)?,
        path,
        input: Input::default(),
        body_withheld: false,
        token: None,
        authorization: Authorization::None,
        mfa: Vec::new(),
        namespace: headers::namespace(&head.headers),
        headers: Vec::new(),
        wrap_ttl: None,
        remote,
        tls: None,
        open: UnauthedEndpoints::default(),
        accepts_prometheus: false,
        cluster: None,
    }))
}

/// The name of a method that [`operation`] accepts.
fn method_name(method: &Method) -> &'static str {
    let names = ["GET", "POST", "PUT", "PATCH", "DELETE", "LIST", "SCAN", "HEAD"];
    names.into_iter().find(|name| *name == method.as_str()).unwrap_or_default()
}

/// The operation of a method and a query.
fn operation(
    head: &Parts,
    path: &CanonicalPath,
    is_sealed_path: bool,
    query: &Query,
) -> Result<Operation, EdgeResponse> {
    let method = head.method.as_str();
    if query.help && matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "LIST" | "SCAN") {
        return Ok(Operation::Help);
    }
    // Paths of a sealed server accept one or two methods, and no `list` and `scan` in the query.
    match method {
        "GET" if is_sealed_path => Ok(Operation::Read),
        "PATCH" | "OPTIONS" if is_sealed_path => Err(EdgeResponse::bare(StatusCode::METHOD_NOT_ALLOWED)),
        "GET" if query.list => Ok(Operation::List),
        "GET" if query.scan => Ok(Operation::Scan),
        "GET" => Ok(Operation::Read),
        "POST" | "PUT" => Ok(Operation::Update),
        "DELETE" => Ok(Operation::Delete),
        "LIST" => Ok(Operation::List),
        "SCAN" => Ok(Operation::Scan),
        "PATCH" => headers::require_merge_patch(&head.headers).map(|()| Operation::Patch),
        // Load balancers send HEAD to this path; no other path accepts it.
        "HEAD" if path.as_str() == "sys/health" => Ok(Operation::Read),
        "HEAD" => Ok(Operation::Head),
        "OPTIONS" => Err(EdgeResponse::error(StatusCode::BAD_REQUEST, "cannot handle internal-only request operation")),
        _ => Err(EdgeResponse::bare(StatusCode::METHOD_NOT_ALLOWED)),
    }
}
