//! The JSON of a response, in Vault's shape.

use std::time::Duration;

use keepfast_framework::reply::{AuthBlock, Raw, RawFile, SentStatus, WrapInfo};
use keepfast_framework::{Error, Status};
use keepfast_storage::Index;
use serde::Serialize;

use super::wiped::{self, WipedJson};
use super::{Response, ResponseHeaders};
use crate::identity::MfaRequirement;
use crate::lease::intent::Granted;

/// The response of a request that was not refused, before it is audited.
pub(crate) enum ResponseContent {
    /// Vault's envelope.
    Envelope(Box<Envelope>),
    /// Bytes, sent as they are.
    Raw(Raw),
    /// The same from a file.
    File(RawFile),
}

/// Whether a response is wrapped.
#[derive(Clone, Copy, Default)]
pub(crate) enum Wrapping {
    /// As the request says.
    #[default]
    AsRequested,
    /// Never: the caller needs it to complete the request.
    Never,
    /// For this time, if the request does not say: an earlier request did.
    For(Duration),
}

/// A response in Vault's shape.
#[derive(Default)]
pub(crate) struct Envelope {
    /// The id of the request.
    pub(crate) id: String,
    /// The status, where it is not 200 or 204.
    pub(crate) status: Option<SentStatus>,
    /// The data, a raw JSON object.
    pub(crate) data: Option<WipedJson>,
    /// Whether the fields of the data are also at the top level.
    pub(crate) flat: bool,
    /// A token that was created or renewed.
    pub(crate) auth: Option<Box<AuthBlock>>,
    /// Whether a login created that token.
    pub(crate) is_login: bool,
    /// The MFA that a login waits for, in place of its token.
    pub(crate) mfa_requirement: Option<Box<MfaRequirement>>,
    /// Whether the response is wrapped.
    pub(crate) wrapping: Wrapping,
    /// The token of a login whose response is wrapped, for the audit entry.
    pub(crate) wrapped_login: Option<Box<AuthBlock>>,
    /// The id of a lease; empty for none.
    pub(crate) lease_id: String,
    /// Seconds; negative if the secret has a negative one.
    pub(crate) lease_duration: i64,
    /// Whether the lease can be renewed.
    pub(crate) renewable: bool,
    /// The wrapping token that replaces the response.
    pub(crate) wrap: Option<Box<WrapInfo>>,
    /// Warnings.
    pub(crate) warnings: Vec<String>,
}

impl Envelope {
    /// The token of a login, wrapped or not.
    pub(crate) fn login_auth(&self) -> Option<&AuthBlock> {
        self.auth.as_deref().filter(|_| self.is_login).or(self.wrapped_login.as_deref())
    }

    /// Adds the token of a login.
    pub(super) fn set_login(&mut self, auth: AuthBlock) {
        (self.auth, self.is_login) = (Some(Box::new(auth)), true);
    }

    /// The wrap TTL of the response to a request with this one; `None` for a response that is not wrapped.
    pub(super) fn wrap_ttl(&self, requested: Option<Duration>) -> Option<Duration> {
        let ttl = match self.wrapping {
            Wrapping::AsRequested => requested,
            Wrapping::Never => None,
            Wrapping::For(ttl) => requested.or(Some(ttl)),
        };
        ttl.filter(|ttl| !ttl.is_zero())
    }

    /// Adds a lease.
    pub(super) fn set_lease(&mut self, lease: Granted) {
        let Granted { id, ttl, renewable, warnings } = lease;
        self.lease_id = id;
        self.lease_duration = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        self.renewable = renewable;
        self.warnings.extend(warnings);
    }

