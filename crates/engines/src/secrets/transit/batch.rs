//! Batches: reading their items, and the status of their answer.

use keepfast_crypto::keys::KeyKind;
use keepfast_framework::fields::{Int, Text, given, type_name};
use keepfast_framework::reply::{Payload, SentStatus};
use keepfast_framework::{Cx, Data, Error, Outcome, Reply, Result, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One item of any batch: each endpoint uses the fields it knows and ignores the rest, as the peer does.
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

/// A `batch_input` of `null` is none.
pub(super) fn unless_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Box<RawValue>>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.filter(|raw| raw.get() != "null"))
}

/// The texts of an item, for naming the one that is malformed.
const TEXTS: [&str; 8] =
    ["plaintext", "ciphertext", "input", "signature", "hmac", "context", "associated_data", "reference"];

/// Reads `batch_input`.
pub(super) fn items(raw: &RawValue) -> Result<Vec<Item>> {
    let items: Vec<Item> = read(raw)?;
    if items.is_empty() { Err(Error::invalid("missing batch input to process")) } else { Ok(items) }
}

/// An item of the endpoints that convert what does not fit: a number is a text, `null` an empty one.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Loose {
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

/// Reads `batch_input` of `rewrap`, `sign`, `verify` and `hmac`. Only the first of them knows a version in an item.
pub(super) fn loose_items(raw: &RawValue, versions: bool) -> Result<Vec<Item>> {
    let items: Vec<Option<Loose>> = read(raw)?;
    if items.is_empty() {
        return Err(Error::invalid("missing batch input to process"));
    }
    let text = |text: Option<Text>| text.map(String::from);
    let items = items.into_iter().enumerate().map(|(at, item)| {
        let item = item.unwrap_or_default();
        let version = item.key_version.filter(|_| versions).map(|raw| serde_json::from_str(raw.get()));
        let key_version = version.transpose().map_err(|_| unreadable(&format!("'[{at}].key_version' is no number")))?;
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
    // The text of serde's error may quote values, so the fault is looked for again, by type only.
    serde_json::from_str(raw.get()).map_err(|_| unreadable(&fault(raw)))
}

/// 400 for a batch that is no list of items.
pub(super) fn unreadable(why: &str) -> Error {
    Error::invalid(format!("failed to parse batch input: {why}"))
}

/// What is wrong with a batch that does not read.
fn fault(raw: &RawValue) -> String {
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

/// Answers a batch with 200, whatever became of its items.
pub(super) fn answer<T: Serialize + Send>(batch_results: Vec<T>) -> Result<Outcome> {
    Data(Results { batch_results }).into_outcome()
}

/// Answers a batch with 400 when an item failed, or with the caller's own code when another succeeded. A code below 200
/// would be no final response; metrics count 400 whatever the code is.
pub(super) fn answer_strictly<T: Serialize + Send>(
    cx: &mut Cx,
    batch_results: Vec<T>,
    failed: usize,
    partial: Option<Int>,
) -> Result<Outcome> {
    if failed == 0 {
        return answer(batch_results);
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

/// Lets other requests run between the items of a batch whose key is slow to use.
pub(super) async fn breathe(kind: KeyKind) {
    if kind.is_slow_to_use() {
        tokio::task::yield_now().await;
    }
}
