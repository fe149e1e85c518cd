//! Version 1: one value per path; a write replaces it, a delete removes it.
//!
//! The body of a write is the secret. Its member `ttl` (or `lease`) creates no lease: reads return it as
//! `lease_duration`, as a hint when to read again.

use keepfast_framework::engine::Gauge;
use keepfast_framework::fields::{Object, parse_duration};
use keepfast_framework::reply::{Payload, Shaped};
use keepfast_framework::routes::{Exists, Help};
use keepfast_framework::{Cx, Engine, Error, Keys, Kind, Outcome, Result, Routes};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::V1_SECRETS;
use crate::secrets::tree::{Listing, Tree};
use crate::secrets::whole_body::{SecretPath, Write, cannot_write_to_folder};

/// The engine `kv`, version 1.
pub struct V1;

impl Engine for V1 {
    const TYPE: &'static str = "kv";
    const KIND: Kind = Kind::Secrets;
    const VARIANT: Option<(&'static str, &'static str)> = Some(("version", "1"));
    const FORMER_TYPE: Option<&'static str> = Some("generic");

    fn routes(r: &mut Routes<Self>) {
        r.path("{path...}", SECRET_HELP).read(read).update(write).delete(delete).exists(exists).stores_body();
        r.path("{path...}/", LIST_HELP)
            .list(list)
            .scan(scan)
            .read(read_folder)
            .update(write_folder)
            .delete(delete_folder)
            .stores_body();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(V1)
    }

    async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>> {
        Tree::under(&[V1_SECRETS]).usage(cx).await
    }
}

const SECRET_HELP: Help = Help {
    synopsis: "Reads, writes and deletes a secret.",
    description: "The body of a write is the secret: any JSON object. Reads return a member `ttl` as `lease_duration`, \
                  a hint when to read again; nothing expires.",
};
const LIST_HELP: Help =
    Help { synopsis: "Lists the secrets of a folder, or scans those of all folders below it.", description: "" };

async fn read(_: &V1, cx: &mut Cx, req: SecretPath) -> Result<Shaped<Object>> {
    let (tx, view) = cx.store();
    let Some(bytes) = tx.get(view, &key(&req.path)).await? else {
        return Err(Error::not_found());
    };
    let data: Box<RawValue> = serde_json::from_slice(&bytes)?;
    let default = i64::try_from(cx.mount().ttl.default.as_secs()).unwrap_or(i64::MAX);
    let hint_ttl = hint(&data).unwrap_or(default);
    Ok(Outcome::Data(Payload { hint_ttl, ..Payload::of(data) }).into())
}

/// The TTL hint in the secret's data, in seconds, if it parses as a duration; it may be negative.
fn hint(data: &RawValue) -> Option<i64> {
    /// The two members with a hint; the rest of the secret is skipped.
    #[derive(Deserialize)]
    struct Hints<'a> {
        #[serde(borrow, default, deserialize_with = "keepfast_framework::fields::given")]
        ttl: Option<&'a RawValue>,
        #[serde(borrow, default, deserialize_with = "keepfast_framework::fields::given")]
        lease: Option<&'a RawValue>,
    }
    // Most secrets have neither, and the search is cheaper than the parse.
    if !data.get().contains("\"ttl\"") && !data.get().contains("\"lease\"") {
        return None;
    }
    let hints: Hints<'_> = serde_json::from_str(data.get()).ok()?;
    let value: serde_json::Value = serde_json::from_str(hints.ttl.or(hints.lease)?.get()).ok()?;
    match value {
        serde_json::Value::Null => Some(0),
        serde_json::Value::Number(n) => parse_duration(&n.to_string()).ok(),
        serde_json::Value::String(text) => parse_duration(&text).ok(),
        _ => None,
    }
}

async fn write(_: &V1, cx: &mut Cx, req: Write) -> Result<()> {
    let key = key(&req.path);
    let secret = req.into_bytes()?;
    let (tx, view) = cx.store();
    tx.put(view, &key, secret);
    Ok(())
}

async fn delete(_: &V1, cx: &mut Cx, req: SecretPath) -> Result<()> {
    let (tx, view) = cx.store();
    tx.delete(view, &key(&req.path));
    Ok(())
}

async fn exists(_: &V1, cx: &mut Cx, req: SecretPath) -> Result<Exists> {
    let (tx, view) = cx.store();
    Ok(Exists(tx.get(view, &key(&req.path)).await?.is_some()))
}

async fn list(_: &V1, cx: &mut Cx, req: Listing) -> Result<Keys> {
    Ok(Keys::of(Tree::under(&[V1_SECRETS]).list(cx, &req.folder(), &req.page()).await?))
}

async fn scan(_: &V1, cx: &mut Cx, req: Listing) -> Result<Keys> {
    let keys = Tree::under(&[V1_SECRETS]).scan(cx, &req.folder(), &req.page()).await?;
    Ok(Keys { keys, empty_is_fine: true, ..Keys::default() })
}

async fn read_folder(_: &V1, _: &mut Cx, _: SecretPath) -> Result<()> {
    Err(Error::not_found())
}

async fn write_folder(_: &V1, _: &mut Cx, _: Write) -> Result<()> {
    Err(cannot_write_to_folder())
}

/// Succeeds, as there is never a secret at such a path.
async fn delete_folder(_: &V1, _: &mut Cx, _: SecretPath) -> Result<()> {
    Ok(())
}

fn key(path: &str) -> String {
    format!("{V1_SECRETS}{path}")
}

#[cfg(test)]
mod tests {
    use keepfast_framework::testing::Bench;

    use super::*;

    #[tokio::test]
    async fn responses_match_openbao() {
        crate::openbao::compare(Bench::new::<V1>().await.unwrap(), include_str!("../../openbao/kv_v1.jsonl")).await;
    }

    #[tokio::test]
    async fn a_read_returns_the_text_that_was_written() {
        let bench = Bench::new::<V1>().await.unwrap();
        let sent = r#"{"z":1.10, "big":123456789012345678901234567890,"path":"b","t":"\u00e9<"}"#;
        bench.call_raw(keepfast_framework::Operation::Update, "a", sent).await.unwrap();
        assert_eq!(bench.read("a").await.unwrap().outcome.data().unwrap().get(), sent);
    }
}
