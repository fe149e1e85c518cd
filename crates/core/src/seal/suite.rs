//! The tests that every seal passes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::random;
use serde_json::json;

use super::wrap::{Seal, SealError, Wrapped};
use super::{SealConfig, SealKind, SealShape};
use crate::init::initialize_under;
use crate::tests::fixture::TestServer;

/// Generates one test of every case for a seal: `seal_suite!(name, || a seal with a key of its own);`
macro_rules! seal_suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;
            $crate::seal::suite::seal_suite!(@cases $make;
                unwraps_what_it_wrapped, wraps_one_key_differently_each_time, refuses_what_another_key_wrapped,
                refuses_a_damaged_wrapping, a_root_key_moves_to_another_wrapping, unseals_and_names_itself_in_seal_status);
        }
    };
    (@cases $make:expr; $($case:ident),*) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::seal::suite::$case(&|| -> std::sync::Arc<dyn $crate::seal::Seal> { $make() }).await;
        }
    )*};
}
pub(crate) use seal_suite;

/// Creates a seal with a key of its own.
pub(crate) type Make<'a> = &'a (dyn Fn() -> Arc<dyn Seal> + Sync);

const SHAPE: SealShape = SealShape { shares: 3, threshold: 2 };

pub(crate) async fn unwraps_what_it_wrapped(make: Make<'_>) {
    let seal = make();
    let (one, other) = (random::key(), random::key());
    let (wrapped_one, wrapped_other) = (seal.wrap(&one).await.unwrap(), seal.wrap(&other).await.unwrap());
    assert_eq!(seal.unwrap(&wrapped_one).await.unwrap().expose(), one.expose());
    assert_eq!(seal.unwrap(&wrapped_other).await.unwrap().expose(), other.expose());
}

pub(crate) async fn wraps_one_key_differently_each_time(make: Make<'_>) {
    let seal = make();
    let key = random::key();
    let (first, second) = (seal.wrap(&key).await.unwrap(), seal.wrap(&key).await.unwrap());
    assert_ne!(first.0, second.0);
    assert!(!first.0.windows(key.expose().len()).any(|bytes| bytes == key.expose()), "the key is in clear");
}

pub(crate) async fn refuses_what_another_key_wrapped(make: Make<'_>) {
    let wrapped = make().wrap(&random::key()).await.unwrap();
    assert_eq!(make().unwrap(&wrapped).await.err(), Some(SealError::WrongKey));
}

pub(crate) async fn refuses_a_damaged_wrapping(make: Make<'_>) {
    let seal = make();
    let whole = seal.wrap(&random::key()).await.unwrap().0;
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    });
    let shortened = (0..whole.len()).map(|length| whole[..length].to_vec());
    let lengthened = [[&whole[..], &[0]].concat()];
    for damaged in flipped.chain(shortened).chain(lengthened) {
        assert!(seal.unwrap(&Wrapped(damaged)).await.is_err());
    }
}

pub(crate) async fn a_root_key_moves_to_another_wrapping(make: Make<'_>) {
    let (old, new) = (make(), make());
    let (root, next_root) = (random::key(), random::key());
    let stored = SealConfig::new(&*old, &root, SHAPE, "c".into(), "i".into()).await.unwrap();
    let under_new = stored.rewrapped(&*new, &root).await.unwrap();
    assert_eq!(under_new.unwrap(&*new).await.unwrap().unwrap().expose(), root.expose());
    assert!(under_new.unwrap(&*old).await.unwrap().is_none());
    let next = stored.rewrapped(&*old, &next_root).await.unwrap();
    assert_eq!(next.unwrap(&*old).await.unwrap().unwrap().expose(), next_root.expose());
    // The rest of the record is unchanged.
    for moved in [under_new, next] {
        assert_ne!(STANDARD.decode(&moved.sealed_root).unwrap(), STANDARD.decode(&stored.sealed_root).unwrap());
        assert_eq!((moved.shape, moved.cluster_id, moved.kind), (SHAPE, "i".to_owned(), old.kind()));
    }
}

pub(crate) async fn unseals_and_names_itself_in_seal_status(make: Make<'_>) {
    let seal = make();
    let name = seal.kind().name();
    assert_eq!(SealKind::parse(name), Some(seal.kind()));
    assert_eq!(serde_json::to_value(seal.kind()).unwrap(), json!(name));
    let server = TestServer::uninitialized();
    let lifecycle = &server.node.lifecycle;
    initialize_under(lifecycle, seal.clone(), SHAPE, None).await.unwrap();
    assert!(!lifecycle.unseal_by(|_| Some(make())).await.unwrap(), "another key has unsealed the server");
    let status = async || server.get("sys/seal-status", "").await.ok().body;
    let sealed = status().await;
    assert_eq!((&sealed["type"], &sealed["sealed"]), (&json!(name), &json!(true)));
    assert!(lifecycle.unseal_by(|_| Some(seal)).await.unwrap());
    let unsealed = status().await;
    assert_eq!((&unsealed["type"], &unsealed["sealed"]), (&json!(name), &json!(false)));
}
