//! What is stored of the rules of admission, below `sys/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::{Records, Result};
use keepfast_storage::{Page, Tx, View};

use super::Rules;
use super::cors::Cors;
use super::quota::{QuotaConfig, Quotas, RateLimit};
use crate::damaged::{self, Stored};

/// Which origins may ask.
pub(crate) const CORS: Records<Cors> = Records::at("config/cors");
/// Which headers are recorded, in lower case, and whether they are hashed.
pub(crate) const HEADERS: Records<BTreeMap<String, bool>> = Records::at("config/auditing/request-headers");
/// For all quotas.
pub(crate) const QUOTA_CONFIG: Records<QuotaConfig> = Records::at("quotas/config");
/// The quotas by name.
pub(crate) const RATE_LIMITS: Records<RateLimit> = Records::at("quotas/rate-limit/");

impl Rules {
    /// The rules as stored. A record that cannot be read counts as none: no other origin may ask, no header is recorded, and
    /// that one quota is not in force until it is written again.
    pub(crate) async fn load(tx: &mut Tx, view: &View) -> Result<Self> {
        let mut quotas = Quotas::default();
        if let Stored::Record(config) = damaged::read((&QUOTA_CONFIG, "quota configuration"), tx, view, "").await? {
            quotas.config = Arc::new(config);
        }
        for name in RATE_LIMITS.list_in(tx, view, "", &Page::default()).await? {
            if let Stored::Record(limit) = damaged::read((&RATE_LIMITS, "rate limit quota"), tx, view, &name).await? {
                quotas.put(limit);
            }
        }
        Ok(Rules {
            cors: damaged::read((&CORS, "CORS"), tx, view, "").await?.readable().map(Arc::new),
            recorded_headers: Arc::new(
                damaged::read((&HEADERS, "audited headers"), tx, view, "").await?.readable().unwrap_or_default(),
            ),
            quotas,
        })
    }
}
