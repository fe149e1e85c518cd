//! TTLs: the only place that combines the bounds of system, mount, role and request.

use std::time::Duration;

use keepfast_framework::mount::TtlBounds;
use keepfast_framework::{Timestamp, duration};

/// The requested TTLs. Zero means "not requested".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestedTtls {
    /// From the caller: `ttl` at creation, `increment` at renewal.
    pub(crate) increment: Duration,
    /// From the role.
    pub(crate) ttl: Duration,
    /// From the role: the max_ttl with renewals.
    pub(crate) max_ttl: Duration,
    /// Periodic: each renewal gives this TTL, without a max_ttl.
    pub(crate) period: Duration,
    /// A bound on every TTL, counted from issue.
    pub(crate) explicit_max_ttl: Duration,
}

/// The TTL that results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveTtl {
    /// The TTL from now.
    pub(crate) ttl: Duration,
    /// The warnings for the caller.
    pub(crate) warnings: Vec<String>,
}

/// The TTL at `now` of a token or lease that was issued at `issued`.
///
/// The result never exceeds the explicit bound nor, unless periodic, the smaller of the max_ttl of role and mount, all
/// counted from issue. So a renewal just before the end gives the remaining time, which may be zero, and zero does not
/// mean "no expiry".
pub(crate) fn effective_ttl(
    requested: &RequestedTtls,
    bounds: TtlBounds,
    issued: Timestamp,
    now: Timestamp,
) -> EffectiveTtl {
    let mut warnings = Vec::new();
    let ceiling = if requested.max_ttl.is_zero() { bounds.max } else { requested.max_ttl.min(bounds.max) };
    let mut ttl = if !requested.period.is_zero() {
        capped(requested.period, bounds.max, "period", "effective max_ttl", &mut warnings)
    } else {
        let wanted = first_set([requested.increment, requested.ttl, bounds.default]);
        let mut left = left_of(ceiling, issued, now);
        if !requested.explicit_max_ttl.is_zero() {
            left = left.min(left_of(requested.explicit_max_ttl, issued, now));
        }
        if left < wanted { cap_warning(wanted, left, &mut warnings) } else { wanted }
    };
    if !requested.explicit_max_ttl.is_zero() {
        let left = left_of(requested.explicit_max_ttl, issued, now);
        if left < ttl {
            ttl = capped(ttl, left, "period", "effective max_ttl", &mut warnings);
        }
    }
    EffectiveTtl { ttl, warnings }
}

fn capped(wanted: Duration, bound: Duration, what: &str, whose: &str, warnings: &mut Vec<String>) -> Duration {
    if wanted > bound {
        warnings.push(format!(
            "{what} of {:?} exceeded the {whose} of {:?}; {what} value is capped accordingly",
            go_hours(wanted),
            go_hours(bound)
        ));
        return bound;
    }
    wanted
}

/// The remaining time, with a warning if it differs from the requested TTL in whole seconds, which responses have.
fn cap_warning(wanted: Duration, left: Duration, warnings: &mut Vec<String>) -> Duration {
    if shown(left) == shown(wanted) {
        return left;
    }
    warnings.push(format!(
        "TTL of {:?} exceeded the effective max_ttl of {:?}; TTL value is capped accordingly",
        go_hours(wanted),
        go_hours(left)
    ));
    left
}

fn left_of(bound: Duration, issued: Timestamp, now: Timestamp) -> Duration {
    issued.after(bound).since(now)
}

fn first_set<const N: usize>(candidates: [Duration; N]) -> Duration {
    candidates.into_iter().find(|d| !d.is_zero()).unwrap_or_default()
}

/// A duration in whole seconds, as responses show it, rounded to the nearest; stored values are exact.
pub(crate) fn shown(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_millis() >= 500)
}

