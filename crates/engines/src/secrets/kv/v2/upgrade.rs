//! The upgrade of a mount from version 1 to version 2.

use std::sync::atomic::{AtomicBool, Ordering};

use keepfast_framework::{Cx, Page, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::secret::{SECRETS, Secret, Version};
use crate::secrets::kv::V1_SECRETS;
use crate::secrets::tree::Tree;

/// The maximum number and bytes of secrets that one tick converts, so that its commit stays small.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 4 << 20;

/// The start of the upgrade; the record exists while secrets of version 1 are left.
const STARTED: Records<Started> = Records::at(STARTED_KEY);
const STARTED_KEY: &str = "upgrade";

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Started {
    at: Timestamp,
}

/// Whether secrets of version 1 are left, and the form that they have as secrets of version 2.
pub(super) struct Upgrade {
    pending: AtomicBool,
    /// Their time of creation in responses, as version 1 stores none.
    started: Timestamp,
}

impl Upgrade {
    /// Checks whether the mount has secrets of version 1.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn open(cx: &mut Cx) -> Result<Self> {
        let (tx, view) = cx.store();
        let pending = !tx.list(view, V1_SECRETS, &Page::first(1)).await?.is_empty();
        let mut started = Started { at: cx.now() };
        if pending {
            match STARTED.get(cx, "").await? {
                Some(before) => started = before,
                None => STARTED.put(cx, "", &started)?,
            }
        }
        Ok(Upgrade { pending: AtomicBool::new(pending), started: started.at })
    }

    /// Handles a commit that wrote or deleted a record of the mount. The upgrade ends when its start record is deleted.
    pub(super) fn invalidate(&self, key: &str, exists: bool) {
        if key == STARTED_KEY && !exists {
            self.pending.store(false, Ordering::Relaxed);
        }
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// The prefixes of the mount's secrets.
    pub(super) fn prefixes(&self) -> &'static [&'static str] {
        if self.is_pending() { &[SECRETS, V1_SECRETS] } else { &[SECRETS] }
    }

    /// The secret at a path without a secret of version 2.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn find(&self, cx: &mut Cx, path: &str) -> Result<Option<Secret>> {
        if !self.is_pending() {
            return Ok(None);
        }
        let (tx, view) = cx.store();
        if let Some(bytes) = tx.get(view, &format!("{V1_SECRETS}{path}")).await? {
            let mut secret = Secret::new(self.started);
            secret.metadata.current = 1;
            secret.metadata.oldest = 1;
            secret.metadata.version = Some(Version { created: self.started, deleted: None, destroyed: false });
            secret.data = Some(serde_json::from_slice(&bytes)?);
            return Ok(Some(secret));
        }
        // A tick may have converted the secret between the two reads of a read-only transaction.
        let Some(bytes) = tx.get(view, &format!("{SECRETS}{path}")).await? else {
            return Ok(None);
        };
        Secret::decode(&bytes).map(Some)
    }

    /// Deletes the secret of version 1 at a path, after a write as version 2 or a delete.
    pub(super) fn delete_v1(&self, cx: &mut Cx, path: &str) {
        if self.is_pending() {
            let (tx, view) = cx.store();
            tx.delete(view, &format!("{V1_SECRETS}{path}"));
        }
    }

    /// Converts the next page of secrets; ends the upgrade when none are left.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn convert_page(&self, cx: &mut Cx) -> Result<()> {
        if !self.is_pending() {
            return Ok(());
        }
        let page = Page { after: None, limit: Some(PAGE) };
        let paths = Tree::under(&[V1_SECRETS]).scan(cx, "", &page).await?;
        if paths.is_empty() {
            // A secret of version 1 that is written until the commit is a conflict: it would not be found any more.
            let (tx, view) = cx.store();
            if tx.list_verified(view, V1_SECRETS, &Page::first(1)).await?.is_empty() {
                STARTED.delete(cx, "");
            }
            return Ok(());
        }
        let mut moved = 0;
        for path in paths {
            let Some(secret) = self.find(cx, &path).await? else { continue };
            let bytes = secret.encode()?;
            moved += bytes.len();
            self.delete_v1(cx, &path);
            let (tx, view) = cx.store();
            tx.put(view, &format!("{SECRETS}{path}"), bytes);
            if moved >= PAGE_BYTES {
                break;
            }
        }
        Ok(())
    }
}
