//! Sends one request of a stanza through the stages of all requests.

use std::collections::BTreeMap;

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::{
    Authorization, Body, CanonicalPath, Incoming, Input, Operation, Query, Result, Status, UnauthedEndpoints,
};
use keepfast_storage::StorageError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::convert::convert;
use super::history::SentRequest;
use super::plan::PlannedRequest;
use super::text::unquoted;
use super::value::{Inputs, PlannedValue, ValueType};
use crate::cluster::place::Site;
use crate::request::{Pipeline, wiped};

/// The operations by their names, with the method that has them.
const OPERATIONS: [(&str, Operation, &str); 7] = [
    ("create", Operation::Update, "PUT"),
    ("update", Operation::Update, "PUT"),
    ("read", Operation::Read, "GET"),
    ("delete", Operation::Delete, "DELETE"),
    ("list", Operation::List, "LIST"),
    ("scan", Operation::Scan, "SCAN"),
    ("patch", Operation::Patch, "PATCH"),
];

/// A request with its values.
pub(super) struct BuiltRequest {
    pub(super) sent: SentRequest,
    pub(super) allows_failure: bool,
    operation: (Operation, &'static str),
    path: CanonicalPath,
    /// `None` for the root token.
    token: Option<SecretString>,
}

/// The result of a request.
pub(super) enum Sent {
    /// It has succeeded, or has read what does not exist.
    Done {
        status: u16,
        /// Empty without a response.
        body: Bytes,
    },
    /// It was refused or has failed.
    Refused { status: u16, errors: String },
}

/// Checks an operation that is written as a literal.
///
/// # Errors
/// With the known operations.
pub fn check_operation(name: &str) -> Result<(), String> {
    operation(name).map(drop)
}

fn operation(name: &str) -> Result<(Operation, &'static str), String> {
    let found = OPERATIONS.iter().find(|(known, ..)| *known == name);
    found.map(|(_, operation, method)| (*operation, *method)).ok_or_else(|| {
        let known: Vec<&str> = OPERATIONS.iter().map(|(name, ..)| *name).collect();
        format!("unknown operation {name:?}; there are {}", known.join(", "))
    })
}

/// A path without its leading slash.
///
/// # Errors
/// When it is not canonical.
pub fn check_path(path: &str) -> Result<CanonicalPath, String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Err("path is empty".to_owned());
    }
    CanonicalPath::new(path.to_owned()).map_err(|error| error.to_string())
}

/// Evaluates the values of a request. The error contains no values.
pub(super) fn build(request: &PlannedRequest, inputs: Inputs<'_>) -> Result<BuiltRequest, String> {
    let text = |key: &str, value: &PlannedValue| {
        let json = value.evaluate(inputs).map_err(|why| format!("{key}: {why}"))?;
        unquoted(json.expose()).ok_or_else(|| format!("{key} must be a string"))
    };
    let name = text("operation", &request.operation)?.expose().clone();
    let operation = operation(&name)?;
    let path = check_path(text("path", &request.path)?.expose())?;
    let token = request.token.as_ref().map(|token| text("token", token)).transpose()?;
    let data = match &request.data {
        Some(data) => data.evaluate(inputs).map_err(|why| format!("data: {why}"))?,
        None => SecretString::new("{}".to_owned()),
    };
    if !data.expose().starts_with('{') {
        return Err("data must be an object".to_owned());
    }
    let allows_failure = match &request.allow_failure {
        None => false,
        Some(value) => {
            let json = value.evaluate(inputs).map_err(|why| format!("allow_failure: {why}"))?;
            let converted = convert(json.expose(), ValueType::Bool).ok_or("allow_failure must be true or false")?;
            converted.expose() == "true"
        }
    };
    let sent = SentRequest { operation: name, path: path.as_str().to_owned(), data };
    Ok(BuiltRequest { sent, allows_failure, operation, path, token })
}

