//! The counter of a lease count quota: the sum of [`SHARDS`] records, which concurrent requests seldom share.
//!
//! Each shard has a room, up to which it counts without a look at the others. Either the rooms add up to the maximum and
//! no shard is above its room, or all shards are closed, because the counter is above the maximum: leases that are older
//! than the quota count beyond it. In both cases a request that finds no room reads all shards and levels them, so that
//! the counter is never raised beyond the maximum, and no request is refused below it. A release lowers any shard, so a
//! shard can be negative.

use std::sync::Arc;

use keepfast_framework::{Records, Result};
use keepfast_storage::{Barrier, ReadTx, Tx, View};
use serde::{Deserialize, Serialize};

use crate::unreadable::{self, Stored};

/// The number of records of a counter.
pub(crate) const SHARDS: usize = 64;
/// The shards, by the id of the counter and their number.
const RECORDS: Records<Shard> = Records::at("quotas/lease-counter/");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shard {
    /// The part of the counter.
    used: i64,
    /// Up to where it may be raised; `None` while the counter is above the maximum.
    room: Option<i64>,
}

/// The result of counting one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It is counted.
    Yes,
    /// The maximum is reached.
    Full,
    /// There is no such counter any more.
    Gone,
}

/// The counter with this id, below the view of `sys/`.
#[derive(Clone, Copy)]
pub(crate) struct Counter<'a> {
    pub(crate) view: &'a View,
    pub(crate) id: &'a str,
}

impl Shard {
    fn has_room(self) -> bool {
        self.room.is_some_and(|room| self.used < room)
    }
}

/// The part of the shard `at` when `total` is spread over all shards.
fn part(total: i64, at: usize) -> i64 {
    let (shards, at) = (SHARDS as i64, at as i64);
    total.div_euclid(shards) + i64::from(at < total.rem_euclid(shards))
}

impl Counter<'_> {
    fn key(&self, at: usize) -> String {
        format!("{}/{at:02}", self.id)
    }

    /// Creates the counter at zero.
    ///
    /// # Errors
    /// When a record cannot be serialized.
    pub(crate) fn create(&self, tx: &mut Tx, max: u64) -> Result<()> {
        self.level(tx, 0, max)
    }

    /// Deletes the counter. Leases that it has counted are released without effect.
    pub(crate) fn delete(&self, tx: &mut Tx) {
        (0..SHARDS).for_each(|at| RECORDS.delete_in(tx, self.view, &self.key(at)));
    }

    /// The number of counted leases; `None` without such a counter.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn total(&self, tx: &mut ReadTx) -> Result<Option<i64>> {
        let mut total = 0;
        for at in 0..SHARDS {
            let Some(shard) = RECORDS.get_in(tx, self.view, &self.key(at)).await? else { return Ok(None) };
            total += shard.used;
        }
        Ok(Some(total))
    }

    /// Changes the maximum.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn set_max(&self, tx: &mut Tx, max: u64) -> Result<()> {
        match self.total(tx).await? {
            Some(total) => self.level(tx, total, max),
            None => Ok(()),
        }
    }

    /// Counts a lease that exists once `tx` is committed, at the shard `first` if that has room. With `is_forced` also
    /// beyond the maximum.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn add(
        &self,
        tx: &mut Tx,
        barrier: &Arc<Barrier>,
        (max, is_forced): (u64, bool),
        first: usize,
    ) -> Result<Counted> {
        // Of a damaged shard the counter is unknown, so that only the shards with room count on.
        let shard = match self.shard(tx, first).await? {
            Stored::Absent => return Ok(Counted::Gone),
            Stored::Unreadable => Shard { used: 0, room: Some(0) },
            Stored::Record(shard) => shard,
        };
        if shard.has_room() || (is_forced && shard.room.is_none()) {
            return self.raise(tx, first, shard);
        }
        if shard.room.is_some() {
            // Other shards are read outside the transaction, which then depends on one of them only.
            let mut other = barrier.begin_read();
            for at in (1..SHARDS).map(|step| (first + step) % SHARDS) {
                let seen = self.shard(&mut other, at).await?.readable();
                if seen.is_none_or(|seen| !seen.has_room()) {
                    continue;
                }
                if let Some(shard) = self.shard(tx, at).await?.readable().filter(|shard| shard.has_room()) {
                    return self.raise(tx, at, shard);
                }
            }
        }
        let Some(total) = self.total(tx).await? else { return Ok(Counted::Gone) };
        if total >= limit(max) && !is_forced {
            return Ok(Counted::Full);
        }
        self.level(tx, total + 1, max)?;
        Ok(Counted::Yes)
    }

    /// Releases a counted lease, at the shard `first` or the next readable one: no damaged shard prevents a revocation.
    /// No effect without such a counter.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn release(&self, tx: &mut Tx, first: usize) -> Result<()> {
        for at in (0..SHARDS).map(|step| (first + step) % SHARDS) {
            match self.shard(tx, at).await? {
                Stored::Absent => return Ok(()),
                Stored::Unreadable => {}
                Stored::Record(shard) => {
                    let lower = Shard { used: shard.used - 1, ..shard };
                    return RECORDS.put_in(tx, self.view, &self.key(at), &lower);
                }
            }
        }
        Ok(())
    }

    async fn shard(&self, tx: &mut ReadTx, at: usize) -> Result<Stored<Shard>> {
        unreadable::read((&RECORDS, "shard of a lease counter"), tx, self.view, &self.key(at)).await
    }

    fn raise(&self, tx: &mut Tx, at: usize, shard: Shard) -> Result<Counted> {
        RECORDS.put_in(tx, self.view, &self.key(at), &Shard { used: shard.used + 1, ..shard })?;
        Ok(Counted::Yes)
    }

    /// Spreads the counter and its maximum over all shards. The transaction has read all of them, or creates them.
    fn level(&self, tx: &mut Tx, total: i64, max: u64) -> Result<()> {
        let max = limit(max);
        for at in 0..SHARDS {
            let room = (total <= max).then(|| part(max, at));
            RECORDS.put_in(tx, self.view, &self.key(at), &Shard { used: part(total, at), room })?;
        }
        Ok(())
    }
}

