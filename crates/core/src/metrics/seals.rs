//! The metrics of the seals.

use super::{Item, Value};
use crate::seal::{SealAccess, Seals};

/// All of them; at most sixteen seals have labels.
pub(super) fn items(seals: &Seals) -> Vec<Item> {
    seals.all().iter().flat_map(|access| of_seal(access)).collect()
}

fn of_seal(access: &SealAccess) -> Vec<Item> {
    let label = || ("seal", access.configured.name.clone());
    let counts = &access.counts;
    let healthy = f64::from(u8::from(access.health().failure.is_none()));
    let of = |name: &str, value| Item { labels: vec![label()], ..Item::new(name, value) };
    let mut out = vec![
        of("seal.healthy", Value::Gauge(healthy)),
        of("seal.renewals", Value::Counter(counts.renewals())),
        of("seal.unseals", Value::Counter(counts.unseals())),
    ];
    out.extend(counts.errors().map(|(class, count)| Item {
        labels: vec![("class", class.to_owned()), label()],
        ..Item::new("seal.errors", Value::Counter(count))
    }));
    out
}
