//! Times the calls of a seal, and counts their failures, for the metrics.

use keepfast_crypto::locked::Key256;
use keepfast_framework::Clock;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};

use super::counts::{Operation, SealCounts};

/// A seal with the counts of its calls.
pub(super) struct Metered<'a> {
    pub(super) seal: &'a dyn Seal,
    pub(super) counts: &'a SealCounts,
    pub(super) clock: &'a dyn Clock,
}

impl Metered<'_> {
    async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, SealError>>,
    ) -> Result<T, SealError> {
        let began = self.clock.now();
        let result = call.await;
        self.counts.ran(operation, self.clock.now().since(began));
        if let Err(error) = &result {
            self.counts.failed(operation, error.class);
        }
        result
    }

    pub(super) async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        self.run(Operation::Wrap, self.seal.wrap(key)).await
    }

    pub(super) async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        self.run(Operation::Unwrap, self.seal.unwrap(wrapped)).await
    }

    pub(super) async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.run(Operation::CurrentKey, self.seal.current_key()).await
    }

    pub(super) async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        self.run(Operation::CurrentKey, self.seal.is_configured_key(key_id)).await
    }
}
