//! Secrets of version 1 that a mount still has after its version was set to 2.

use std::sync::atomic::{AtomicBool, Ordering};

use keepfast_framework::{Cx, Page, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::secret::{SECRETS, Secret, Version};
use crate::secrets::kv::PLAIN;
use crate::secrets::tree::Tree;

/// How many secrets one tick moves at most, and how many bytes of them, so that its commit stays small.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 4 << 20;

/// When the upgrade began; there while secrets of version 1 are left.
const BEGUN: Records<Begun> = Records::at(BEGUN_AT);
const BEGUN_AT: &str = "upgrade";

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Begun {
    at: Timestamp,
}

/// Whether secrets of version 1 are left, and how they look as secrets of version 2.
pub(super) struct Upgrade {
    pending: AtomicBool,
    /// What they show as the time of their creation, which version 1 does not know.
    begun: Timestamp,
}

impl Upgrade {
    /// Looks whether the mount has secrets of version 1.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn open(cx: &mut Cx) -> Result<Self> {
        let (tx, view) = cx.store();
        let pending = !tx.list(view, PLAIN, &Page::first(1)).await?.is_empty();
        let mut begun = Begun { at: cx.now() };
        if pending {
            match BEGUN.get(cx, "").await? {
                Some(before) => begun = before,
                None => BEGUN.put(cx, "", &begun)?,
            }
        }
        Ok(Upgrade { pending: AtomicBool::new(pending), begun: begun.at })
    }

    /// A commit has written or deleted a record of the mount. The upgrade ends when the record of its beginning is deleted.
    pub(super) fn invalidate(&self, key: &str, exists: bool) {
        if key == BEGUN_AT && !exists {
            self.pending.store(false, Ordering::Relaxed);
        }
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// Where the names of the mount's secrets are.
    pub(super) fn prefixes(&self) -> &'static [&'static str] {
        if self.is_pending() { &[SECRETS, PLAIN] } else { &[SECRETS] }
    }

    /// The secret at a path that has none of version 2.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn find(&self, cx: &mut Cx, path: &str) -> Result<Option<Secret>> {
        if !self.is_pending() {
            return Ok(None);
        }
        let (tx, view) = cx.store();
        if let Some(bytes) = tx.get(view, &format!("{PLAIN}{path}")).await? {
            let mut secret = Secret::new(self.begun);
            secret.metadata.current = 1;
            secret.metadata.oldest = 1;
            secret.metadata.version = Some(Version { created: self.begun, deleted: None, destroyed: false });
            secret.data = Some(serde_json::from_slice(&bytes)?);
            return Ok(Some(secret));
        }
        // A read-only transaction may have looked for the one before a tick moved it, and for the other after.
        let Some(bytes) = tx.get(view, &format!("{SECRETS}{path}")).await? else {
            return Ok(None);
        };
        Secret::decode(&bytes).map(Some)
    }

    /// Removes the secret of version 1 at a path, when it is written as one of version 2 or deleted.
    pub(super) fn forget(&self, cx: &mut Cx, path: &str) {
        if self.is_pending() {
            let (tx, view) = cx.store();
            tx.delete(view, &format!("{PLAIN}{path}"));
        }
    }

    /// Moves the next page of secrets; ends the upgrade when none are left.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn convert_page(&self, cx: &mut Cx) -> Result<()> {
        if !self.is_pending() {
            return Ok(());
        }
        let page = Page { after: None, limit: Some(PAGE) };
        let paths = Tree::under(&[PLAIN]).scan(cx, "", &page).await?;
        if paths.is_empty() {
            BEGUN.delete(cx, "");
            return Ok(());
        }
        let mut moved = 0;
        for path in paths {
            let Some(secret) = self.find(cx, &path).await? else { continue };
            let bytes = secret.encode()?;
            moved += bytes.len();
            self.forget(cx, &path);
            let (tx, view) = cx.store();
            tx.put(view, &format!("{SECRETS}{path}"), bytes);
            if moved >= PAGE_BYTES {
                break;
            }
        }
        Ok(())
    }
}
