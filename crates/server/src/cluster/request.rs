//! The form of a request that a node passes to the leader, and of its response. Numbers are little-endian:
//!
//! ```text
//! request  = version:u8 (1) id:text method:u8 operation:u8 path:text namespace:text flags:u8
//!            token:option(text) wrap_ttl:option(seconds:u64 nanos:u32) remote:option(address) tls:option(tls)
//!            headers:list(name:text hmac:u8 values:list(text)) query:list(name:text values:list(text)) body:text
//! flags    = 1 body withheld | 2 open rekey | 4 open generate-root | 8 accepts Prometheus | 16 body of bytes
//!            | 32 token of `Authorization: Bearer` | 64 the token is followed by the credentials:text of `Basic`
//!            (both only for a row that takes the header, which a member of an older version does not have)
//!            | 128 the token and the credentials are followed by the MFA credentials:list(text), which a member of an older
//!            version refuses
//! address  = 4 ip:4 port:u16 | 6 ip:16 port:u16 flow:u32 scope:u32
//! tls      = version:u8 suite:u16 alpn:u8 server_name:option(text) chain:option(check:u8 list(text))
//! response = status:u16 decided:u16 index:u64 content_type:text body
//! text     = length:u32 byte*        list(x) = count:u32 x*        option(x) = 0 | 1 x
//! ```
//!
//! A request is decoded with the checks of the edge: the path is canonical, the body is one JSON object without repeated
//! names, or bytes. A list reserves no memory for its count; each of its elements takes at least four bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use keepfast_core::cluster::port::ForwardedResponse;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::tls_session::{ChainCheck, ClientChain, TlsVersion};
use keepfast_framework::{
    AuditedHeader, Authorization, Body, CanonicalPath, Incoming, Input, Operation, Query, QueryValue, RawBody,
    TlsSession, UnauthedEndpoints,
};

const VERSION: u8 = 1;
/// The most bytes of all names in a query; a head of HTTP is shorter.
const MAX_QUERY: usize = 1 << 20;
const METHODS: [&str; 9] = ["", "GET", "POST", "PUT", "PATCH", "DELETE", "LIST", "SCAN", "HEAD"];
const ALPN: [&str; 3] = ["", "h2", "http/1.1"];

/// Encodes a request up to the length of its body, which follows. `None` when a part is longer than 4 GiB or has a value
/// that the form does not have.
pub(super) fn encode(request: &Incoming) -> Option<SecretBytes> {
    let mut length = Length(0);
    put_request(&mut length, request)?;
    // Filled to its capacity: a growing vector would leave copies of the token.
    let mut out = Vec::with_capacity(length.0);
    put_request(&mut out, request)?;
    Some(SecretBytes::new(out))
}

/// The body of a request: JSON, or bytes.
///
/// A body in a file is never passed on: it is received at the leader only.
pub(super) fn body(request: &Incoming) -> &Bytes {
    let body = &request.input.body;
    match body.unparsed() {
        RawBody::Bytes(bytes) if !bytes.is_empty() => bytes,
        _ => body.raw(),
    }
}

/// Decodes a request; `None` for another form.
pub(super) fn decode(mut input: Bytes) -> Option<Box<Incoming>> {
    let input = &mut input;
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    let id = take_text(input)?;
    let method = *METHODS.get(usize::from(input.try_get_u8().ok()?))?;
    let operation = *Operation::ALL.get(usize::from(input.try_get_u8().ok()?))?;
    let path = CanonicalPath::new(take_text(input)?).ok()?;
    let namespace = take_text(input)?;
    let flags = input.try_get_u8().ok()?;
    let token = take_option(input, take_text)?.map(SecretString::new);
    let authorization = match flags >> 5 & 3 {
        0 => Authorization::None,
        1 => Authorization::Bearer,
        2 => Authorization::Basic(SecretString::new(take_text(input)?)),
        _ => return None,
    };
    let mfa = if flags & 128 == 0 { Vec::new() } else { take_list(input, take_text)? };
    let wrap_ttl = take_option(input, take_duration)?;
    let remote = take_option(input, take_address)?;
    let tls = take_option(input, take_tls)?.map(Arc::new);
    let headers = take_list(input, take_header)?;
    let query = take_query(input)?;
    let body = take_bytes(input)?;
    if !input.is_empty() {
        return None;
    }
    let body = if flags & 16 == 0 { Body::parse(body).ok()? } else { Body::of_bytes(body) };
    Some(Box::new(Incoming {
        id,
        method,
        operation,
        path,
        input: Input { captures: Vec::new(), query, body },
        token,
        authorization,
        mfa: mfa.into_iter().map(SecretString::new).collect(),
        namespace,
        body_withheld: flags & 1 != 0,
        headers,
        wrap_ttl,
        remote,
        tls,
        open: UnauthedEndpoints { rekey: flags & 2 != 0, generate_root: flags & 4 != 0 },
        accepts_prometheus: flags & 8 != 0,
        cluster: None,
    }))
}

