//! Faults during an operation, and the recovery from them.

use std::time::Duration;

use anyhow::Result;

use crate::postgres::Postgres;
use crate::rng::Rng;
use crate::served::Served;

/// What happens to the server and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    ServerKilled,
    DatabaseStopped,
    DatabaseFrozen,
    /// Longer than the server's timeout.
    DatabaseFrozenLong,
    BothStopped,
    /// The server is killed and restarts while the database is frozen with pending statements.
    KilledWhileFrozen,
}

impl Fault {
    /// A random fault; the short form omits slow ones.
    pub(super) fn draw(rng: &mut Rng, short: bool) -> Self {
        match rng.below(100) {
            0..15 => Fault::None,
            15..45 => Fault::ServerKilled,
            45..65 => Fault::DatabaseStopped,
            65..80 => Fault::DatabaseFrozen,
            80..83 if !short => Fault::DatabaseFrozenLong,
            80..90 => Fault::BothStopped,
            _ => Fault::KilledWhileFrozen,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::None => "without a fault",
            Fault::ServerKilled => "kills of the server or leader",
            Fault::DatabaseStopped => "stops of the database",
            Fault::DatabaseFrozen => "freezes of the database",
            Fault::DatabaseFrozenLong => "freezes for more than 30 s",
            Fault::BothStopped => "kills with a stop",
            Fault::KilledWhileFrozen => "kills during a freeze",
        }
    }

    /// Causes the fault and recovers from it after a while.
    pub(super) fn strike(self, server: &mut Served, database: &mut Postgres, rng: &mut Rng) -> Result<()> {
        let while_it_lasts = Duration::from_millis(rng.below(400) as u64);
        let pause = || std::thread::sleep(while_it_lasts);
        match self {
            Fault::None => {}
            Fault::ServerKilled => {
                server.kill()?;
                server.open()?;
            }
            Fault::DatabaseStopped => {
                database.stop()?;
                pause();
                database.resume()?;
            }
            Fault::DatabaseFrozen => {
                database.freeze()?;
                pause();
                database.thaw()?;
            }
            Fault::DatabaseFrozenLong => {
                database.freeze()?;
                std::thread::sleep(Duration::from_secs(33));
                database.thaw()?;
            }
            Fault::BothStopped => {
                server.kill()?;
                database.stop()?;
                server.open()?;
                pause();
                database.resume()?;
            }
            Fault::KilledWhileFrozen => {
                database.freeze()?;
                server.kill()?;
                server.open()?;
                pause();
                database.thaw()?;
            }
        }
        Ok(())
    }
}
