//! What is decided before a request is read: which origins may ask, how often somebody may, and which of its headers will
//! be recorded. An immutable snapshot, so that a request takes no lock; empty on a sealed server.

pub mod cors;
pub mod quota;
pub(crate) mod stored;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use keepfast_framework::Clock;
use parking_lot::Mutex;

use self::cors::Cors;
use self::quota::{Quotas, Verdict};
use crate::metrics::Metrics;

/// What is decided before a request is read.
#[derive(Clone, Default)]
pub struct Rules {
    /// Which origins may ask; `None` where nothing is said about origins.
    pub cors: Option<Arc<Cors>>,
    /// The headers that are recorded, in lower case, and whether they are hashed.
    pub recorded_headers: Arc<BTreeMap<String, bool>>,
    /// How often somebody may ask.
    pub(crate) quotas: Quotas,
}

/// The rules in force.
pub struct Admission {
    rules: ArcSwap<Rules>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Counts the sources of rules: only the last one puts rules in force.
    source: Mutex<u64>,
}

/// Where rules come from: the records of one unsealed server.
pub(crate) struct RulesSource {
    admission: Arc<Admission>,
    number: u64,
}

impl Admission {
    /// No rules and no counts, for a storage that is not served yet.
    pub(crate) fn without_rules(clock: Arc<dyn Clock>) -> Self {
        Self::new(clock, Arc::default())
    }

    /// No rules.
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Admission { rules: ArcSwap::default(), clock, metrics, source: Mutex::new(0) }
    }

    /// The rules in force.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Whether a caller may ask this now. `None` where no quota says anything about it.
    pub fn judge(&self, path: &str, remote: Option<IpAddr>) -> Option<Verdict> {
        let rules = self.rules.load();
        if rules.quotas.is_empty() {
            return None;
        }
        let verdict = rules.quotas.judge(path, remote, self.clock.now());
        if verdict.is_some_and(|v| v.refused) {
            self.metrics.quota_violation.add();
        }
        verdict
    }

    /// A new source of rules. From here on no earlier one puts rules in force.
    pub(crate) fn source(self: &Arc<Self>) -> RulesSource {
        let mut source = self.source.lock();
        *source += 1;
        RulesSource { admission: self.clone(), number: *source }
    }

    /// Ends the source of rules, and all rules.
    pub(crate) fn clear(&self) {
        let mut source = self.source.lock();
        *source += 1;
        self.rules.store(Arc::default());
    }
}

impl RulesSource {
    /// Puts these rules in force, unless the source has ended.
    pub(crate) fn put_in_force(&self, rules: Rules) {
        let source = self.admission.source.lock();
        if *source == self.number {
            self.admission.rules.store(Arc::new(rules));
        }
    }
}
