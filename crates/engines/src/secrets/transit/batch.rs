//! Batches: parsing of their items, and the status of their response.

use keepfast_crypto::keys::KeyKind;
use keepfast_framework::fields::{Int, Text, given, type_name};
use keepfast_framework::reply::{Payload, SentStatus};
use keepfast_framework::{Cx, Data, Error, Outcome, Reply, Result, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One item of any batch. Each endpoint uses the fields it supports and ignores the rest, as in OpenBao.
#[derive(Deserialize, Default)]
pub(super) struct Item {
    pub plaintext: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub ciphertext: Option<String>,
    pub input: Option<String>,
    pub signature: Option<String>,
    pub hmac: Option<String>,
    pub context: Option<String>,
    pub associated_data: Option<String>,
    pub key_version: Option<Int>,
    pub reference: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| Some(text.unwrap_or_default()))
}

/// A `batch_input` of `null` is `None`.
pub(super) fn unless_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Box<RawValue>>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.filter(|raw| raw.get() != "null"))
}

/// The fields of text, for errors that name the malformed one.
const TEXTS: [&str; 8] =
    ["plaintext", "ciphertext", "input", "signature", "hmac", "context", "associated_data", "reference"];

/// Parses `batch_input`.
pub(super) fn items(raw: &RawValue) -> Result<Vec<Item>> {
    let items: Vec<Item> = read(raw)?;
    if items.is_empty() { Err(Error::invalid("missing batch input to process")) } else { Ok(items) }
}

/// An item of the endpoints that convert types: a number becomes a text, `null` an empty one.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LenientItem {
    #[serde(deserialize_with = "given")]
    ciphertext: Option<Text>,
    #[serde(deserialize_with = "given")]
    input: Option<Text>,
    #[serde(deserialize_with = "given")]
    signature: Option<Text>,
    #[serde(deserialize_with = "given")]
    hmac: Option<Text>,
    #[serde(deserialize_with = "given")]
    context: Option<Text>,
    #[serde(deserialize_with = "given")]
    reference: Option<Text>,
    key_version: Option<Box<RawValue>>,
}

/// Parses `batch_input` of `rewrap`, `sign`, `verify` and `hmac`. Only `rewrap` has a version per item.
pub(super) fn lenient_items(raw: &RawValue, versions: bool) -> Result<Vec<Item>> {
    let items: Vec<Option<LenientItem>> = read(raw)?;
    if items.is_empty() {
        return Err(Error::invalid("missing batch input to process"));
    }
    let text = |text: Option<Text>| text.map(String::from);
    let items = items.into_iter().enumerate().map(|(at, item)| {
        let item = item.unwrap_or_default();
        let version = item.key_version.filter(|_| versions).map(|raw| serde_json::from_str(raw.get()));
        let key_version =
            version.transpose().map_err(|_| parse_error(&format!("'[{at}].key_version' is no number")))?;
        Ok(Item {
            ciphertext: text(item.ciphertext),
            input: text(item.input),
            signature: text(item.signature),
            hmac: text(item.hmac),
            context: text(item.context),
            reference: text(item.reference),
            key_version,
            ..Item::default()
        })
    });
    items.collect()
}

fn read<T: DeserializeOwned>(raw: &RawValue) -> Result<Vec<T>> {
    // serde's error may quote values, so the error text is built from types only.
    serde_json::from_str(raw.get()).map_err(|_| parse_error(&describe_error(raw)))
}

/// 400 for a malformed batch.
pub(super) fn parse_error(why: &str) -> Error {
    Error::invalid(format!("failed to parse batch input: {why}"))
}

/// The error of a malformed batch.
fn describe_error(raw: &RawValue) -> String {
    let items = match serde_json::from_str(raw.get()) {
        Ok(Value::Array(items)) => items,
        Ok(other) => return format!("source data must be an array or slice, got {}", type_name(&other)),
        Err(_) => return "malformed JSON".to_owned(),
    };
    for (at, item) in items.iter().enumerate() {
        let Value::Object(fields) = item else { return format!("[{at}] expected a map, got '{}'", type_name(item)) };
        for (name, value) in fields {
            let wrong = TEXTS.contains(&name.as_str()) && !value.is_string();
            if wrong || (name == "key_version" && !(value.is_number() || value.is_string())) {
                let expected = if wrong { "string" } else { "int" };
                return format!(
                    "'[{at}].{name}' expected type '{expected}', got unconvertible type '{}'",
                    type_name(value)
                );
            }
        }
    }
    "an item has a value of a wrong type".to_owned()
}

#[derive(Serialize)]
struct Results<T> {
    batch_results: Vec<T>,
}

/// Returns a batch with status 200, even if items failed.
pub(super) fn respond<T: Serialize + Send>(batch_results: Vec<T>) -> Result<Outcome> {
    Data(Results { batch_results }).into_outcome()
}

/// Returns a batch with status 400 if an item failed, or with the code in `partial` if another succeeded. A code below
/// 200 is not a final response, so it is refused; metrics count 400 for every code.
pub(super) fn respond_with_failures<T: Serialize + Send>(
    cx: &mut Cx,
    batch_results: Vec<T>,
    failed: usize,
    partial: Option<Int>,
) -> Result<Outcome> {
    if failed == 0 {
        return respond(batch_results);
    }
    let mut status = SentStatus::from(Status::BAD_REQUEST);
    if let Some(Int(code)) = partial.filter(|_| failed < batch_results.len()) {
        match u16::try_from(code).ok().filter(|code| (200..600).contains(code)) {
            Some(code) => status.sent = Status(code),
            None => {
                cx.warn("invalid HTTP response code override from partial_failure_response_code, reverting to 400");
            }
        }
    }
    Ok(Outcome::Data(Payload { status: Some(status), ..Payload::of(to_raw_value(&Results { batch_results })?) }))
}

/// Yields between the items of a batch if operations with the key are slow, so that other requests run.
pub(super) async fn yield_if_slow(kind: KeyKind) {
    if kind.is_slow_to_use() {
        tokio::task::yield_now().await;
    }
}