/// Encodes a response up to its body, which follows.
pub(super) fn encode_response(status: u16, decided: u16, index: u64, content_type: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + content_type.len());
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&decided.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    // A content type is a constant of the program.
    let _ = put_text(&mut out, content_type.as_bytes());
    out
}

/// Decodes a response, whose body shares the memory of the input; `None` for another form.
pub(super) fn decode_response(mut input: Bytes) -> Option<ForwardedResponse> {
    Some(ForwardedResponse {
        status: input.try_get_u16_le().ok()?,
        decided: input.try_get_u16_le().ok()?,
        index: input.try_get_u64_le().ok()?,
        content_type: take_text(&mut input)?,
        body: input,
    })
}

/// Receives encoded bytes.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

/// Counts them.
struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

fn put_request(out: &mut impl Sink, request: &Incoming) -> Option<()> {
    let Incoming { id, method, operation, path, input, token, namespace, body_withheld, headers, .. } = request;
    let Incoming { authorization, mfa, wrap_ttl, remote, tls, open, accepts_prometheus, .. } = request;
    out.put(&[VERSION]);
    put_text(out, id.as_bytes())?;
    out.put(&[place(&METHODS, method)?, u8::try_from(operation.index()).ok()?]);
    put_text(out, path.as_str().as_bytes())?;
    put_text(out, namespace.as_bytes())?;
    let has_bytes = !input.body.bytes().is_empty();
    let flags = [*body_withheld, open.rekey, open.generate_root, *accepts_prometheus, has_bytes];
    let scheme = match authorization {
        Authorization::None => 0,
        Authorization::Bearer => 32,
        Authorization::Basic(_) => 64,
    };
    let has_mfa = if mfa.is_empty() { 0 } else { 128 };
    out.put(&[has_mfa | scheme | flags.iter().rev().fold(0, |all, flag| all << 1 | u8::from(*flag))]);
    put_option(out, token.as_ref(), |out, token| put_text(out, token.expose().as_bytes()))?;
    if let Authorization::Basic(credentials) = authorization {
        put_text(out, credentials.expose().as_bytes())?;
    }
    if !mfa.is_empty() {
        put_list(out, mfa, |out, value| put_text(out, value.expose().as_bytes()))?;
    }
    put_option(out, wrap_ttl.as_ref(), |out, ttl| {
        out.put(&ttl.as_secs().to_le_bytes());
        out.put(&ttl.subsec_nanos().to_le_bytes());
        Some(())
    })?;
    put_option(out, remote.as_ref(), |out, address| {
        put_address(out, address);
        Some(())
    })?;
    put_option(out, tls.as_deref(), put_tls)?;
    put_list(out, headers, |out, header| {
        put_text(out, header.name.as_bytes())?;
        out.put(&[u8::from(header.hmac)]);
        put_list(out, &header.values, |out, value| put_text(out, value.as_bytes()))
    })?;
    put_query(out, &input.query)?;
    out.put(&length(body(request).len())?);
    Some(())
}

fn put_query(out: &mut impl Sink, query: &Query) -> Option<()> {
    out.put(&length(query.len())?);
    for (name, value) in query.iter() {
        put_text(out, name.as_bytes())?;
        match value {
            QueryValue::One(value) => put_list(out, std::slice::from_ref(value), |out, v| put_text(out, v.as_bytes()))?,
            QueryValue::Repeated { json, .. } => {
                let values: Vec<String> = serde_json::from_str(json).ok()?;
                put_list(out, &values, |out, value| put_text(out, value.as_bytes()))?;
            }
        }
    }
    Some(())
}

fn put_address(out: &mut impl Sink, address: &SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            out.put(&[4]);
            out.put(&address.ip().octets());
            out.put(&address.port().to_le_bytes());
        }
        SocketAddr::V6(address) => {
            out.put(&[6]);
            out.put(&address.ip().octets());
            out.put(&address.port().to_le_bytes());
            out.put(&address.flowinfo().to_le_bytes());
            out.put(&address.scope_id().to_le_bytes());
        }
    }
}

fn put_tls<S: Sink>(out: &mut S, tls: &TlsSession) -> Option<()> {
    out.put(&[match tls.version {
        TlsVersion::Tls12 => 12,
        TlsVersion::Tls13 => 13,
    }]);
    out.put(&tls.cipher_suite.to_le_bytes());
    out.put(&[place(&ALPN, tls.alpn.unwrap_or_default())?]);
    put_option(out, tls.server_name.as_deref(), |out, name| put_text(out, name.as_bytes()))?;
    put_option(out, tls.client_chain.as_ref(), |out, chain| {
        out.put(&[match chain.check {
            ChainCheck::KeyOnly => 0,
            ChainCheck::Authorities => 1,
        }]);
        out.put(&length(1 + chain.intermediates.len())?);
        let mut all = std::iter::once(&chain.leaf).chain(&chain.intermediates);
        all.try_for_each(|certificate| put_text(out, certificate))
    })
}

