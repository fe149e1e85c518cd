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
    /// Held while a rule is stored and put in force, so that the last one stored is the one in force.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// Permission to change the rules.
pub(crate) struct Change {
    admission: Arc<Admission>,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Admission {
    /// No rules and no counts, for an edge without a node.
    pub fn without_rules(clock: Arc<dyn Clock>) -> Self {
        Self::new(clock, Arc::default())
    }

    /// No rules.
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Admission { rules: ArcSwap::default(), clock, metrics, changing: Arc::default() }
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

    /// Puts other rules in force.
    pub(crate) fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Waits until nobody else changes the rules.
    pub(crate) async fn change(self: &Arc<Self>) -> Change {
        Change { _held: self.changing.clone().lock_owned().await, admission: self.clone() }
    }
}

impl Change {
    /// The rules in force.
    pub(crate) fn present(&self) -> Arc<Rules> {
        self.admission.rules.load_full()
    }

    /// Changes one of them, when what is stored of it is committed.
    pub(crate) fn apply(self, change: impl FnOnce(&mut Rules)) {
        let mut rules = (*self.present()).clone();
        change(&mut rules);
        self.admission.replace(rules);
    }
}
