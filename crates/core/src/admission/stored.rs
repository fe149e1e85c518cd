//! The stored rules of admission, below `sys/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::{Records, Result};
use keepfast_storage::{Page, ReadTx, View};

use super::cors::Cors;
use super::quota::{QuotaConfig, Quotas, RateLimit};
use super::{Rules, RulesSource};
use crate::invalidation::{CacheOwner, CommittedChange, Followed};
use crate::namespace::NamespaceId;
use crate::unreadable::{self, Stored};

/// The allowed origins.
pub(crate) const CORS: Records<Cors> = Records::at(CORS_AT);
const CORS_AT: &str = "config/cors";
/// The audited headers, in lower case, and whether their values are HMACed.
pub(crate) const HEADERS: Records<BTreeMap<String, bool>> = Records::at(HEADERS_AT);
const HEADERS_AT: &str = "config/auditing/request-headers";
/// The configuration of all quotas.
pub(crate) const QUOTA_CONFIG: Records<QuotaConfig> = Records::at(QUOTA_CONFIG_AT);
const QUOTA_CONFIG_AT: &str = "quotas/config";
/// The quotas by name.
pub(crate) const RATE_LIMITS: Records<RateLimit> = Records::at(RATE_LIMITS_AT);
/// The folder of the quotas.
pub(crate) const RATE_LIMITS_AT: &str = "quotas/rate-limit/";

impl Rules {
    /// Whether a record below `sys/` is one of them.
    fn are_at(key: &str) -> bool {
        [CORS_AT, HEADERS_AT, QUOTA_CONFIG_AT].contains(&key) || key.starts_with(RATE_LIMITS_AT)
    }

    /// The stored rules. An unreadable record counts as absent: no other origin is allowed, no header is audited, and
    /// that quota does not apply until it is written again.
    async fn load(tx: &mut ReadTx, view: &View, namespace: &NamespaceId) -> Result<Self> {
        let mut quotas = Quotas::default();
        if let Stored::Record(config) = unreadable::read((&QUOTA_CONFIG, "quota configuration"), tx, view, "").await? {
            quotas.config = Arc::new(config);
        }
        for name in RATE_LIMITS.list_in(tx, view, "", &Page::default()).await? {
            let limit = unreadable::read((&RATE_LIMITS, "rate limit quota"), tx, view, &name).await?.readable();
            if let Some(limit) = limit.filter(|limit| limit.namespace == *namespace) {
                quotas.put(limit);
            }
        }
        Ok(Rules {
            cors: unreadable::read((&CORS, "CORS"), tx, view, "").await?.readable().map(Arc::new),
            audited_headers: Arc::new(
                unreadable::read((&HEADERS, "audited headers"), tx, view, "").await?.readable().unwrap_or_default(),
            ),
            quotas,
        })
    }
}

/// The stored rules under a view. They follow their records.
pub(crate) struct StoredRules {
    /// The namespace of the records.
    namespace: NamespaceId,
    view: View,
    source: RulesSource,
    rules: Followed<Rules>,
}

impl StoredRules {
    /// The rules under `view`. Reads nothing.
    pub(crate) fn new(view: View, source: RulesSource) -> Self {
        StoredRules { namespace: NamespaceId::root(), view, source, rules: Followed::default() }
    }

    /// Reads the rules and applies them.
    pub(crate) async fn load(&self, tx: &mut ReadTx) -> Result<()> {
        let load = self.rules.load(self, tx, |own, tx| Box::pin(Rules::load(tx, &own.view, &own.namespace)));
        let rules = load.await?;
        self.source.apply(rules.clone());
        Ok(())
    }
}

/// Follows all records below `sys/`.
impl CacheOwner for StoredRules {
    fn applied(&self, change: &CommittedChange<'_>) {
        if !Rules::are_at(change.key) {
            return;
        }
        let mut rules = self.rules.follow();
        match change.key {
            CORS_AT => rules.cors = change.record("CORS").readable().map(Arc::new),
            HEADERS_AT => {
                rules.audited_headers = Arc::new(change.record("audited headers").readable().unwrap_or_default())
            }
            QUOTA_CONFIG_AT => {
                rules.quotas.config = Arc::new(change.record("quota configuration").readable().unwrap_or_default());
            }
            key => {
                let Some(name) = key.strip_prefix(RATE_LIMITS_AT) else { return };
                let limit = change.record::<RateLimit>("rate limit quota").readable();
                match limit.filter(|limit| limit.namespace == self.namespace) {
                    Some(limit) => rules.quotas.put(limit),
                    None => rules.quotas.remove(name),
                }
            }
        }
        self.source.apply(rules.clone());
    }
}
