//! The first stage of a request's journey: from HTTP to [`Incoming`], in the order in which strangers are cheapest to refuse.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::EXPECT;
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};
use hyper::body::Body as _;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{CanonicalPath, Incoming, Input, OpenCeremonies, Operation};

use super::answer::{Answer, Told};
use super::body::{self, BodyMemory, Receiving, Sender, Share};
use super::query::Query;
use super::{FIRST_STREAMS, cors, headers, path, quota, unread};
use crate::config::{Forwarded, Limits};
use crate::connection::HEAD_INCLUDED;
use crate::connections::{Charge, Peer};
use crate::kernel::Kernel;

/// What a parameter of a query takes in memory beside its text, in bytes: two strings with their allocations, twice while
/// they become a map.
const PARAMETER: usize = 192;

/// The rules of one listener.
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) forwarded: Forwarded,
    pub(crate) open: OpenCeremonies,
}

/// An admitted request and what it holds of the server's memory for bodies.
pub(crate) struct Admitted {
    pub(crate) incoming: Box<Incoming>,
    pub(crate) share: Option<Share>,
}

/// What a request is checked by.
pub(crate) struct Admitting<'a, K> {
    pub(crate) kernel: &'a K,
    pub(crate) rules: &'a Rules,
    pub(crate) memory: &'a Arc<BodyMemory>,
    pub(crate) peer: &'a Arc<Peer>,
    /// What the request holds until its answer is sent.
    pub(crate) held: &'a mut Charge,
}

/// Makes an [`Incoming`] of a request, or the answer that refuses it. Headers and quotas are judged before a byte of the
/// body is read, and the head is dropped before the body is awaited. `told` gets the headers for the answer: those of CORS
/// and what is left of a quota.
pub(crate) async fn admit<K: Kernel>(
    request: Request<hyper::body::Incoming>,
    admitting: Admitting<'_, K>,
    told: &mut Told,
) -> Result<Admitted, Answer> {
    let (head, body) = request.into_parts();
    let (longest, peer) = (admitting.rules.limits.read_timeout, admitting.peer);
    let (expects, announced) = (head.headers.contains_key(EXPECT), body.size_hint().exact());
    let mut body = Some(body);
    let outcome = admit_parts(head, &mut body, admitting, told).await;
    if let Some(rest) = body {
        // A client that waits for "100 Continue" has sent nothing; to receive would tell it to send.
        let waits = expects && announced.is_some() && rest.size_hint().exact() == announced;
        if !waits {
            unread::discard(rest, longest, peer);
        }
    }
    outcome
}

/// The same; `body` is `None` afterwards when it was received to its end.
async fn admit_parts<K: Kernel>(
    head: Parts,
    body: &mut Option<hyper::body::Incoming>,
    mut admitting: Admitting<'_, K>,
    told: &mut Told,
) -> Result<Admitted, Answer> {
    let recorded = admitting.kernel.recorded_headers();
    charge(&head, &mut admitting, &recorded)?;
    cors::check(&head, admitting.kernel, told)?;
    let (mut head, form) = read_head(head, &admitting, &recorded, told)?;
    let announced = body.as_ref().map_or(Some(0), |body| body.size_hint().exact());
    let sender = admitting.sender(head.token.as_ref(), head.remote, announced).await?;
    if !matches!(head.operation, Operation::Update | Operation::Patch) {
        return Ok(Admitted { incoming: head, share: None });
    }
    let Admitting { kernel, rules, memory, peer, .. } = admitting;
    let receiving = Receiving { limits: &rules.limits, memory, peer, sender, form };
    match receiving.receive(body).await? {
        Some((body, share)) => {
            head.input.body = body;
            Ok(Admitted { incoming: head, share: Some(share) })
        }
        // The kernel refuses the dead token, and records that: clients log in again at a 403.
        None if head.token.is_some() && !kernel.answers_sealed(head.path.as_str()) => {
            head.body_withheld = true;
            Ok(Admitted { incoming: head, share: None })
        }
        None => Err(body::too_large_without_token()),
    }
}

/// Counts what a request keeps of its head, before anything is answered or recorded of it.
///
/// # Errors
/// 431 where the heads of a connection of HTTP/2 are out of proportion to what it has sent.
fn charge<K>(head: &Parts, admitting: &mut Admitting<'_, K>, recorded: &BTreeMap<String, bool>) -> Result<(), Answer> {
    let length = kept_length(head, recorded);
    let expands = head.version == Version::HTTP_2;
    if expands && !admitting.peer.count_head(length) {
        let text = "the header fields of the requests without a live token on this connection are too long";
        return Err(Answer::error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
    }
    let parameters = head.uri.query().map_or(0, |query| query.matches('&').count() * PARAMETER);
    // Of HTTP/1 a short head counts with the connection.
    admitting.held.add(if expands { length } else { length.saturating_sub(HEAD_INCLUDED) } + parameters);
    Ok(())
}

/// How many bytes a request keeps of its head, at most: in the audit entry, in memory while it is handled, and in an answer
/// that repeats them.
fn kept_length(head: &Parts, recorded: &BTreeMap<String, bool>) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let values = headers::kept(&head.headers, recorded).map(headers::text_length);
    target + values.sum::<usize>()
}

