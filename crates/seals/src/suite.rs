//! The tests that every seal passes, and further ones for seals of a service.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepfast_crypto::random;
use keepfast_framework::clock::{BoxFuture, Clock, TestClock, Timestamp};
use keepfast_framework::seal::{Seal, SealErrorClass, WrappedKey};

use crate::stand_in::{Fault, StandIn};
use crate::stanza::tests::{Variables, options};
use crate::{CreatedSeal, SealConfigError, SealStanza, from_stanza};

/// A clock that moves to the moment for which a caller waits: waits take no time.
pub(crate) struct Impatient(pub(crate) TestClock);

impl Clock for Impatient {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, moment: Timestamp) -> BoxFuture<'_, ()> {
        self.0.advance(moment.since(self.0.now()));
        Box::pin(std::future::ready(()))
    }
}

/// A seal of a stanza with these keys and variables.
pub(crate) fn build(
    kind: &str,
    keys: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Result<Arc<dyn Seal>, SealConfigError> {
    build_within(Duration::from_secs(5), kind, keys, variables)
}

/// As [`build`], with a timeout.
pub(crate) fn build_within(
    timeout: Duration,
    kind: &str,
    keys: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Result<Arc<dyn Seal>, SealConfigError> {
    let options = options(keys);
    let stanza = SealStanza { timeout, ..SealStanza::new(kind, "s", &options) };
    let clock: Arc<dyn Clock> = Arc::new(Impatient(TestClock::default()));
    Ok(from_stanza(&stanza, &Variables::of(variables), &clock)?.seal)
}

/// As [`build`], beside another seal of the type; with the warnings.
pub(crate) fn build_beside(
    kind: &str,
    keys: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Result<CreatedSeal, SealConfigError> {
    let options = options(keys);
    let stanza = SealStanza { shares_kind: true, ..SealStanza::new(kind, "s", &options) };
    let clock: Arc<dyn Clock> = Arc::new(Impatient(TestClock::default()));
    from_stanza(&stanza, &Variables::of(variables), &clock)
}

/// Generates one test of every case for a seal: `seal_suite!(name, async || a seal, async || a seal with another key);`
/// With `installed` before them, both return `None` where the program that the seal needs is not installed.
macro_rules! seal_suite {
    ($name:ident, installed $make:expr, $other:expr) => {
        mod $name {
            use super::*;
            $crate::suite::seal_suite!(@cases $make, $other;
                unwraps_what_it_wrapped, wraps_one_key_differently_each_time, refuses_what_another_key_wrapped,
                refuses_a_damaged_wrapping, serves_concurrent_callers, shows_no_key, knows_the_ids_of_its_key);
        }
    };
    ($name:ident, $make:expr, $other:expr) => {
        $crate::suite::seal_suite!($name, installed async || Some(($make)().await), async || Some(($other)().await));
    };
    (@cases $make:expr, $other:expr; $($case:ident),*) => {$(
        #[tokio::test]
        async fn $case() {
            let (Some(seal), Some(other)) = (($make)().await, ($other)().await) else { return };
            $crate::suite::$case(&*seal, &*other).await;
        }
    )*};
}
pub(crate) use seal_suite;

pub(crate) async fn unwraps_what_it_wrapped(seal: &dyn Seal, _: &dyn Seal) {
    let (one, other) = (random::key(), random::key());
    let (wrapped_one, wrapped_other) = (seal.wrap(&one).await.unwrap(), seal.wrap(&other).await.unwrap());
    assert_eq!(seal.unwrap(&wrapped_one).await.unwrap().expose(), one.expose());
    assert_eq!(seal.unwrap(&wrapped_other).await.unwrap().expose(), other.expose());
    assert!(wrapped_one.key_id.len() <= 1024 && !wrapped_one.key_id.is_empty() && wrapped_one.blob.len() <= 16 * 1024);
    if let Some(current) = seal.current_key().await.unwrap() {
        assert_eq!(current, wrapped_one.key_id);
    }
}

pub(crate) async fn wraps_one_key_differently_each_time(seal: &dyn Seal, _: &dyn Seal) {
    let key = random::key();
    let wraps = if seal.kind() == "static" { 10_000 } else { 20 };
    let mut seen = HashSet::new();
    for _ in 0..wraps {
        let blob = seal.wrap(&key).await.unwrap().blob;
        assert!(!blob.windows(32).any(|bytes| bytes == key.expose()), "the key is in clear");
        assert!(seen.insert(blob));
    }
}

pub(crate) async fn refuses_what_another_key_wrapped(seal: &dyn Seal, other: &dyn Seal) {
    let foreign = other.wrap(&random::key()).await.unwrap();
    assert_eq!(seal.unwrap(&foreign).await.err().unwrap().class, SealErrorClass::WrongKey);
}

pub(crate) async fn refuses_a_damaged_wrapping(seal: &dyn Seal, _: &dyn Seal) {
    let whole = seal.wrap(&random::key()).await.unwrap();
    let step = (whole.blob.len() / 24).max(1);
    let flipped = (0..whole.blob.len()).step_by(step).map(|at| {
        let mut bytes = whole.blob.to_vec();
        bytes[at] ^= 1;
        bytes
    });
    let shortened = (0..whole.blob.len()).step_by(step).map(|length| whole.blob[..length].to_vec());
    let lengthened = [[&whole.blob[..], b"0"].concat()];
    for damaged in flipped.chain(shortened).chain(lengthened) {
        let wrapped = WrappedKey { blob: Bytes::from(damaged), ..whole.clone() };
        assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::WrongKey);
    }
}

pub(crate) async fn serves_concurrent_callers(seal: &dyn Seal, _: &dyn Seal) {
    let callers = (0..16).map(async |_| {
        let key = random::key();
        let wrapped = seal.wrap(&key).await.unwrap();
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
    });
    futures_util::future::join_all(callers).await;
}

pub(crate) async fn knows_the_ids_of_its_key(seal: &dyn Seal, _: &dyn Seal) {
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    assert!(seal.is_configured_key(&wrapped.key_id).await.unwrap(), "{}", wrapped.key_id);
    // The key of `alicloudkms` may be an alias, of which only `wrap` tells the key.
    let can_tell = seal.kind() != "alicloudkms";
    assert_eq!(seal.is_configured_key("another:v1").await.unwrap(), !can_tell);
}

pub(crate) async fn shows_no_key(seal: &dyn Seal, _: &dyn Seal) {
    let text = format!("{:?}", seal.description());
    for hidden in ["hidden", "0707070707", "BwcHBwcH"] {
        assert!(!text.contains(hidden), "{text}");
    }
}

/// The failures of a service: `make` creates a seal with a timeout and its stand-in, `table` has responses of the
/// service in its own form with the class that each is.
pub(crate) async fn failures_have_their_class(
    make: impl AsyncFn(Duration) -> (Arc<dyn Seal>, StandIn),
    table: &[(u16, &'static str, &str, SealErrorClass)],
) {
    let (seal, service) = make(Duration::from_secs(5)).await;
    let wrapped = seal.wrap(&random::key()).await.unwrap();
    for (status, headers, body, class) in table {
        service.fault(Some(Fault::Reply(*status, headers, (*body).to_owned())));
        for error in [seal.unwrap(&wrapped).await.err().unwrap(), seal.wrap(&random::key()).await.err().unwrap()] {
            assert_eq!(error.class, *class, "{status} {body}: {error}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
    // A proxy redirects: that says nothing of the key.
    service.fault(Some(Fault::Reply(302, "location: http://hidden/\r\n", String::new())));
    assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::Misconfigured);
    // A 400 with an unknown code: only the stored bytes differ from what the service accepted.
    service.fault(Some(Fault::Reply(400, "", "{}".to_owned())));
    assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::WrongKey);
    if seal.kind() != "transit" {
        assert_eq!(seal.wrap(&random::key()).await.err().unwrap().class, SealErrorClass::Misconfigured);
    }
    service.fault(Some(Fault::Close));
    assert_eq!(seal.unwrap(&wrapped).await.err().unwrap().class, SealErrorClass::Unreachable);
    service.fault(None);
    seal.unwrap(&wrapped).await.unwrap();
}

/// A service that does not respond fails the call after the timeout.
pub(crate) async fn a_call_ends_at_its_timeout(make: impl AsyncFn(Duration) -> (Arc<dyn Seal>, StandIn)) {
    let (seal, service) = make(Duration::from_millis(50)).await;
    service.fault(Some(Fault::Hang));
    let error = seal.wrap(&random::key()).await.err().unwrap();
    assert_eq!(error.class, SealErrorClass::Unreachable, "{error}");
}
