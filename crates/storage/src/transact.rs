//! Transactions with retries after a conflict.

use std::sync::Arc;

use crate::{Barrier, StorageError, Tx};

/// Maximum number of tries of a transaction. Each conflict means that another commit succeeded, so a transaction that
/// fails this often conflicts with itself.
const TRIES: usize = 4096;

/// The error of a closure that runs in a transaction.
pub trait TxError: From<StorageError> {
    /// Whether the transaction can run again: [`StorageError::may_run_again`].
    fn is_conflict(&self) -> bool;
}

impl TxError for StorageError {
    fn is_conflict(&self) -> bool {
        self.may_run_again()
    }
}

/// Counts the tries of an operation that is retried after a conflict.
#[derive(Debug, Default)]
pub struct Tries(usize);

impl Tries {
    /// Evaluates the result of a try. `None` after a conflict: the operation must be retried.
    ///
    /// # Errors
    /// The error, if it is no conflict; [`StorageError::Contended`] after too many conflicts.
    pub fn settle<T, E: TxError>(&mut self, outcome: Result<T, E>) -> Result<Option<T>, E> {
        match outcome {
            Err(error) if error.is_conflict() => {
                self.0 += 1;
                if self.0 < TRIES { Ok(None) } else { Err(StorageError::Contended.into()) }
            }
            other => other.map(Some),
        }
    }
}

impl Barrier {
    /// Runs `attempt` in a transaction, which it returns with its result, and commits; after a conflict it runs again
    /// in a new one. Side effects of `attempt` outside the transaction must tolerate repetition. When it fails, nothing
    /// is written.
    ///
    /// # Errors
    /// Those of `attempt` and of [`Tx::commit`], except conflicts; [`StorageError::Contended`] after too many
    /// conflicts.
    pub async fn transact<T, E, F>(self: &Arc<Self>, mut attempt: impl FnMut(Tx) -> F) -> Result<T, E>
    where
        E: TxError,
        F: Future<Output = Result<(Tx, T), E>>,
    {
        let mut tries = Tries::default();
        loop {
            let outcome = match attempt(self.begin()).await {
                Ok((tx, done)) => tx.commit().await.map(|_| done).map_err(E::from),
                Err(error) => Err(error),
            };
            if let Some(done) = tries.settle(outcome)? {
                return Ok(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tx::tests::{barrier, write};

    #[tokio::test]
    async fn a_transaction_that_conflicts_runs_again_in_a_new_one() {
        let (barrier, _) = barrier().await;
        let view = &barrier.view("a");
        let mut tries = 0;
        let seen = barrier.transact(|mut tx| {
            tries += 1;
            let (barrier, number) = (&barrier, tries);
            async move {
                let seen = tx.get(view, "k").await?;
                if number < 3 {
                    write(barrier, view, "k", if number == 1 { "one" } else { "two" }).await;
                }
                tx.put(view, &format!("try-{number}"), "v".into());
                Ok::<_, StorageError>((tx, seen))
            }
        });
        assert_eq!(seen.await.unwrap().unwrap(), "two");
        assert_eq!(tries, 3);
        let names = barrier.begin_read().list(view, "", &crate::Page::all()).await.unwrap();
        assert_eq!(names, ["k", "try-3"], "tries before the last one write nothing");
    }

    #[tokio::test]
    async fn endless_conflicts_are_an_error_that_is_no_conflict() {
        let (barrier, _) = barrier().await;
        let mut tries = 0;
        let outcome = barrier.transact(|_| {
            tries += 1;
            async { Err::<(Tx, ()), _>(StorageError::Conflict) }
        });
        assert!(matches!(outcome.await, Err(StorageError::Contended)));
        assert_eq!(tries, TRIES);
    }

    #[tokio::test]
    async fn a_transaction_that_fails_writes_nothing_and_is_not_repeated() {
        let (barrier, _) = barrier().await;
        let view = barrier.view("a");
        let mut tries = 0;
        let outcome = barrier.transact(|mut tx| {
            tries += 1;
            tx.put(&view, "k", "v".into());
            async { Err::<(Tx, ()), _>(StorageError::Full) }
        });
        assert!(matches!(outcome.await, Err(StorageError::Full)));
        assert_eq!(tries, 1);
        assert_eq!(barrier.begin_read().get(&view, "k").await.unwrap(), None);
    }
}
