//! `sys/rotate/root/backup`, `sys/rotate/recovery/backup` and their older forms: the backup of encrypted shares.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes};
use serde::Serialize;

use super::rekey::rotation_of;
use super::rekey_request::Target;
use super::{System, unsealed};
use crate::seal::pgp::{BACKUPS, Backup};

const BACKUP: Help = Help {
    synopsis: "Returns or deletes the backup of key shares that were encrypted with PGP.",
    description: "A rotation with pgp_keys and backup stores its shares in the commit that makes them valid. They stay until the next one, or until they are deleted.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    // The older forms are rows of their own: a namespace with its own seal has only the newer ones.
    r.path("rekey/backup", BACKUP).read(read_root).delete(delete_root).forwarded().not_in_namespaces();
    r.path("rotate/root/backup", BACKUP).read(read_root).delete(delete_root).forwarded().sealable_namespaces_only();
    r.path("rekey/recovery-key-backup", BACKUP)
        .read(read_recovery)
        .delete(delete_recovery)
        .forwarded()
        .not_in_namespaces();
    r.path("rotate/recovery/backup", BACKUP)
        .read(read_recovery)
        .delete(delete_recovery)
        .forwarded()
        .sealable_namespaces_only();
}

#[derive(Serialize)]
struct BackupResponse {
    /// The messages in hexadecimal, by the fingerprints of the keys.
    keys: BTreeMap<String, Vec<String>>,
    keys_base64: BTreeMap<String, Vec<String>>,
    nonce: String,
}

impl BackupResponse {
    fn of(backup: Backup) -> Result<Self> {
        let hexed = |messages: &Vec<String>| messages.iter().map(|message| hex_of(message)).collect::<Result<_>>();
        let keys = backup.messages.iter().map(|(fingerprint, messages)| Ok((fingerprint.clone(), hexed(messages)?)));
        Ok(BackupResponse { keys: keys.collect::<Result<_>>()?, keys_base64: backup.messages, nonce: backup.nonce })
    }
}

fn hex_of(message: &str) -> Result<String> {
    let bytes = STANDARD.decode(message).map_err(|_| Error::internal("a backup of shares that is not base64"))?;
    Ok(hex::encode(bytes))
}

/// The backup of the shares that await verification, else the stored one.
async fn read(cx: &mut Cx, target: Target) -> Result<Flat<BackupResponse>> {
    let rotation = rotation_of(&*unsealed(cx)?, target).lock_owned().await;
    let pending = rotation.as_ref().and_then(|rotation| rotation.pending.as_ref());
    let backup = match pending.and_then(|pending| pending.backup.clone()) {
        Some(backup) => Some(backup),
        None => BACKUPS.get(cx, target.name()).await?,
    };
    BackupResponse::of(backup.ok_or_else(|| Error::invalid("no backed-up keys found"))?).map(Flat)
}

async fn delete(cx: &mut Cx, target: Target) -> Result<()> {
    let mut rotation = rotation_of(&*unsealed(cx)?, target).lock_owned().await;
    if let Some(pending) = rotation.as_mut().and_then(|rotation| rotation.pending.as_mut()) {
        pending.backup = None;
    }
    BACKUPS.delete(cx, target.name());
    Ok(())
}

async fn read_root(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<BackupResponse>> {
    read(cx, Target::Root).await
}

async fn delete_root(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    delete(cx, Target::Root).await
}

async fn read_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<BackupResponse>> {
    read(cx, Target::Recovery).await
}

async fn delete_recovery(_: &System, cx: &mut Cx, _: Nothing) -> Result<()> {
    delete(cx, Target::Recovery).await
}
