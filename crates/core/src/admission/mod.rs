//! Admission, which is decided before a request is read: allowed origins, rate quotas, and the headers that audit
//! entries have. The rules are an immutable snapshot, so that a request takes no lock; a sealed server has none.

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
use self::quota::{QuotaRequest, QuotaResult, Quotas};
use crate::metrics::Metrics;

/// The rules that apply before a request is read.
#[derive(Clone, Default)]
pub struct Rules {
    /// The allowed origins; `None` without CORS settings.
    pub cors: Option<Arc<Cors>>,
    /// The audited headers, in lower case, and whether their values are HMACed.
    pub audited_headers: Arc<BTreeMap<String, bool>>,
    /// The rate quotas.
    pub(crate) quotas: Quotas,
}

/// The current rules.
pub struct Admission {
    rules: ArcSwap<Rules>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// The number of sources of rules: only the latest one can apply rules.
    source: Mutex<u64>,
}

/// A source of rules: the records of one unsealed server.
pub(crate) struct RulesSource {
    admission: Arc<Admission>,
    number: u64,
}

impl Admission {
    /// An admission without rules and metrics, for a storage that is not served yet.
    pub(crate) fn without_rules(clock: Arc<dyn Clock>) -> Self {
        Self::new(clock, Arc::default())
    }

    /// An admission without rules.
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Admission { rules: ArcSwap::default(), clock, metrics, source: Mutex::new(0) }
    }

    /// The current rules.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Whether there are quotas.
    pub fn has_quotas(&self) -> bool {
        !self.rules.load().quotas.is_empty()
    }

    /// Counts a request against its quota. `None` if no quota applies to it.
    pub(crate) fn check_quota(&self, request: &QuotaRequest<'_>, remote: Option<IpAddr>) -> Option<QuotaResult> {
        let rules = self.rules.load();
        if rules.quotas.is_empty() {
            return None;
        }
        let result = rules.quotas.check_quota(request, remote, self.clock.now());
        if result.is_some_and(|v| v.refused) {
            self.metrics.quota_violation.add();
        }
        result
    }

    /// Counts a request of a path of the root namespace.
    #[cfg(test)]
    pub(crate) fn check_quota_of_root(&self, path: &str, remote: Option<IpAddr>) -> Option<QuotaResult> {
        let lineage = &[&crate::namespace::NamespaceId::root()];
        self.check_quota(&QuotaRequest { sent: path, lineage, path }, remote)
    }

    /// A new source of rules. From now on no earlier source can apply rules.
    pub(crate) fn source(self: &Arc<Self>) -> RulesSource {
        let mut source = self.source.lock();
        *source += 1;
        RulesSource { admission: self.clone(), number: *source }
    }

    /// Ends the source of rules, and removes all rules.
    pub(crate) fn clear(&self) {
        let mut source = self.source.lock();
        *source += 1;
        self.rules.store(Arc::default());
    }
}

impl RulesSource {
    /// Applies these rules, unless the source has ended.
    pub(crate) fn apply(&self, rules: Rules) {
        let source = self.admission.source.lock();
        if *source == self.number {
            self.admission.rules.store(Arc::new(rules));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepfast_framework::clock::TestClock;

    #[test]
    fn only_the_latest_source_applies_rules_and_none_after_the_end() {
        let admission = Arc::new(Admission::without_rules(Arc::new(TestClock::default())));
        let rules = || Rules { cors: Some(Arc::default()), ..Rules::default() };
        let (first, second) = (admission.source(), admission.source());
        first.apply(rules());
        assert!(admission.rules().cors.is_none());
        second.apply(rules());
        assert!(admission.rules().cors.is_some());
        admission.clear();
        assert!(admission.rules().cors.is_none());
        for ended in [&first, &second] {
            ended.apply(rules());
            assert!(admission.rules().cors.is_none());
        }
    }
}
