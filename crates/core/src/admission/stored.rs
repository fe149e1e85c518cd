//! What is stored of the rules of admission, below `sys/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use keepfast_framework::{Records, Result};
use keepfast_storage::{Page, Tx, View};

use super::Rules;
use super::cors::Cors;
use super::quota::{QuotaConfig, Quotas, RateLimit};

/// Which origins may ask.
pub const CORS: Records<Cors> = Records::at("config/cors");
/// Which headers are recorded, in lower case, and whether they are hashed.
pub const HEADERS: Records<BTreeMap<String, bool>> = Records::at("config/auditing/request-headers");
/// For all quotas.
pub const QUOTA_CONFIG: Records<QuotaConfig> = Records::at("quotas/config");
/// The quotas by name.
pub const RATE_LIMITS: Records<RateLimit> = Records::at("quotas/rate-limit/");

impl Rules {
    /// The rules as stored.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub async fn load(tx: &mut Tx, view: &View) -> Result<Self> {
        let mut quotas = Quotas::default();
        if let Some(config) = QUOTA_CONFIG.get_in(tx, view, "").await? {
            quotas.config = Arc::new(config);
        }
        for name in RATE_LIMITS.list_in(tx, view, "", &Page::default()).await? {
            if let Some(limit) = RATE_LIMITS.get_in(tx, view, &name).await? {
                quotas.put(limit);
            }
        }
        Ok(Rules {
            cors: CORS.get_in(tx, view, "").await?.map(Arc::new),
            recorded_headers: Arc::new(HEADERS.get_in(tx, view, "").await?.unwrap_or_default()),
            quotas,
        })
    }
}
