//! One entry in Vault's shape, formatted for one device in one pass.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use keepfast_crypto::hmac::HmacKey;
use keepfast_framework::reply::AuthBlock;
use keepfast_framework::{AuditedHeader, Query, Timestamp};
use serde::Serialize;

use super::auth_members::issued;
use super::entry_size::{self, Extent};
use super::mount_members::{MountMembers, NO_MOUNT};
use super::redact;
use super::token_members::TokenMembers;
use crate::namespace::Namespace;
use crate::token::Token;

/// An audit entry of a request or of its response. It is immutable: each device formats it separately.
pub(crate) struct Entry<'a> {
    /// The time of the entry.
    pub(crate) time: Timestamp,
    /// The request.
    pub(crate) request: RequestPart<'a>,
    /// The token of the caller, if one was accepted.
    pub(crate) caller: Option<&'a Token>,
    /// The decision of the caller's policies.
    pub(crate) policy_results: &'a PolicyResults,
    /// The response; `None` in a request entry.
    pub(crate) response: Option<ResponsePart<'a>>,
    /// The error in the response.
    pub(crate) error: Option<&'a keepfast_framework::Error>,
}

/// The decision of a caller's policies on a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyResults {
    /// Whether the policies allow it; `None` when the request was refused before they were evaluated.
    pub(crate) allowed: Option<bool>,
    /// The names of the policies that grant it.
    pub(crate) granting: Vec<Arc<str>>,
    /// The policies of the caller's entity.
    pub(crate) identity_policies: Vec<String>,
}

/// The request in an entry.
pub(crate) struct RequestPart<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// The namespace of the request.
    pub(crate) namespace: &'a Namespace,
    /// The operation.
    pub(crate) operation: &'static str,
    /// The path.
    pub(crate) path: &'a str,
    /// The mount, if there is one.
    pub(crate) mount: Option<&'a MountMembers>,
    /// The client token in the request.
    pub(crate) token: Option<&'a str>,
    /// The body and the query as JSON objects.
    pub(crate) data: Option<&'a str>,
    /// Query parameters.
    pub(crate) query: &'a Query,
    /// The headers that the operator selected for entries.
    pub(crate) headers: &'a [AuditedHeader],
    /// The client address.
    pub(crate) remote: Option<std::net::SocketAddr>,
    /// The node of the cluster that passed the request to this one.
    pub(crate) forwarded_from: Option<&'a str>,
    /// The wrap TTL in seconds; zero for none.
    pub(crate) wrap_ttl: u64,
    /// The fields that stay in clear.
    pub(crate) public: Option<&'a Vec<String>>,
}

/// The response in an entry.
#[derive(Default)]
pub(crate) struct ResponsePart<'a> {
    /// Its `data` as raw JSON.
    pub(crate) data: Option<&'a str>,
    /// A new token.
    pub(crate) auth: Option<&'a AuthBlock>,
    /// The new token of a login, which is also the caller.
    pub(crate) login: Option<&'a AuthBlock>,
    /// The id of a new lease; empty for none.
    pub(crate) lease_id: &'a str,
    /// A new wrapping token.
    pub(crate) wrap: Option<&'a keepfast_framework::reply::WrapInfo>,
    /// Warnings.
    pub(crate) warnings: &'a [String],
    /// Whether a field of `data` stays in clear.
    pub(crate) public: Option<&'a (dyn Fn(&str) -> bool + Sync)>,
}

/// The format options of a device.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    /// Whether secrets are in clear, which an operator must set for each device.
    pub(crate) log_raw: bool,
    /// Whether accessors are hashed.
    pub(crate) hmac_accessor: bool,
    /// Whether the response of a list has the number of its names instead of the names.
    pub(crate) elide_list_responses: bool,
    /// The prefix of each line.
    pub(crate) prefix: String,
}

