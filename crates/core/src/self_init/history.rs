//! The requests that were sent and their responses, for later requests that refer to them. All of it is wiped when it is
//! dropped.

use std::collections::BTreeMap;

use bytes::Bytes;
use keepfast_crypto::secret::SecretString;
use serde_json::value::RawValue;

use super::text::{quoted, unquoted};

/// A request as it was sent.
pub(super) struct SentRequest {
    pub(super) operation: String,
    pub(super) path: String,
    /// A JSON object.
    pub(super) data: SecretString,
}

/// The requests of this attempt, and those of earlier ones that were needed, by the names of stanza and request.
#[derive(Default)]
pub(super) struct History {
    requests: BTreeMap<String, SentRequest>,
    /// The bodies, which wipe themselves.
    responses: BTreeMap<String, Bytes>,
}

impl History {
    pub(super) fn add_request(&mut self, name: &str, request: SentRequest) {
        self.requests.insert(name.to_owned(), request);
    }

    pub(super) fn add_response(&mut self, name: &str, body: Bytes) {
        self.responses.insert(name.to_owned(), body);
    }

    /// Whether the response has a token or a lease, which end with the token of the request.
    pub(super) fn has_token_or_lease(&self, name: &str) -> bool {
        let text = |names: &[&str]| {
            let field: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            unquoted(self.of_response(name, &field).ok()?.expose()).filter(|text| !text.expose().is_empty())
        };
        text(&["lease_id"]).is_some() || text(&["auth", "client_token"]).is_some()
    }

    /// The JSON text of a field of a request: `path`, `operation`, or `data` with the names of a field in it. `map` is
    /// `data`, as in OpenBao.
    pub(super) fn of_request(&self, name: &str, field: &[String]) -> Result<SecretString, String> {
        let request = self.requests.get(name).ok_or("the request was not sent")?;
        match field {
            [first] if first == "operation" => Ok(quoted(&request.operation)),
            [first] if first == "path" => Ok(quoted(&request.path)),
            [first, inner @ ..] if first == "data" || first == "map" => select(request.data.expose(), inner, 1),
            _ => Err("a request has the fields \"operation\", \"path\" and \"data\"".to_owned()),
        }
    }

    /// The JSON text of a field of the body of a response.
    pub(super) fn of_response(&self, name: &str, field: &[String]) -> Result<SecretString, String> {
        let body = self.responses.get(name).ok_or(
            "there is no response: the request failed, or an earlier attempt sent it when nothing referred to its response",
        )?;
        let text = std::str::from_utf8(body).map_err(|_| "the response is not JSON")?;
        select(if text.is_empty() { "{}" } else { text }, field, 0)
    }
}

/// The JSON text of the field with these names; `depth` is that of the first one, for messages.
fn select(json: &str, field: &[String], depth: usize) -> Result<SecretString, String> {
    let mut found = json;
    for (at, name) in field.iter().enumerate() {
        let at = at + depth;
        let object: BTreeMap<String, &RawValue> =
            serde_json::from_str(found).map_err(|_| format!("the selector {name:?} at depth {at} needs an object"))?;
        let value = object.get(name).ok_or_else(|| format!("field {name:?} at depth {at} is missing"))?;
        found = value.get();
    }
    Ok(SecretString::new(found.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn fields_of_requests_and_responses_are_selected_by_their_names() {
        let mut history = History::default();
        let data = SecretString::new(r#"{"password": "p\"w", "inner": {"n": 5}}"#.to_owned());
        let request = SentRequest { operation: "update".into(), path: "auth/u".into(), data };
        history.add_request("a.user", request);
        history.add_response("a.login", Bytes::from_static(br#"{"auth":{"client_token":"t"},"data":null}"#));
        history.add_response("a.user", Bytes::new());
        let request = |names: &[&str]| history.of_request("a.user", &field(names)).map(|text| text.expose().clone());
        assert_eq!(request(&["path"]).unwrap(), "\"auth/u\"");
        assert_eq!(request(&["operation"]).unwrap(), "\"update\"");
        assert_eq!(request(&["data", "password"]).unwrap(), r#""p\"w""#);
        assert_eq!(request(&["map", "inner", "n"]).unwrap(), "5");
        assert!(request(&["data"]).unwrap().starts_with('{'));
        assert_eq!(request(&["data", "x"]).unwrap_err(), "field \"x\" at depth 1 is missing");
        assert!(request(&["client_token"]).is_err(), "the root token is no field");
        let response = |of: &str, names: &[&str]| history.of_response(of, &field(names)).map(|t| t.expose().clone());
        assert_eq!(response("a.login", &["auth", "client_token"]).unwrap(), "\"t\"");
        assert_eq!(response("a.login", &["auth", "x"]).unwrap_err(), "field \"x\" at depth 1 is missing");
        assert_eq!(response("a.login", &["data", "x"]).unwrap_err(), "the selector \"x\" at depth 1 needs an object");
        assert_eq!(response("a.user", &["data"]).unwrap_err(), "field \"data\" at depth 0 is missing");
        assert!(response("a.none", &["data"]).is_err());
        history.add_response("a.lease", Bytes::from_static(br#"{"lease_id":"l","auth":null}"#));
        history.add_response("a.read", Bytes::from_static(br#"{"lease_id":"","auth":null,"data":{}}"#));
        let found = ["a.login", "a.lease", "a.read", "a.user", "a.none"].map(|name| history.has_token_or_lease(name));
        assert_eq!(found, [true, true, false, false, false]);
    }
}
