//! The keyring: `sys/key-status`, `sys/rotate`.

use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes, Timestamp};
use serde::Serialize;

use super::{System, unsealed};

const STATUS: Help = Help {
    synopsis: "Returns the state of the encryption key: its term, its time of installation and its number of encryptions.",
    description: "",
};
const ROTATE: Help = Help { synopsis: "Rotates the encryption key. Stored records stay readable.", description: "" };
const BACKUP: Help = Help {
    synopsis: "Returns or deletes the backup of key shares that were encrypted with PGP.",
    description: "This server does not encrypt shares with PGP, so there is no backup.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("key-status", STATUS).read(status);
    r.paths(["rotate", "rotate/keyring"], ROTATE).update(rotate).sudo();
    r.paths(["rekey/backup", "rekey/recovery-key-backup", "rotate/root/backup", "rotate/recovery/backup"], BACKUP)
        .read(backup)
        .delete(delete_backup);
}

#[derive(Serialize)]
struct Status {
    encryptions: u64,
    install_time: String,
    term: u32,
}

async fn backup(_: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    Err(Error::invalid("no backed-up keys found"))
}

async fn delete_backup(_: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    Ok(())
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
