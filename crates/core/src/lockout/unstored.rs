//! Changes that wait to be stored: while one commit is under way the others gather, and the next one stores them all.

use std::collections::BTreeMap;

use keepfast_framework::Result;
use parking_lot::Mutex;

use super::Change;

/// The most changes of one commit.
const MOST: usize = 500;

/// The changes that wait.
#[derive(Default)]
pub(super) struct Unstored {
    waiting: Mutex<Waiting>,
    /// Held during a commit, so that the last one has the latest state.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    /// The number of the last change.
    last: u64,
    /// The changes that are not stored, by number.
    changes: BTreeMap<u64, (String, Change)>,
}

impl Unstored {
    /// Stores a change, alone or with others. `store` writes the state that the names of changes have when it runs.
    ///
    /// Fails with the error of `store`.
    pub(super) async fn store<F: Future<Output = Result<()>> + Send>(
        &self,
        change: (String, Change),
        store: impl Fn(Vec<(String, Change)>) -> F + Send + Sync,
    ) -> Result<()> {
        let number = {
            let mut waiting = self.waiting.lock();
            waiting.last += 1;
            let number = waiting.last;
            waiting.changes.insert(number, change);
            number
        };
        let entry = Entry { of: self, number };
        let _alone = self.storing.lock().await;
        while entry.waits() {
            let (numbers, changes): (Vec<u64>, Vec<_>) = {
                let waiting = self.waiting.lock();
                waiting.changes.iter().take(MOST).map(|(number, change)| (*number, change.clone())).unzip()
            };
            store(changes).await?;
            let mut waiting = self.waiting.lock();
            numbers.iter().for_each(|number| {
                waiting.changes.remove(number);
            });
        }
        Ok(())
    }
}

/// A change that waits until this is dropped.
struct Entry<'a> {
    of: &'a Unstored,
    number: u64,
}

impl Entry<'_> {
    fn waits(&self) -> bool {
        self.of.waiting.lock().changes.contains_key(&self.number)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.of.waiting.lock().changes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use keepfast_framework::Error;
    use tokio::sync::Notify;

    use super::*;

    fn user(number: usize) -> (String, Change) {
        ("a".to_owned(), Change::User(number.to_string()))
    }

    #[tokio::test]
    async fn changes_that_wait_for_a_commit_are_stored_by_one_more() {
        let unstored = Arc::<Unstored>::default();
        let (sizes, open, reached) =
            (Arc::<Mutex<Vec<usize>>>::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let stores = |number: usize| {
            let (unstored, sizes, open, reached) = (unstored.clone(), sizes.clone(), open.clone(), reached.clone());
            let store = move |changes: Vec<_>| {
                sizes.lock().push(changes.len());
                reached.notify_one();
                let open = open.clone();
                async move {
                    open.notified().await;
                    Ok(())
                }
            };
            tokio::spawn(async move { unstored.store(user(number), store).await })
        };
        let first = stores(0);
        reached.notified().await;
        let others: Vec<_> = (1..=MOST + 1).map(stores).collect();
        while unstored.waiting.lock().changes.len() < MOST + 2 {
            tokio::task::yield_now().await;
        }
        let mut waiting: Vec<_> = others.into_iter().chain([first]).collect();
        while let Some(stored) = waiting.pop() {
            while !stored.is_finished() {
                open.notify_one();
                tokio::task::yield_now().await;
            }
            stored.await.unwrap().unwrap();
        }
        let sizes = sizes.lock().clone();
        assert_eq!((sizes[0], sizes.iter().sum::<usize>()), (1, MOST + 2), "{sizes:?}");
        assert!(sizes.len() <= 3 && unstored.waiting.lock().changes.is_empty(), "{sizes:?}");
    }

    #[tokio::test]
    async fn an_error_is_of_each_change_that_it_concerns_and_leaves_nothing() {
        let unstored = Unstored::default();
        let runs = AtomicUsize::new(0);
        let store = |changes: Vec<_>| {
            assert_eq!(changes.len(), 1);
            let is_first = runs.fetch_add(1, Ordering::Relaxed) == 0;
            std::future::ready(if is_first { Err(Error::internal("full")) } else { Ok(()) })
        };
        assert!(unstored.store(user(1), &store).await.is_err());
        assert!(unstored.store(user(2), &store).await.is_ok());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }
}