    /// Whether there is no content: 204.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_none()
            && self.auth.is_none()
            && self.mfa_requirement.is_none()
            && self.wrap.is_none()
            && self.lease_id.is_empty()
            && self.warnings.is_empty()
    }

    /// The JSON with a final line feed, as OpenBao writes it.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let data = self.data.as_ref().map_or(0, |d| d.get().len() * if self.flat { 2 } else { 1 });
        // A buffer that grows leaves copies of its tokens behind.
        let tokens = self.auth.as_deref().map_or(0, length_of) + self.wrap.as_ref().map_or(0, |_| 1024);
        let mut out = Vec::with_capacity(256 + data + tokens);
        out.push(b'{');
        if let Some(data) = self.data.as_ref().filter(|_| self.flat) {
            let fields = data.get().trim();
            let fields = fields.strip_prefix('{').and_then(|f| f.strip_suffix('}')).unwrap_or("").trim();
            if !fields.is_empty() {
                out.extend_from_slice(fields.as_bytes());
                out.push(b',');
            }
        }
        field(&mut out, "request_id", &self.id);
        next(&mut out, "lease_id", &self.lease_id);
        next(&mut out, "renewable", &self.renewable);
        next(&mut out, "lease_duration", &self.lease_duration);
        out.extend_from_slice(b",\"data\":");
        match &self.data {
            None => out.extend_from_slice(b"null"),
            Some(data) => out.extend_from_slice(data.get().as_bytes()),
        }
        out.extend_from_slice(b",\"wrap_info\":");
        wrap_info(self.wrap.as_deref(), &mut out);
        let warnings = (!self.warnings.is_empty()).then_some(&self.warnings);
        next(&mut out, "warnings", &warnings);
        out.extend_from_slice(b",\"auth\":");
        match &self.mfa_requirement {
            Some(requirement) => pending_auth(requirement, &mut out),
            None => auth(self.auth.as_deref(), &mut out),
        }
        out.extend_from_slice(b"}\n");
        out
    }
}

impl Response {
    /// The response of an audited request, with the index of its commit.
    pub(super) fn audited(outcome: Result<ResponseContent, Error>, committed: Option<Index>) -> Self {
        let response = match outcome {
            Err(error) => Response::failed(&error),
            Ok(ResponseContent::Raw(raw)) => {
                let response = Response::document(raw.status, raw.content_type, wiped::body(raw.body));
                match raw.headers.is_empty() {
                    true => response,
                    false => {
                        response.with_headers(ResponseHeaders { further: raw.headers, ..ResponseHeaders::default() })
                    }
                }
            }
            Ok(ResponseContent::File(file)) => Response::of_file(file),
            Ok(ResponseContent::Envelope(envelope)) => {
                let is_empty = envelope.is_empty();
                let fallback = if is_empty { Status::NO_CONTENT } else { Status::OK };
                let status = envelope.status.unwrap_or(fallback.into());
                let body = if is_empty { Vec::new() } else { envelope.to_json() };
                Response::json(status, body)
            }
        };
        response.with_commit(committed)
    }
}

fn wrap_info(wrap: Option<&WrapInfo>, out: &mut Vec<u8>) {
    let Some(wrap) = wrap else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'{');
    field(out, "token", wrap.token.expose());
    next(out, "accessor", &wrap.accessor);
    next(out, "ttl", &wrap.ttl);
    next(out, "creation_time", &wrap.creation_time);
    next(out, "creation_path", &wrap.creation_path);
    if !wrap.wrapped_accessor.is_empty() {
        next(out, "wrapped_accessor", &wrap.wrapped_accessor);
    }
    out.push(b'}');
}

/// About how many bytes the block has at most, as long as nothing in it has to be escaped.
fn length_of(auth: &AuthBlock) -> usize {
    let lists = [&auth.policies, &auth.token_policies, &auth.identity_policies];
    let names: usize = lists.into_iter().flatten().map(|name| name.len() + 3).sum();
    let metadata = auth.metadata.iter().flatten().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>();
    1024 + auth.client_token.expose().len() + names + metadata
}

fn auth(auth: Option<&AuthBlock>, out: &mut Vec<u8>) {
    let Some(auth) = auth else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'{');
    field(out, "client_token", auth.client_token.expose());
    next(out, "accessor", &auth.accessor);
    next(out, "policies", &auth.policies);
    if !auth.token_policies.is_empty() {
        next(out, "token_policies", &auth.token_policies);
    }
    if !auth.identity_policies.is_empty() {
        next(out, "identity_policies", &auth.identity_policies);
    }
    next(out, "metadata", &auth.metadata);
    next(out, "lease_duration", &auth.lease_duration);
    next(out, "renewable", &auth.renewable);
    next(out, "entity_id", &auth.entity_id);
    next(out, "token_type", auth.token_type);
    next(out, "orphan", &auth.orphan);
    out.extend_from_slice(b",\"mfa_requirement\":null");
    next(out, "num_uses", &auth.num_uses);
    out.push(b'}');
}

