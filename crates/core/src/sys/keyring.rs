//! The keyring: `sys/key-status`, `sys/rotate`.

use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes, Timestamp};
use serde::Serialize;

use super::{System, unsealed};

const STATUS: Help = Help {
    synopsis: "Returns the state of the encryption key: its term, its time of installation and its number of encryptions.",
    description: "",
};
const ROTATE: Help = Help { synopsis: "Rotates the encryption key. Stored records stay readable.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("key-status", STATUS).read(status).sealable_namespaces_only();
    r.paths(["rotate", "rotate/keyring"], ROTATE).update(rotate).sudo().sealable_namespaces_only();
}

#[derive(Serialize)]
struct Status {
    encryptions: u64,
    install_time: String,
    term: u32,
}

async fn status(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<Status>> {
    let status = unsealed(cx)?.barrier.key_status()?;
    let install_time = Timestamp::from_unix(status.installed_unix).rfc3339();
    Ok(Flat(Status { encryptions: status.encryptions, install_time, term: status.term }))
}

async fn rotate(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    let term = unsealed(cx)?.barrier.rotate(cx.now().unix()).await?;
    tracing::info!(term, "keyring rotated");
    Ok(())
}
