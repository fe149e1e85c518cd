//! kill -9 under concurrent writes: every acknowledged write is there after the restart, and the store always opens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::write_log::{self, WriteLog, check, write};
use super::{Findings, Options};
use crate::rng::Rng;
use crate::servers::{Server, Storage};

pub(super) fn run(options: &Options) -> Result<Findings> {
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
    write_log::prepare(&server)?;
    let mut logs: Vec<WriteLog> = (0..options.connections).map(|_| WriteLog::default()).collect();
    let mut found = Findings { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut slowest = Duration::ZERO;
    for round in 0..options.count {
        let mut rng = Rng::of(options.seed, round);
        write_until_killed(&mut server, &mut logs, round, Duration::from_millis(20 + rng.below(280) as u64))?;
        let started = Instant::now();
        server.restart().with_context(|| format!("round {round}: it does not restart"))?;
        server.unseal().with_context(|| format!("round {round}: it does not unseal"))?;
        slowest = slowest.max(started.elapsed());
        // The writes of the last round each time; those of all rounds at the end.
        let everything = round + 1 == options.count;
        check(&server, &logs, round, everything, &mut found)?;
        let refused = logs.iter_mut().flat_map(|d| d.refused.drain(..));
        found.failures.extend(refused.map(|(_, what)| format!("round {round}: refused: {what}")));
    }
    let (acknowledged, counters) = write_log::acknowledged(&logs);
    found.numbers = format!(
        "{} kills, {} writers, {acknowledged} records and {counters} counter steps acknowledged, {} checks, unsealed after at most {} ms",
        options.count,
        options.connections,
        found.passed,
        slowest.as_millis()
    );
    Ok(found)
}

/// All writers write until the server is killed.
fn write_until_killed(server: &mut Server, logs: &mut [WriteLog], round: u64, life: Duration) -> Result<()> {
    let over = AtomicBool::new(false);
    let (url, root) = (server.url.clone(), server.root.clone());
    std::thread::scope(|scope| -> Result<()> {
        for (writer, log) in logs.iter_mut().enumerate() {
            let (url, root, over) = (&url, &root, &over);
            scope.spawn(move || {
                let mut step = 0;
                while !over.load(Ordering::Relaxed) && write(url, root, writer, round, step, log).is_ok() {
                    step += 1;
                }
            });
        }
        std::thread::sleep(life);
        server.kill()?;
        over.store(true, Ordering::Relaxed);
        Ok(())
    })
}