impl Entry<'_> {
    /// The approximate length of a line in bytes: an HMAC is twice as long as most values.
    pub(crate) fn expected_length(&self) -> usize {
        let extent = self.extent();
        let length = |data: Option<&str>| data.map_or(0, |data| (2 * data.len()).min(extent.bound(data.len())));
        1536 + length(self.request.data) + length(self.response.as_ref().and_then(|response| response.data))
    }

    /// Bytes of JSON that formatting the entry reads. `is_serialized`: the request part exists already.
    pub(crate) fn input_length(&self, is_serialized: bool) -> usize {
        let length = |data: Option<&str>| data.map_or(0, str::len);
        let request = if is_serialized { 0 } else { length(self.request.data) };
        request + length(self.response.as_ref().and_then(|response| response.data))
    }

    /// The extent to which the entry holds the request and the response.
    fn extent(&self) -> Extent {
        if self.caller.is_some() { Extent::Token } else { Extent::Stranger }
    }

    /// Writes the entry as a line of JSON; returns the range of its request part.
    ///
    /// `mark` is the accepted token in the format of this device, `earlier` the request part of the request entry, so
    /// that the values of a request are hashed once.
    pub(crate) fn line(
        &self,
        key: &HmacKey,
        format: &Format,
        mark: Option<&TokenMembers>,
        earlier: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Range<usize> {
        let mut w = Writer { key, format, extent: self.extent(), out };
        w.raw(&format.prefix);
        w.raw("{\"time\":\"");
        w.raw(&self.time.rfc3339());
        w.raw(if self.response.is_some() { "\",\"type\":\"response\"" } else { "\",\"type\":\"request\"" });
        let login = self.auth(mark, &mut w);
        let start = w.out.len();
        match earlier {
            Some(earlier) => w.out.extend_from_slice(earlier),
            None => self.request(mark, &mut w),
        }
        let request = start..w.out.len();
        if let Some(response) = &self.response {
            self.response(response, login, &mut w);
        }
        if let Some(error) = self.error.filter(|e| !e.public().is_empty()) {
            // Only a constant text is known to hold no input of the caller.
            match error.constant() {
                Some(text) => w.field("error", text),
                None => w.secret("error", error.public()),
            }
        }
        if let Some(reason) = self.error.and_then(keepfast_framework::Error::reason) {
            w.field("error_reason", reason);
        }
        w.raw("}\n");
        request
    }

    /// Writes the caller; returns the range of the members of a login's token.
    fn auth(&self, mark: Option<&TokenMembers>, w: &mut Writer<'_>) -> Option<Range<usize>> {
        w.raw(",\"auth\":{");
        let login = self.response.as_ref().and_then(|response| response.login);
        let mut written = None;
        match (login, mark) {
            (Some(login), _) => {
                let start = w.out.len();
                issued(login, w);
                written = Some(start..w.out.len());
                self.policy_results(w);
            }
            (None, Some(mark)) => {
                w.out.extend_from_slice(&mark.before_policies);
                self.policies(mark, w);
                self.policy_results(w);
                w.out.extend_from_slice(&mark.after_policies);
            }
            (None, None) => {
                w.raw("\"token_type\":\"default\"");
                self.policy_results(w);
            }
        }
        w.raw("}");
        written
    }

    /// Writes `policies` with and without those of the caller's entity.
    fn policies(&self, mark: &TokenMembers, w: &mut Writer<'_>) {
        let added = &self.policy_results.identity_policies;
        let Some(token) = self.caller.filter(|_| !added.is_empty()) else {
            w.out.extend_from_slice(&mark.policies);
            return;
        };
        let mut all = token.record.authority.names();
        all.extend(added.iter().cloned());
        all.sort();
        all.dedup();
        w.field("policies", &all);
        w.field("identity_policies", added);
    }

    fn policy_results(&self, w: &mut Writer<'_>) {
        let Some(allowed) = self.policy_results.allowed else { return };
        // Policies belong to the namespace of the token.
        let namespace = self.caller.map_or(&self.request.namespace.id, |token| &token.record.namespace);
        let path = self.request.namespace.path_of(namespace);
        w.raw(if allowed { ",\"policy_results\":{\"allowed\":true" } else { ",\"policy_results\":{\"allowed\":false" });
        for (at, name) in self.policy_results.granting.iter().enumerate() {
            w.raw(if at == 0 { ",\"granting_policies\":[{\"name\":" } else { ",{\"name\":" });
            w.text(name);
            w.text_field("namespace_id", namespace.as_str());
            if !path.is_empty() {
                w.text_field("namespace_path", path);
            }
            w.raw(",\"type\":\"acl\"}");
        }
        w.raw(if self.policy_results.granting.is_empty() { "}" } else { "]}" });
    }

    fn request(&self, mark: Option<&TokenMembers>, w: &mut Writer<'_>) {
        let request = &self.request;
        w.raw(",\"request\":{\"id\":");
        w.text(request.id);
        w.text_field("operation", request.operation);
        if let Some(mount) = request.mount {
            w.out.extend_from_slice(&mount.request);
        }
        if let Some(mark) = mark {
            w.written("client_id", &mark.client);
        }
        match (mark, request.token) {
            (Some(mark), _) => w.written("client_token", &mark.token),
            (None, Some(token)) => w.secret("client_token", token),
            (None, None) => {}
        }
        if let Some(mark) = mark.filter(|m| !m.accessor.is_empty()) {
            w.written("client_token_accessor", &mark.accessor);
        }
        w.raw(",\"namespace\":{\"id\":");
        w.text(request.namespace.id.as_str());
        if !request.namespace.path.is_empty() {
            w.text_field("path", &request.namespace.path);
        }
        w.raw("}");
        w.text_field("path", request.path);
        let names = request.public.filter(|names| !names.is_empty());
        let is_public = |name: &str| names.is_some_and(|names| names.iter().any(|n| n == name));
        let public = names.is_some().then_some(&is_public as &dyn Fn(&str) -> bool);
        if let Some(data) = request.data {
            w.data("data", data, public);
        }
        if !request.query.is_empty() {
            let query: serde_json::Map<String, serde_json::Value> =
                request.query.iter().map(|(name, value)| (name.to_owned(), value.to_json())).collect();
            w.data("query", &serde_json::Value::Object(query).to_string(), public);
        }
        if let Some(remote) = request.remote {
            w.field("remote_address", &remote.ip());
            w.field("remote_port", &remote.port());
        }
        if let Some(node) = request.forwarded_from {
            w.field("forwarded_from", node);
        }
        if request.wrap_ttl > 0 {
            w.field("wrap_ttl", &request.wrap_ttl);
        }
        w.headers(request.headers);
        w.raw("}");
    }

    /// Writes the response; `login` is the range of an already written login token.
    fn response(&self, response: &ResponsePart<'_>, login: Option<Range<usize>>, w: &mut Writer<'_>) {
        w.raw(",\"response\":{");
        match self.request.mount {
            Some(mount) => w.out.extend_from_slice(&mount.response),
            None => w.raw(NO_MOUNT),
        }
        if let Some(auth) = response.auth {
            w.raw(",\"auth\":{");
            match login.filter(|_| response.login.is_some_and(|login| std::ptr::eq(login, auth))) {
                Some(written) => w.out.extend_from_within(written),
                None => issued(auth, w),
            }
            w.raw("}");
        }
        if !response.lease_id.is_empty() {
            w.raw(",\"secret\":{\"lease_id\":");
            w.json(response.lease_id);
            w.raw("}");
        }
        if let Some(wrap) = response.wrap {
            w.raw(",\"wrap_info\":{\"ttl\":");
            w.json(&wrap.ttl);
            w.secret("token", wrap.token.expose());
            w.accessor("accessor", &wrap.accessor);
            w.field("creation_time", &wrap.creation_time);
            w.field("creation_path", &wrap.creation_path);
            w.accessor("wrapped_accessor", &wrap.wrapped_accessor);
            w.raw("}");
        }
        let elided = response.data.filter(|_| w.format.elide_list_responses && lists(self.request.operation));
        if let Some(data) = elided.and_then(counted) {
            w.name("data");
            w.raw(&data);
        } else if let Some(data) = response.data {
            w.data("data", data, response.public.map(|public| public as &dyn Fn(&str) -> bool));
        } else if let Some(error) = self.error.filter(|error| !error.public().is_empty()) {
            w.raw(",\"data\":{\"error\":");
            w.hashed(error.public());
            w.raw("}");
        }
        if !response.warnings.is_empty() {
            w.field("warnings", &response.warnings);
        }
        w.raw("}");
    }
}

