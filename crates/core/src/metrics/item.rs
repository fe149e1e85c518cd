//! The values of metrics.

use super::timing::Summary;

/// One metric value with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Parts joined by dots, without the prefix.
    pub name: String,
    /// Labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

impl Item {
    /// A value without labels.
    pub(crate) fn new(name: impl Into<String>, value: Value) -> Self {
        Item { name: name.into(), labels: Vec::new(), value }
    }

    /// The same with a label.
    pub(super) fn labelled(mut self, name: &'static str, value: &str) -> Self {
        self.labels.push((name, value.to_owned()));
        self
    }
}

/// The value of a metric, by kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Can increase and decrease.
    Gauge(f64),
    /// Only increases.
    Counter(u64),
    /// Counts and durations.
    Summary(Summary),
}