impl BuiltRequest {
    /// The request as the edge would pass it.
    ///
    /// # Errors
    /// When the data of a request without a body are not plain values.
    pub(super) fn incoming(&self, root_token: &SecretString) -> Result<Box<Incoming>, String> {
        let (operation, method) = self.operation;
        let data = self.sent.data.expose();
        let input = match operation {
            Operation::Update | Operation::Patch => {
                let body = Body::parse(wiped::body(data.as_bytes().to_vec())).map_err(|error| error.to_string())?;
                Input { body, ..Input::default() }
            }
            _ => Input { query: query(data)?, ..Input::default() },
        };
        Ok(Box::new(Incoming {
            id: random::request_id(),
            method,
            operation,
            path: self.path.clone(),
            input,
            token: Some(self.token.as_ref().unwrap_or(root_token).clone()),
            authorization: Authorization::None,
            mfa: Vec::new(),
            namespace: String::new(),
            body_withheld: false,
            headers: Vec::new(),
            wrap_ttl: None,
            remote: None,
            tls: None,
            open: UnauthedEndpoints::default(),
            accepts_prometheus: false,
            cluster: None,
        }))
    }
}

/// The parameters of a request without a body, from its data.
fn query(data: &str) -> Result<Query, String> {
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(data).map_err(|_| "data must be an object".to_owned())?;
    let parameters = fields.into_iter().map(|(name, value)| {
        let text = convert(value.get(), ValueType::String).and_then(|json| unquoted(json.expose()));
        match text {
            Some(text) => Ok((name, text.expose().clone())),
            None => Err(format!("the parameter {name:?} of this operation must be a string, a number or a boolean")),
        }
    });
    parameters.collect()
}

/// Runs the stages of a request.
///
/// # Errors
/// When this node does not lead any more.
pub(super) async fn send(pipeline: &Pipeline, incoming: Box<Incoming>) -> Result<Sent> {
    let response = Box::pin(pipeline.handle(incoming, Site::Leader)).await;
    let Ok(response) = response else { return Err(StorageError::NotLeader.into()) };
    let (status, body) = (response.status(), response.into_body());
    let errors = errors_of(&body);
    Ok(match status.0 {
        ..400 => Sent::Done { status: status.0, body },
        // As in OpenBao, to read what does not exist is no failure.
        _ if status == Status::NOT_FOUND && errors.as_ref().is_none_or(String::is_empty) => {
            Sent::Done { status: status.0, body: Bytes::new() }
        }
        status => Sent::Refused { status, errors: errors.unwrap_or_default() },
    })
}

/// The error texts of a response, on one line; `None` when it has no field for them.
fn errors_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Option<Vec<String>>,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.errors?.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_paths_are_those_of_openbao() {
        for name in ["create", "update", "read", "delete", "list", "scan", "patch"] {
            assert!(check_operation(name).is_ok(), "{name}");
        }
        assert!(check_operation("write").unwrap_err().starts_with("unknown operation \"write\"; there are create, "));
        assert_eq!(check_path("/kv/a").unwrap().as_str(), "kv/a");
        for refused in ["", "/", "a/../b", "a//b", "a\nb"] {
            assert!(check_path(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn data_of_a_request_without_a_body_are_parameters() {
        let query = query(r#"{"a": "x", "n": 5, "b": true}"#).unwrap();
        let found: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name, value.first())).collect();
        assert_eq!(found, [("a", "x"), ("b", "1"), ("n", "5")]);
        assert!(super::query(r#"{"l": []}"#).is_err());
    }

    #[test]
    fn only_error_texts_of_a_response_are_read() {
        assert_eq!(errors_of(br#"{"errors":["a","b"]}"#).unwrap(), "a; b");
        assert_eq!(errors_of(br#"{"errors":[]}"#).unwrap(), "");
        assert!(errors_of(br#"{"data":{}}"#).is_none() && errors_of(b"").is_none());
    }
}