/// Bytes of one header value besides the value: a hash, quotes, a comma.
const HEADER_VALUE: usize = 80;

fn lists(operation: &str) -> bool {
    matches!(operation, "list" | "scan")
}

/// The response of a list with the number of its names instead of the names; `None` when it has another form.
fn counted(data: &str) -> Option<String> {
    let fields: BTreeMap<&str, &serde_json::value::RawValue> = serde_json::from_str(data).ok()?;
    let mut out = serde_json::Map::new();
    for (name, value) in fields {
        let count = match name {
            "keys" => serde_json::from_str::<Vec<serde::de::IgnoredAny>>(value.get()).ok()?.len(),
            "key_info" => serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(value.get()).ok()?.len(),
            _ => return None,
        };
        out.insert(name.to_owned(), count.into());
    }
    serde_json::to_string(&out).ok()
}

pub(super) struct Writer<'a> {
    pub(super) key: &'a HmacKey,
    pub(super) format: &'a Format,
    pub(super) extent: Extent,
    pub(super) out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    pub(super) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.raw("null");
        }
    }

    /// Writes a JSON string.
    fn text(&mut self, text: &str) {
        // Without an early end the compiler checks many bytes at once; most texts need no escapes.
        let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
        if !text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            return self.json(text);
        }
        self.out.push(b'"');
        self.raw(text);
        self.out.push(b'"');
    }

    fn name(&mut self, name: &str) {
        self.raw(",\"");
        self.raw(name);
        self.raw("\":");
    }

    pub(super) fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        self.json(value);
    }

    fn text_field(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text(value);
    }

    /// Writes a field with a hashed value.
    pub(super) fn secret(&mut self, name: &str, value: &str) {
        self.name(name);
        self.hashed(value);
    }

    pub(super) fn hashed(&mut self, value: &str) {
        if self.format.log_raw { self.json(value) } else { redact::text(value, self.key, self.out) }
    }

    fn headers(&mut self, headers: &[AuditedHeader]) {
        if headers.is_empty() {
            return;
        }
        self.raw(",\"headers\":{");
        for (at, header) in headers.iter().enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            self.json(&header.name);
            self.raw(":[");
            if header.values.iter().map(|value| value.len() + HEADER_VALUE).sum::<usize>() > entry_size::STRANGER {
                redact::text(&header.values.join(","), self.key, self.out);
                self.raw("]");
                continue;
            }
            for (at, value) in header.values.iter().enumerate() {
                self.raw(if at == 0 { "" } else { "," });
                if header.hmac && !self.format.log_raw {
                    redact::text(value, self.key, self.out);
                } else {
                    self.json(value);
                }
            }
            self.raw("]");
        }
        self.raw("}");
    }

    /// Writes a field whose value is JSON already.
    fn written(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    pub(super) fn accessor(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.name(name);
            self.accessor_value(value);
        }
    }

    pub(super) fn accessor_value(&mut self, value: &str) {
        match self.format.hmac_accessor {
            _ if value.is_empty() => {}
            true => self.hashed(value),
            false => self.json(value),
        }
    }

    /// Writes a JSON text with the HMACs of its secrets, or one HMAC of the whole where that would be too long.
    /// `public` returns which top-level fields stay in clear.
    fn data(&mut self, name: &str, raw: &str, public: Option<&dyn Fn(&str) -> bool>) {
        let admitted = match self.format.log_raw {
            true => raw.len() <= self.extent.bound(raw.len()),
            false => self.extent.admits(raw, public.is_some()),
        };
        if !admitted {
            entry_size::whole(name, raw, self.key, self.out);
            return;
        }
        self.name(name);
        match public {
            _ if self.format.log_raw => redact::one_line(raw.as_bytes(), self.out),
            Some(public) => redact::json(raw, self.key, public, self.out),
            None => redact::json(raw, self.key, &|_| false, self.out),
        }
    }
}