impl<K: Kernel> Admitting<'_, K> {
    /// Who sends a request with a body of so many bytes, as far as it tells. The token is looked up until the connection is
    /// known, and for each body that takes memory: a proxy sends the requests of several callers over one connection. Small
    /// bodies share the memory for those of strangers instead, as long as that is enough.
    async fn sender(
        &self,
        token: Option<&SecretString>,
        remote: Option<SocketAddr>,
        announced: Option<u64>,
    ) -> Result<Sender, Answer> {
        if let Some(token) = token {
            if self.peer.is_known()
                && let Some(sender) = self.memory.unchecked(announced)
            {
                return Ok(sender);
            }
            if self.kernel.knows(token, remote.map(|a| a.ip())).await {
                self.peer.set_known();
                return Ok(Sender::Known);
            }
        }
        if !self.peer.is_known() && self.peer.activity.open() > FIRST_STREAMS {
            return Err(Answer::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once on a connection without an authenticated request",
            ));
        }
        Ok(Sender::Stranger)
    }
}

/// All of a request but its body, and whether that is declared as a form.
fn read_head<K: Kernel>(
    head: Parts,
    admitting: &Admitting<'_, K>,
    recorded: &BTreeMap<String, bool>,
    told: &mut Told,
) -> Result<(Box<Incoming>, bool), Answer> {
    let Admitting { rules, kernel, peer, .. } = admitting;
    headers::unambiguous(&head)?;
    let remote = headers::remote(&head.headers, peer.address(), &rules.forwarded)?;
    headers::consistency(&head.headers)?;
    let reads = head.method == Method::GET;
    let path = path::canonical(&head.uri).map_err(|refusal| if reads { refusal.with_page() } else { refusal })?;
    // What is served on a sealed server wraps nothing.
    let is_sealed_path = kernel.answers_sealed(path.as_str());
    if let Some(verdict) = kernel.count_request(path.as_str(), remote.map(|a| a.ip())) {
        if verdict.refused && verdict.audits_refusal {
            told.refused = Some(of_head(&head, path.clone(), is_sealed_path, remote)?);
        }
        quota::apply(&path, verdict, told)?;
    }
    let query = Query::parse(head.uri.query(), reads)?;
    let operation = operation(&head, &path, is_sealed_path, &query)?;
    let token = headers::token(&head.headers, rules.limits.token)?;
    let wrap_ttl = if is_sealed_path { None } else { headers::wrap_ttl(&head.headers)? };
    let writes = matches!(operation, Operation::Update | Operation::Patch);
    let accepts_prometheus = super::names_metrics(&path) && headers::accepts_prometheus(&head.headers);
    let incoming = Box::new(Incoming {
        id: random::request_id(),
        method: method_name(&head.method),
        operation,
        path,
        input: Input {
            // Writes take their parameters from the body alone.
            query: if writes { keepfast_framework::Query::default() } else { query.parameters.into_iter().collect() },
            ..Input::default()
        },
        body_withheld: false,
        token,
        namespace: headers::namespace(&head.headers),
        headers: headers::recorded(&head.headers, recorded),
        wrap_ttl,
        remote,
        tls: peer.tls().cloned(),
        open: rules.open,
        accepts_prometheus,
    });
    Ok((incoming, headers::is_form(&head.headers)))
}

/// A request of which nothing but its head is known, for the record of its refusal.
fn of_head(
    head: &Parts,
    path: CanonicalPath,
    is_sealed_path: bool,
    remote: Option<SocketAddr>,
) -> Result<Box<Incoming>, Answer> {
    let query = Query::parse(head.uri.query(), head.method == Method::GET)?;
    Ok(Box::new(Incoming {
        id: random::request_id(),
        method: method_name(&head.method),
        operation: operation(head, &path, is_sealed_path, &query)?,
        path,
        input: Input::default(),
        body_withheld: false,
        token: None,
        namespace: headers::namespace(&head.headers),
        headers: Vec::new(),
        wrap_ttl: None,
        remote,
        tls: None,
        open: OpenCeremonies::default(),
        accepts_prometheus: false,
    }))
}

/// The name of a method that [`operation`] knows.
fn method_name(method: &Method) -> &'static str {
    let names = ["GET", "POST", "PUT", "PATCH", "DELETE", "LIST", "SCAN", "HEAD"];
    names.into_iter().find(|name| *name == method.as_str()).unwrap_or_default()
}

/// What a method and its query ask for.
fn operation(head: &Parts, path: &CanonicalPath, is_sealed_path: bool, query: &Query) -> Result<Operation, Answer> {
    let method = head.method.as_str();
    if query.help && matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "LIST" | "SCAN") {
        return Ok(Operation::Help);
    }
    // What is served on a sealed server has one or two methods, and no choices in the query.
    match method {
        "GET" if is_sealed_path => Ok(Operation::Read),
        "PATCH" | "OPTIONS" if is_sealed_path => Err(Answer::bare(StatusCode::METHOD_NOT_ALLOWED)),
        "GET" if query.list => Ok(Operation::List),
        "GET" if query.scan => Ok(Operation::Scan),
        "GET" => Ok(Operation::Read),
        "POST" | "PUT" => Ok(Operation::Update),
        "DELETE" => Ok(Operation::Delete),
        "LIST" => Ok(Operation::List),
        "SCAN" => Ok(Operation::Scan),
        "PATCH" => headers::require_merge_patch(&head.headers).map(|()| Operation::Patch),
        // Load balancers ask this one with HEAD; nothing else may be asked so.
        "HEAD" if path.as_str() == "sys/health" => Ok(Operation::Read),
        "HEAD" => Ok(Operation::Head),
        "OPTIONS" => Err(Answer::error(StatusCode::BAD_REQUEST, "cannot handle internal-only request operation")),
        _ => Err(Answer::bare(StatusCode::METHOD_NOT_ALLOWED)),
    }
}
