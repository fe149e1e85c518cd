//! Counters with labels, for objects that are created much less often than requests arrive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::item::{Item, Value};

/// The maximum number of label sets of one counter. Further ones are counted without their mount.
const MOST: usize = 1000;

/// A counter for each label set.
#[derive(Default)]
pub(crate) struct Labelled(Mutex<HashMap<Vec<u8>, Series>>);

/// The labels of a counter and its value.
struct Series {
    labels: Vec<(&'static str, String)>,
    count: u64,
}

impl Labelled {
    /// Adds one to the counter with these labels.
    pub(crate) fn add(&self, labels: &[(&'static str, &str)]) {
        let key = key_of(labels);
        let mut series = self.0.lock();
        if let Some(known) = series.get_mut(&key) {
            known.count += 1;
            return;
        }
        let has_room = series.len() < MOST;
        let labels = || labels.iter().filter(|(name, _)| has_room || *name != "mount_point");
        let key = if has_room { key } else { key_of(&labels().copied().collect::<Vec<_>>()) };
        let owned =
            || Series { labels: labels().map(|(name, value)| (*name, (*value).to_owned())).collect(), count: 0 };
        series.entry(key).or_insert_with(owned).count += 1;
    }

    /// All counters under this name, in the order of their labels.
    pub(crate) fn items(&self, name: &str) -> Vec<Item> {
        let item = |series: &Series| Item {
            name: name.to_owned(),
            labels: series.labels.clone(),
            value: Value::Counter(series.count),
        };
        let mut items: Vec<Item> = self.0.lock().values().map(item).collect();
        items.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        items
    }
}

/// The key of a label set. All counters of a metric have the same label names in the same order, except for the mount,
/// and a length before each value keeps different values apart.
fn key_of(labels: &[(&'static str, &str)]) -> Vec<u8> {
    let mut key = Vec::with_capacity(labels.iter().map(|(_, value)| size_of::<usize>() + value.len()).sum());
    for (_, value) in labels {
        key.extend(value.len().to_le_bytes());
        key.extend(value.as_bytes());
    }
    key
}

/// Counters of responses by status code.
pub(crate) struct StatusCodes([AtomicU64; 500]);

impl Default for StatusCodes {
    fn default() -> Self {
        StatusCodes([const { AtomicU64::new(0) }; 500])
    }
}

impl StatusCodes {
    /// Counts a response with this status code. Status codes that HTTP does not define are not counted.
    pub(crate) fn add(&self, status: u16) {
        if let Some(count) = status.checked_sub(100).and_then(|at| self.0.get(usize::from(at))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters that are not zero.
    pub(crate) fn items(&self, name: &str) -> Vec<Item> {
        let read = |(at, count): (usize, &AtomicU64)| (at + 100, count.load(Ordering::Relaxed));
        let item = |(status, count): (usize, u64)| Item {
            name: name.to_owned(),
            labels: vec![("code", status.to_string()), ("type", format!("{}xx", status / 100))],
            value: Value::Counter(count),
        };
        self.0.iter().enumerate().map(read).filter(|(_, count)| *count > 0).map(item).collect()
    }
}

/// The bucket of a TTL, with Vault's labels: the smallest that is not shorter.
pub(crate) fn ttl_bucket(seconds: u64) -> &'static str {
    const BOUNDS: [(u64, &str); 9] = [
        (60, "1m"),
        (600, "10m"),
        (1200, "20m"),
        (3600, "1h"),
        (7200, "2h"),
        (86_400, "1d"),
        (172_800, "2d"),
        (604_800, "7d"),
        (2_592_000, "30d"),
    ];
    BOUNDS.iter().find(|(bound, _)| seconds <= *bound).map_or("+Inf", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_bound_and_nothing_is_lost_beyond_it() {
        let counter = Labelled::default();
        for n in 0..MOST + 5 {
            counter.add(&[("mount_point", &n.to_string()), ("namespace", "root")]);
        }
        let items = counter.items("x");
        let all: u64 = items.iter().map(|i| if let Value::Counter(n) = i.value { n } else { 0 }).sum();
        assert_eq!((items.len(), all), (MOST + 1, MOST as u64 + 5));
        assert!(items.iter().any(|i| i.labels.len() == 1 && i.value == Value::Counter(5)), "{items:?}");
    }

    #[test]
    fn status_codes_are_counted_with_their_class() {
        let codes = StatusCodes::default();
        [200, 404, 404, 99, 600, 0].into_iter().for_each(|status| codes.add(status));
        let reported: Vec<_> =
            codes.items("x").into_iter().map(|i| (i.labels[0].1.clone(), i.labels[1].1.clone(), i.value)).collect();
        let one = |code: &str, class: &str, n| (code.to_owned(), class.to_owned(), Value::Counter(n));
        assert_eq!(reported, [one("200", "2xx", 1), one("404", "4xx", 2)]);
    }

    #[test]
    fn times_to_live_have_vaults_buckets() {
        let buckets = [0, 60, 61, 7200, 2_592_000, 2_592_001].map(ttl_bucket);
        assert_eq!(buckets, ["1m", "1m", "10m", "2h", "30d", "+Inf"]);
    }
}
