//! `sys/internal/counters`: the numbers of tokens and entities.

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes, Status};
use keepfast_storage::{Page, View};
use serde_json::{Value, json};

use super::{System, unsealed};
use crate::layout::{ENTITIES, IDENTITY_STORAGE, TOKEN_STORAGE, TOKENS};
use crate::unsealed::Unsealed;

const COUNTERS: Help = Help {
    synopsis: "Counts the service tokens or the entities.",
    description: "Each request reads the names of all of them from storage. Use the metrics for monitoring.",
};
const REMOVED: Help =
    Help { synopsis: "Removed in Vault and OpenBao. Use sys/metrics.", description: "Always returns 404." };

/// Names per storage page.
const PAGE: usize = 1000;

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("internal/counters/requests", REMOVED).read(removed);
    r.path("internal/counters/tokens", COUNTERS).read(tokens);
    r.path("internal/counters/entities", COUNTERS).read(entities);
}

async fn removed(_: &System, _: &mut Cx, _: Nothing) -> Result<()> {
    Err(Error::new(Status::NOT_FOUND, "The functionality has been removed on this path"))
}

async fn tokens(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let unsealed = unsealed(cx)?;
    let namespace = &unsealed.access.namespace.id;
    let total = match unsealed.observability.directory.has_any() {
        // The tokens of all namespaces are stored together.
        true => unsealed.access.tokens.accessors(namespace).await?.len(),
        false => records(&unsealed, &unsealed.barrier.view(TOKEN_STORAGE), TOKENS).await?,
    };
    Ok(Data(json!({ "counters": { "service_tokens": { "total": total } } })))
}

async fn entities(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<Value>> {
    let unsealed = unsealed(cx)?;
    let view = unsealed.barrier.view(format!("{}{IDENTITY_STORAGE}", unsealed.access.namespace.storage()));
    let total = records(&unsealed, &view, ENTITIES).await?;
    Ok(Data(json!({ "counters": { "entities": { "total": total } } })))
}

/// The number of records in a folder.
async fn records(unsealed: &Unsealed, view: &View, folder: &str) -> Result<usize> {
    let mut tx = unsealed.barrier.begin_read();
    let mut page = Page { after: None, limit: Some(PAGE) };
    let mut total = 0;
    loop {
        let names = tx.list(view, folder, &page).await?;
        total += names.len();
        if names.len() < PAGE {
            return Ok(total);
        }
        page.after = names.last().cloned();
    }
}