fn limit(max: u64) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::random;

    use super::*;
    use crate::tests::fixture::TestServer;

    #[test]
    fn the_parts_of_all_shards_are_the_total() {
        for total in [-70, -1, 0, 1, 63, 64, 65, 1_000_003] {
            assert_eq!((0..SHARDS).map(|at| part(total, at)).sum::<i64>(), total);
            assert!((0..SHARDS).all(|at| part(total, at) <= part(total + 1, at)), "{total}");
        }
    }

    /// Random steps against a number: added exactly while below the maximum, which also changes.
    #[tokio::test]
    async fn a_counter_is_exact_and_refuses_exactly_at_its_maximum() {
        let server = TestServer::new().await;
        let unsealed = server.unsealed();
        let (barrier, view) = (&unsealed.barrier, unsealed.barrier.view("sys/"));
        let counter = Counter { view: &view, id: "test" };
        let seed = random::bytes::<2048>();
        let mut max = 70;
        let mut tx = barrier.begin();
        counter.create(&mut tx, max).unwrap();
        tx.commit().await.unwrap();
        let mut naive = 0;
        for pair in seed.chunks(2) {
            let (choice, at) = (pair[0], usize::from(pair[1]) % SHARDS);
            let mut tx = barrier.begin();
            match choice {
                0..120 => {
                    let counted = counter.add(&mut tx, barrier, (max, false), at).await.unwrap();
                    let has_room = naive < limit(max);
                    assert_eq!(counted, if has_room { Counted::Yes } else { Counted::Full }, "{naive} of {max}");
                    naive += i64::from(has_room);
                }
                120..150 => {
                    assert_eq!(counter.add(&mut tx, barrier, (max, true), at).await.unwrap(), Counted::Yes);
                    naive += 1;
                }
                150..245 if naive > 0 => {
                    counter.release(&mut tx, at).await.unwrap();
                    naive -= 1;
                }
                _ => {
                    max = u64::from(choice) % 90;
                    counter.set_max(&mut tx, max).await.unwrap();
                }
            }
            tx.commit().await.unwrap();
            assert_eq!(counter.total(&mut barrier.begin_read()).await.unwrap(), Some(naive));
        }
        let mut tx = barrier.begin();
        counter.delete(&mut tx);
        tx.commit().await.unwrap();
        let mut tx = barrier.begin();
        assert_eq!(counter.add(&mut tx, barrier, (max, false), 0).await.unwrap(), Counted::Gone);
        counter.release(&mut tx, 0).await.unwrap();
        assert!(!tx.is_dirty());
    }
}
