//! `delete/PATH`, `undelete/PATH`, `destroy/PATH`: operations on single versions.

use keepfast_framework::fields::{Ints, Text};
use keepfast_framework::{Cx, Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::V2;
use super::config::Config;
use super::secret::Secret;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Versions {
    /// Location of the secret.
    path: Text,
    /// The numbers of the versions; those that do not exist are ignored.
    versions: Option<Ints>,
}

impl Versions {
    fn numbers(&self, none: &'static str) -> Result<Vec<u64>> {
        match &self.versions {
            Some(Ints(numbers)) if !numbers.is_empty() => {
                Ok(numbers.iter().filter_map(|n| u64::try_from(*n).ok()).collect())
            }
            _ => Err(Error::invalid(none)),
        }
    }
}

pub(super) async fn delete(kv: &V2, cx: &mut Cx, req: Versions) -> Result<()> {
    let numbers = req.numbers("No version number provided")?;
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(());
    };
    let now = cx.now();
    let mut changed = false;
    for number in numbers {
        if let Some(version) = secret.version_mut(number).filter(|version| !version.is_gone(now)) {
            version.deleted = Some(now);
            changed = true;
        }
    }
    if changed { secret.save(kv, cx, &req.path) } else { Ok(()) }
}

pub(super) async fn undelete(kv: &V2, cx: &mut Cx, req: Versions) -> Result<()> {
    let numbers = req.numbers("No version number provided")?;
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(());
    };
    let config = Config::load(cx).await?;
    // An undeleted version gets the TTL of a version that is written now.
    let deletion = secret.metadata.settings.deletion(&config, cx.now());
    let mut changed = false;
    for number in numbers {
        if let Some(version) = secret.version_mut(number).filter(|version| !version.destroyed) {
            version.deleted = deletion;
            changed = true;
        }
    }
    if changed { secret.save(kv, cx, &req.path) } else { Ok(()) }
}

pub(super) async fn destroy(kv: &V2, cx: &mut Cx, req: Versions) -> Result<()> {
    let numbers = req.numbers("no version number provided")?;
    let Some(mut secret) = Secret::load(kv, cx, &req.path).await? else {
        return Ok(());
    };
    let mut changed = false;
    for number in numbers {
        changed |= secret.destroy(cx, &req.path, number);
    }
    if changed { secret.save(kv, cx, &req.path) } else { Ok(()) }
}