fn put_text(out: &mut impl Sink, text: &[u8]) -> Option<()> {
    out.put(&length(text.len())?);
    out.put(text);
    Some(())
}

fn put_option<S: Sink, T: ?Sized>(
    out: &mut S,
    value: Option<&T>,
    put: impl FnOnce(&mut S, &T) -> Option<()>,
) -> Option<()> {
    out.put(&[u8::from(value.is_some())]);
    value.map_or(Some(()), |value| put(out, value))
}

fn put_list<S: Sink, T>(out: &mut S, list: &[T], put: impl Fn(&mut S, &T) -> Option<()>) -> Option<()> {
    out.put(&length(list.len())?);
    list.iter().try_for_each(|element| put(out, element))
}

fn length(length: usize) -> Option<[u8; 4]> {
    u32::try_from(length).ok().map(u32::to_le_bytes)
}

fn place(names: &[&str], name: &str) -> Option<u8> {
    names.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok())
}

fn take_bytes(input: &mut Bytes) -> Option<Bytes> {
    let length = input.try_get_u32_le().ok()? as usize;
    (length <= input.len()).then(|| input.split_to(length))
}

/// Checked before it is copied: an error with the copy would not wipe it.
fn take_text(input: &mut Bytes) -> Option<String> {
    let bytes = take_bytes(input)?;
    std::str::from_utf8(&bytes).ok().map(str::to_owned)
}

fn take_flag(input: &mut Bytes) -> Option<bool> {
    match input.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// The outer `None` is another form.
fn take_option<T>(input: &mut Bytes, take: impl FnOnce(&mut Bytes) -> Option<T>) -> Option<Option<T>> {
    if take_flag(input)? { take(input).map(Some) } else { Some(None) }
}

fn take_list<T>(input: &mut Bytes, take: impl Fn(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    let count = input.try_get_u32_le().ok()?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(take(input)?);
    }
    Some(list)
}

fn take_duration(input: &mut Bytes) -> Option<Duration> {
    let (seconds, nanos) = (input.try_get_u64_le().ok()?, input.try_get_u32_le().ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

fn take_address(input: &mut Bytes) -> Option<SocketAddr> {
    Some(match input.try_get_u8().ok()? {
        4 => {
            let ip = Ipv4Addr::from(take_array::<4>(input)?);
            SocketAddrV4::new(ip, input.try_get_u16_le().ok()?).into()
        }
        6 => {
            let (ip, port) = (Ipv6Addr::from(take_array::<16>(input)?), input.try_get_u16_le().ok()?);
            SocketAddrV6::new(ip, port, input.try_get_u32_le().ok()?, input.try_get_u32_le().ok()?).into()
        }
        _ => return None,
    })
}

fn take_array<const N: usize>(input: &mut Bytes) -> Option<[u8; N]> {
    let mut array = [0; N];
    input.try_copy_to_slice(&mut array).ok()?;
    Some(array)
}

fn take_tls(input: &mut Bytes) -> Option<TlsSession> {
    let version = match input.try_get_u8().ok()? {
        12 => TlsVersion::Tls12,
        13 => TlsVersion::Tls13,
        _ => return None,
    };
    let cipher_suite = input.try_get_u16_le().ok()?;
    let alpn = *ALPN.get(usize::from(input.try_get_u8().ok()?))?;
    Some(TlsSession {
        version,
        cipher_suite,
        alpn: Some(alpn).filter(|name| !name.is_empty()),
        server_name: take_option(input, take_text)?.map(String::into_boxed_str),
        client_chain: take_option(input, take_chain)?,
    })
}

fn take_chain(input: &mut Bytes) -> Option<ClientChain> {
    let check = if take_flag(input)? { ChainCheck::Authorities } else { ChainCheck::KeyOnly };
    let certificate = |input: &mut Bytes| take_bytes(input).map(|bytes| Box::from(&*bytes));
    let mut all = take_list(input, certificate)?.into_iter();
    Some(ClientChain { leaf: all.next()?, intermediates: all.collect(), check })
}

fn take_header(input: &mut Bytes) -> Option<AuditedHeader> {
    let (name, hmac) = (take_text(input)?, take_flag(input)?);
    Some(AuditedHeader { name, hmac, values: take_list(input, take_text)? })
}

/// Names are unique and have a value: the form of [`Query`].
fn take_query(input: &mut Bytes) -> Option<Query> {
    let parameters = take_list(input, |input| {
        let name = take_text(input)?;
        Some((name, take_list(input, take_text).filter(|values| !values.is_empty())?))
    })?;
    let count = parameters.len();
    // A client repeats the name for each value.
    let sent: usize = parameters.iter().map(|(name, values)| name.len().saturating_mul(values.len())).sum();
    if sent > MAX_QUERY {
        return None;
    }
    let pairs = parameters.into_iter().flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v)));
    let query: Query = pairs.collect();
    (query.len() == count).then_some(query)
}