/// A duration as OpenBao's warnings print it: `768h`, `1h30m`, `45s`.
pub(crate) fn go_hours(span: Duration) -> String {
    duration::format_short(i64::try_from(shown(span)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn bounds(default: u32, max: u32) -> TtlBounds {
        TtlBounds { default: HOUR * default, max: HOUR * max }
    }

    #[test]
    fn a_request_is_capped_with_a_warning_and_silence_gets_the_default() {
        let now = Timestamp::from_unix(1_800_000_000);
        let requested = RequestedTtls { increment: HOUR * 1000, ..RequestedTtls::default() };
        let out = effective_ttl(&requested, bounds(768, 768), now, now);
        assert_eq!(out.ttl, HOUR * 768);
        assert_eq!(
            out.warnings,
            [r#"TTL of "1000h" exceeded the effective max_ttl of "768h"; TTL value is capped accordingly"#]
        );
        assert_eq!(effective_ttl(&RequestedTtls::default(), bounds(10, 768), now, now).ttl, HOUR * 10);
        let periodic = RequestedTtls { period: HOUR, increment: HOUR * 9, ..RequestedTtls::default() };
        assert_eq!(effective_ttl(&periodic, bounds(10, 768), now, now.after(HOUR * 5000)).ttl, HOUR);
    }

    proptest! {
        #[test]
        fn sec_tl01_tl03_no_ttl_exceeds_any_bound(
            increment in 0u64..4000, ttl in 0u64..4000, max_ttl in 0u64..4000, explicit in 0u64..4000,
            default in 1u64..3000, max in 1u64..3000, age_ms in 0u64..5_000_000,
        ) {
            let s = Duration::from_secs;
            let requested = RequestedTtls { increment: s(increment), ttl: s(ttl), max_ttl: s(max_ttl), period: s(0), explicit_max_ttl: s(explicit) };
            let bounds = TtlBounds { default: s(default.min(max)), max: s(max) };
            let issued = Timestamp::from_unix(1_800_000_000);
            let now = issued.after(Duration::from_millis(age_ms));
            let end = now.after(effective_ttl(&requested, bounds, issued, now).ttl);
            let mut bound = if max_ttl == 0 { max } else { max.min(max_ttl) };
            if explicit > 0 { bound = bound.min(explicit); }
            prop_assert!(end <= issued.after(s(bound)).max(now));
            let wish = [increment, ttl, default.min(max)].into_iter().find(|wish| *wish > 0).unwrap();
            prop_assert_eq!(end, now.after(s(wish)).min(issued.after(s(bound)).max(now)));
        }
    }

    #[test]
    fn a_period_is_capped_by_the_mount_and_by_the_explicit_bound_alone() {
        let now = Timestamp::from_unix(1_800_000_000);
        let periodic = |period: u32, explicit: u32| RequestedTtls {
            period: HOUR * period,
            max_ttl: HOUR,
            explicit_max_ttl: HOUR * explicit,
            ..RequestedTtls::default()
        };
        let warning = |bound: u32| {
            format!(
                "period of \"9h\" exceeded the effective max_ttl of \"{bound}h\"; period value is capped accordingly"
            )
        };
        let out = |period: u32, explicit: u32, age: u32| {
            let effective = effective_ttl(&periodic(period, explicit), bounds(2, 8), now, now.after(HOUR * age));
            (effective.ttl.as_secs() / 3600, effective.warnings)
        };
        assert_eq!(out(8, 0, 100), (8, vec![]));
        assert_eq!(out(9, 0, 0), (8, vec![warning(8)]));
        assert_eq!(out(8, 8, 0), (8, vec![]), "exactly the bound");
        assert_eq!(out(8, 12, 5).0, 7, "what is left of the explicit bound");
        assert_eq!(out(8, 12, 13).0, 0);
    }

    #[test]
    fn a_difference_of_less_than_half_a_second_is_no_warning() {
        let now = Timestamp::from_unix(1_800_000_000);
        let warned = |age_ms: u64| {
            let requested = RequestedTtls { increment: HOUR * 8, ..RequestedTtls::default() };
            let later = now.after(Duration::from_millis(age_ms));
            let out = effective_ttl(&requested, bounds(2, 8), now, later);
            assert_eq!(out.ttl, HOUR * 8 - Duration::from_millis(age_ms));
            !out.warnings.is_empty()
        };
        assert_eq!([warned(0), warned(400), warned(500), warned(501), warned(1000)], [false, false, false, true, true]);
        let shown = |ms: u64| shown(Duration::from_millis(ms));
        assert_eq!([shown(1499), shown(1500), shown(2000)], [1, 2, 2]);
    }
}