/// The block of a login that waits for its MFA.
fn pending_auth(requirement: &MfaRequirement, out: &mut Vec<u8>) {
    out.extend_from_slice(
        br#"{"client_token":"","accessor":"","policies":null,"metadata":null,"lease_duration":0,"renewable":false"#,
    );
    out.extend_from_slice(br#","entity_id":"","token_type":"default","orphan":false"#);
    next(out, "mfa_requirement", requirement);
    next(out, "num_uses", &0);
    out.push(b'}');
}

fn next<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.push(b',');
    field(out, name, value);
}

fn field<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keepfast_crypto::secret::SecretString;
    use serde_json::value::RawValue;

    use super::*;

    fn block() -> AuthBlock {
        let names = |letter: char| (0..300).map(|number| format!("{letter}{number:03}")).collect::<Vec<_>>();
        let metadata = (0..300).map(|number| (format!("name{number:03}"), format!("value{number:03}")));
        AuthBlock {
            client_token: SecretString::new("hvs.".to_owned() + &"x".repeat(96)),
            accessor: "a".repeat(24),
            display_name: String::new(),
            policies: names('p'),
            token_policies: names('t'),
            identity_policies: names('i'),
            metadata: Some(metadata.collect::<BTreeMap<_, _>>()),
            lease_duration: 3600,
            renewable: true,
            entity_id: "e".repeat(36),
            entity_created: false,
            no_default_policy: false,
            token_type: "service",
            orphan: false,
            num_uses: 0,
        }
    }

    #[test]
    fn the_length_of_a_block_is_that_of_its_names_and_values() {
        assert_eq!(length_of(&block()), 1024 + 100 + 900 * 7 + 300 * (7 + 8 + 6));
    }

    /// A buffer that grows leaves copies of its tokens behind.
    #[test]
    fn the_json_of_a_response_is_written_without_growth() {
        let data = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap().into());
        let long = format!("{{\"k\":\"{}\"}}", "v".repeat(5000));
        let wrap = WrapInfo {
            token: SecretString::new("hvs.".to_owned() + &"x".repeat(96)),
            accessor: "a".repeat(24),
            ttl: 60,
            creation_time: "2026-01-01T00:00:00Z".to_owned(),
            creation_path: "p".repeat(300),
            wrapped_accessor: "a".repeat(24),
        };
        for (envelope, most) in [
            (Envelope::default(), 256),
            (Envelope { data: data(&long), ..Envelope::default() }, 256 + long.len()),
            (Envelope { data: data(&long), flat: true, ..Envelope::default() }, 256 + 2 * long.len()),
            (Envelope { auth: Some(Box::new(block())), ..Envelope::default() }, 256 + length_of(&block())),
            (Envelope { wrap: Some(Box::new(wrap)), ..Envelope::default() }, 256 + 1024),
        ] {
            let json = envelope.to_json();
            assert_eq!(json.capacity(), most, "{} bytes", json.len());
            assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }
    }

    #[test]
    fn warnings_are_null_or_a_list_and_empty_is_204() {
        let of = |warnings: &[&str]| {
            let warnings = warnings.iter().map(|warning| (*warning).to_owned()).collect();
            let envelope = Envelope { warnings, ..Envelope::default() };
            let json: serde_json::Value = serde_json::from_slice(&envelope.to_json()).unwrap();
            (json["warnings"].clone(), envelope.is_empty())
        };
        assert_eq!(of(&[]), (serde_json::Value::Null, true));
        assert_eq!(of(&["w"]), (serde_json::json!(["w"]), false));
    }

    #[test]
    fn the_token_of_a_login_is_found_also_in_a_wrapped_response() {
        let accessor = |envelope: &Envelope| envelope.login_auth().map(|auth| auth.accessor.len());
        let auth = || Some(Box::new(block()));
        assert_eq!(accessor(&Envelope { auth: auth(), ..Envelope::default() }), None, "no login");
        assert_eq!(accessor(&Envelope { auth: auth(), is_login: true, ..Envelope::default() }), Some(24));
        assert_eq!(accessor(&Envelope { wrapped_login: auth(), ..Envelope::default() }), Some(24));
    }
}
