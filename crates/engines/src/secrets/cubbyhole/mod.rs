//! Secrets of one token: only that token can read them, and they are deleted with it.
//!
//! Mounted once, at `cubbyhole/`. The secrets of a token are stored under the name [`Caller::token_store`], which core
//! makes unguessable. **Core's part:** when a token is revoked or expires, core deletes the subtree `<token_store>/` of
//! this mount's view in the transaction that deletes the token.
//!
//! [`Caller::token_store`]: keepfast_framework::Caller

use keepfast_framework::engine::BuiltIn;
use keepfast_framework::fields::Object;
use keepfast_framework::reply::Shaped;
use keepfast_framework::routes::{Exists, Help};
use keepfast_framework::{Cx, Engine, Error, Keys, Kind, Outcome, Result, Routes};

use crate::secrets::tree::{Listing, Tree};
use crate::secrets::whole_body::{SecretPath, Write, cannot_write_to_folder};

/// The engine `cubbyhole`.
pub struct Cubbyhole;

impl Engine for Cubbyhole {
    const TYPE: &'static str = "cubbyhole";
    const KIND: Kind = Kind::Secrets;
    const BUILT_IN: Option<BuiltIn> =
        Some(BuiltIn { local: true, ..BuiltIn::at("cubbyhole/", "per-token private secret storage") });
    const PER_TOKEN: bool = true;

    fn routes(r: &mut Routes<Self>) {
        r.path("{path...}", SECRET_HELP).read(read).update(write).delete(delete).exists(exists).stores_body();
        r.path("{path...}/", LIST_HELP)
            .list(list)
            .read(read_folder)
            .update(write_folder)
            .delete(delete_folder)
            .stores_body();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(Cubbyhole)
    }
}

const SECRET_HELP: Help = Help {
    synopsis: "Reads, writes and deletes a secret of the calling token.",
    description: "The body of a write is the secret: any JSON object. No other token can read it, not even a root token. It is \
                  deleted when the token expires or is revoked.",
};
const LIST_HELP: Help = Help { synopsis: "Lists the secrets of the calling token in a folder.", description: "" };

async fn read(_: &Cubbyhole, cx: &mut Cx, req: SecretPath) -> Result<Shaped<Object>> {
    let key = key(cx, &req.path)?;
    let (tx, view) = cx.store();
    match tx.get(view, &key).await? {
        None => Err(Error::not_found()),
        Some(bytes) => Ok(Outcome::of(serde_json::from_slice(&bytes)?).into()),
    }
}

async fn write(_: &Cubbyhole, cx: &mut Cx, req: Write) -> Result<()> {
    let key = key(cx, &req.path)?;
    let secret = req.into_bytes()?;
    let (tx, view) = cx.store();
    tx.put(view, &key, secret);
    Ok(())
}

async fn delete(_: &Cubbyhole, cx: &mut Cx, req: SecretPath) -> Result<()> {
    let key = key(cx, &req.path)?;
    let (tx, view) = cx.store();
    tx.delete(view, &key);
    Ok(())
}

async fn exists(_: &Cubbyhole, cx: &mut Cx, req: SecretPath) -> Result<Exists> {
    let key = key(cx, &req.path)?;
    let (tx, view) = cx.store();
    Ok(Exists(tx.get(view, &key).await?.is_some()))
}

async fn list(_: &Cubbyhole, cx: &mut Cx, req: Listing) -> Result<Keys> {
    let own = store(cx)?;
    Ok(Keys::of(Tree::under(&[&own]).list(cx, &req.folder(), &req.page()).await?))
}

async fn read_folder(_: &Cubbyhole, cx: &mut Cx, _: SecretPath) -> Result<()> {
    store(cx)?;
    Err(Error::not_found())
}

async fn write_folder(_: &Cubbyhole, _: &mut Cx, _: Write) -> Result<()> {
    Err(cannot_write_to_folder())
}

/// Succeeds, as there is never a secret at such a path.
async fn delete_folder(_: &Cubbyhole, cx: &mut Cx, _: SecretPath) -> Result<()> {
    store(cx).map(drop)
}

/// The storage prefix of the calling token. A batch token has none, as in OpenBao.
fn store(cx: &Cx) -> Result<String> {
    match cx.caller().token_store.as_deref() {
        Some(store) if !store.is_empty() && !store.contains('/') => Ok(format!("{store}/")),
        _ => Err(Error::invalid("cubbyhole operations are only supported by 'service' type tokens")),
    }
}

fn key(cx: &Cx, path: &str) -> Result<String> {
    Ok(store(cx)? + path)
}

#[cfg(test)]
mod tests;
