//! The metrics of the seals.

use super::{Item, Value};
use crate::seal::{SealAccess, Seals};

/// All of them; at most sixteen seals have labels.
pub(super) fn items(seals: &Seals) -> Vec<Item> {
    let mut out = vec![Item::new("unseal.rounds", Value::Counter(seals.rounds.read()))];
    out.extend(seals.all().iter().flat_map(|access| of_seal(access)));
    out
}

/// Ends an interval of the times.
pub(super) fn turn(seals: &Seals) {
    seals.all().iter().for_each(|access| access.counts.turn());
}

fn of_seal(access: &SealAccess) -> Vec<Item> {
    let label = || ("seal", access.configured.name.clone());
    let counts = &access.counts;
    let healthy = f64::from(u8::from(access.health().failure.is_none()));
    let of = |name: &str, value| Item { labels: vec![label()], ..Item::new(name, value) };
    let mut out = vec![
        of("seal.healthy", Value::Gauge(healthy)),
        of("seal.kek_generation_lag", Value::Gauge(counts.lag() as f64)),
        of("seal.renewals", Value::Counter(counts.renewals.read())),
        of("seal.unseals", Value::Counter(counts.unseals.read())),
    ];
    out.extend(counts.times().map(|(operation, time)| Item {
        labels: vec![("op", operation.to_owned()), label()],
        ..Item::new("seal.operation", Value::Summary(time))
    }));
    out.extend(counts.errors().map(|(operation, class, count)| Item {
        labels: vec![("class", class.to_owned()), ("op", operation.to_owned()), label()],
        ..Item::new("seal.errors", Value::Counter(count))
    }));
    out
}
