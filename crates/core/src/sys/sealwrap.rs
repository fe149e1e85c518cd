//! `sys/sealwrap/rewrap`: the rewrap of wrapped values.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Outcome, Result, Routes, Status};
use serde::Serialize;

use super::{System, unsealed};
use crate::layout::SYSTEM_STORAGE;
use crate::rewrap::{self, RewrapState};

const REWRAP: Help = Help {
    synopsis: "Returns the state of the rewrap of wrapped values, or starts one.",
    description: "A rewrap creates another wrap key and encrypts all wrapped values under it, in the background. With `disable_sealwrap` it unwraps them.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("sealwrap/rewrap", REWRAP).read(read).update(start).once().root_only();
}

#[derive(Serialize)]
struct RewrapResponse {
    entries: Entries,
    is_running: bool,
    /// The members whose `disable_sealwrap` is not that of this node; only there while some differ. No rewrap runs then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disable_sealwrap_differs_at: Vec<String>,
}

#[derive(Serialize)]
struct Entries {
    failed: u64,
    processed: u64,
    succeeded: u64,
}

async fn read(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<RewrapResponse>> {
    let unsealed = unsealed(cx)?;
    let system = unsealed.barrier.view(SYSTEM_STORAGE);
    let disable_sealwrap_differs_at =
        unsealed.current_seal.wrap.members_that_differ(unsealed.settings.disable_sealwrap);
    let (tx, _) = cx.store();
    let RewrapState { is_running, processed, succeeded, failed, .. } = RewrapState::load(tx, &system).await?;
    let entries = Entries { failed, processed, succeeded };
    Ok(Data(RewrapResponse { entries, is_running, disable_sealwrap_differs_at }))
}

/// As Vault: 204, or 200 while one is running.
async fn start(_: &System, cx: &mut Cx, _: Nothing) -> Result<Outcome> {
    let is_started = rewrap::begin(&*unsealed(cx)?).await?;
    Ok(Outcome::Empty((!is_started).then_some(Status::OK)))
}
