//! `sys/version-history`: the versions of the server that have used this storage.

use std::collections::BTreeMap;

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Keys, Result, Routes};
use serde::Serialize;

use super::System;
use crate::version_history;

const HELP: Help = Help {
    synopsis: "Lists the versions of the server that have unsealed this storage.",
    description: "Each with the time of its first unseal, in that order.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("version-history/", HELP).list(list);
}

#[derive(Serialize)]
struct InstalledVersion {
    commit_date: &'static str,
    previous_version: Option<String>,
    timestamp_installed: String,
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    let (tx, view) = cx.store();
    let installed = version_history::all(tx, view).await?;
    let mut previous = None;
    let mut info = BTreeMap::new();
    let mut keys = Vec::new();
    for (version, at) in installed {
        let shown = InstalledVersion {
            commit_date: version_history::RELEASED,
            previous_version: previous.replace(version.clone()),
            timestamp_installed: at.rfc3339_seconds(),
        };
        info.insert(version.clone(), shown);
        keys.push(version);
    }
    Keys::with_info(keys, &info)
}
