//! What goes wrong in the middle of an operation, and how it is mended.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::dice::Dice;
use crate::postgres::Postgres;
use crate::servers::Server;

/// What happens to the server and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    ServerKilled,
    DatabaseStopped,
    DatabaseFrozen,
    /// For longer than the server waits for an answer.
    DatabaseFrozenLong,
    BothStopped,
    /// The server is killed and comes back while the database stands still with what it was told.
    KilledWhileFrozen,
}

impl Fault {
    /// One by chance; the short form leaves out what takes long.
    pub(super) fn draw(dice: &mut Dice, short: bool) -> Self {
        match dice.below(100) {
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
            Fault::ServerKilled => "kills of the server",
            Fault::DatabaseStopped => "stops of the database",
            Fault::DatabaseFrozen => "freezes of the database",
            Fault::DatabaseFrozenLong => "freezes for more than 30 s",
            Fault::BothStopped => "kills with a stop",
            Fault::KilledWhileFrozen => "kills during a freeze",
        }
    }

    /// Lets it happen, and mends it after a while.
    pub(super) fn strike(self, server: &mut Server, database: &mut Postgres, dice: &mut Dice) -> Result<()> {
        let while_it_lasts = Duration::from_millis(dice.below(400) as u64);
        let pause = || std::thread::sleep(while_it_lasts);
        match self {
            Fault::None => {}
            Fault::ServerKilled => {
                server.kill()?;
                open(server)?;
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
                open(server)?;
                pause();
                database.resume()?;
            }
            Fault::KilledWhileFrozen => {
                database.freeze()?;
                server.kill()?;
                open(server)?;
                pause();
                database.thaw()?;
            }
        }
        Ok(())
    }
}

/// Starts a server that was killed, and unseals it.
pub(super) fn open(server: &mut Server) -> Result<()> {
    server.restart().context("it does not start again")?;
    server.unseal().context("it does not open again")
}
