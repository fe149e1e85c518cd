//! Commits and files that fail once.

use super::*;

#[tokio::test]
async fn self_init_sends_again_what_a_503_has_refused() {
    // A 503 is no failure that `allow_failure` allows.
    let allowed = || {
        let allow = |request| PlannedRequest {
            allow_failure: Some(PlannedValue::Literal("true".to_owned().into())),
            ..request
        };
        plan(requests().into_iter().map(allow).collect())
    };
    for after in 0.. {
        let (seal, limited) = (TestSeal::new(), Limited::failing_once(after, StorageError::NoLeader));
        let server = Server::on(limited.clone(), &seal, allowed());
        let mut attempts = Vec::new();
        while !matches!(attempts.last(), Some(Ok(Attempt::Finished))) {
            let is_sealed = server.node.is_initialized().await.unwrap() && server.node.lifecycle.is_sealed();
            if is_sealed {
                round(&server.node.lifecycle).await.unwrap();
            }
            attempts.push(server.attempt().await.map_err(|error| error.status().0));
            assert!(attempts.len() < 4, "{after}: {attempts:?}");
            assert_ne!(attempts.last(), Some(&Ok(Attempt::Failed)), "{after}");
        }
        let is_left = limited.fault.lock().take().is_some();
        assert_configured(&server).await;
        if is_left {
            assert!(after > requests().len(), "each request has a commit");
            return;
        }
        assert_eq!(attempts[0], Err(503), "{after}: {attempts:?}");
    }
}

#[tokio::test]
async fn self_init_ends_when_its_first_commit_may_take_effect_later() {
    let (seal, output) = (TestSeal::new(), Arc::<Output>::default());
    let limited = Limited::failing_once(0, StorageError::Unknown);
    let server = Server::on(limited, &seal, with_recovery(&output));
    for _ in 0..3 {
        assert_eq!(server.attempt().await.unwrap(), Attempt::Failed);
    }
    // A second initialization would have other keys.
    assert_eq!((output.written.lock().len(), output.published.lock().len()), (1, 0));
    assert!(!server.node.is_initialized().await.unwrap());
}

#[tokio::test]
async fn a_file_of_recovery_keys_without_its_name_gets_it_at_a_later_start() {
    let (seal, memory, output) = (TestSeal::new(), Arc::<MemoryBackend>::default(), Arc::<Output>::default());
    output.fails.store(true, Ordering::SeqCst);
    let server = Server::on(memory.clone(), &seal, with_recovery(&output));
    assert_eq!(server.attempt().await.unwrap(), Attempt::Finished);
    assert!(output.published.lock().is_empty());
    drop(server);
    output.fails.store(false, Ordering::SeqCst);
    let server = Server::on(memory, &seal, with_recovery(&output)).unsealed().await;
    assert_eq!(server.attempt().await.unwrap(), Attempt::Idle);
    assert_eq!(*output.published.lock(), ["attempt 1"], "after the end, too");
}
