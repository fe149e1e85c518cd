//! The progress of the self-initialization, in the storage of `sys/`. A server that was not initialized by stanzas has none.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use keepfast_framework::{Error, Records, Result};
use keepfast_storage::{Barrier, Page, Tx};
use serde::{Deserialize, Serialize};

use super::history::History;
use crate::layout::{SELF_INIT, SELF_INIT_RESPONSES, SYSTEM_STORAGE};

const STATE: Records<SelfInitState> = Records::at(SELF_INIT);

/// The progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelfInitState {
    /// The digest of the stanzas of the last attempt.
    pub(super) stanzas: String,
    /// The accessors of the root tokens that are not known to be revoked.
    #[serde(default)]
    pub(super) tokens: BTreeSet<String>,
    /// The names of the requests that need not be sent again.
    #[serde(default)]
    pub(super) done: BTreeSet<String>,
    /// The request that failed last.
    #[serde(default)]
    pub(super) failed: Option<FailedRequest>,
    /// Whether all requests are done and no root token is left.
    #[serde(default)]
    pub(super) finished: bool,
    /// The digest of the file with the recovery keys.
    #[serde(default)]
    pub(super) recovery: Option<String>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedRequest {
    pub(super) name: String,
    /// The status of the response; 0 when the request could not be sent.
    pub(super) status: u16,
}

impl SelfInitState {
    /// The state of a storage that is about to be initialized, whose root token has this accessor.
    pub(crate) fn first(stanzas: String, accessor: &str, recovery: Option<String>) -> Self {
        let tokens = BTreeSet::from([accessor.to_owned()]);
        SelfInitState { stanzas, tokens, recovery, ..SelfInitState::default() }
    }

    /// The stored state.
    pub(crate) async fn load(barrier: &Arc<Barrier>) -> Result<Option<Self>> {
        STATE.get_in(&mut barrier.begin_read(), &barrier.view(SYSTEM_STORAGE), "").await
    }

    /// Whether requests are still to be sent, or root tokens to be revoked.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.finished
    }

    /// Writes the state.
    pub(crate) fn put(&self, barrier: &Arc<Barrier>, tx: &mut Tx) -> Result<()> {
        STATE.put_in(tx, &barrier.view(SYSTEM_STORAGE), "", self)
    }

    /// Writes the state in a transaction of its own, with the response to the request `name` if a later one refers to it.
    pub(super) async fn commit(&self, barrier: &Arc<Barrier>, kept: Option<(&str, Bytes)>) -> Result<()> {
        let kept = &kept;
        barrier
            .transact(|mut tx| async move {
                self.put(barrier, &mut tx)?;
                if let Some((name, response)) = kept {
                    tx.put(&barrier.view(SYSTEM_STORAGE), &response_key(name), response.clone());
                }
                Ok::<_, Error>((tx, ()))
            })
            .await
    }

    /// Writes the state of the end and deletes the responses.
    pub(super) async fn commit_finished(&self, barrier: &Arc<Barrier>) -> Result<()> {
        barrier
            .transact(|mut tx| async move {
                let view = barrier.view(SYSTEM_STORAGE);
                for name in tx.list(&view, SELF_INIT_RESPONSES, &Page::all()).await? {
                    tx.delete(&view, &response_key(&name));
                }
                self.put(barrier, &mut tx)?;
                Ok::<_, Error>((tx, ()))
            })
            .await
    }
}

/// Adds the responses of earlier attempts.
pub(super) async fn load_responses(barrier: &Arc<Barrier>, history: &mut History) -> Result<()> {
    let (view, tx) = (barrier.view(SYSTEM_STORAGE), &mut barrier.begin_read());
    for name in tx.list(&view, SELF_INIT_RESPONSES, &Page::all()).await? {
        if let Some(body) = tx.get(&view, &response_key(&name)).await? {
            history.add_response(&name, body);
        }
    }
    Ok(())
}

fn response_key(name: &str) -> String {
    format!("{SELF_INIT_RESPONSES}{name}")
}
