//! kill -9 under concurrent writes: whatever was acknowledged is there after the restart, and the store always opens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::diary::{self, Diary, check, write};
use super::{Found, Options};
use crate::dice::Dice;
use crate::servers::{Server, Storage};

pub(super) fn run(options: &Options) -> Result<Found> {
    let mut server = Server::start_unsealed(options.on, Storage::Durable)?;
    diary::prepare(&server)?;
    let mut diaries: Vec<Diary> = (0..options.connections).map(|_| Diary::default()).collect();
    let mut found = Found { passed: 0, failures: Vec::new(), numbers: String::new() };
    let mut slowest = Duration::ZERO;
    for round in 0..options.count {
        let mut dice = Dice::of(options.seed, round);
        write_until_killed(&mut server, &mut diaries, round, Duration::from_millis(20 + dice.below(280) as u64))?;
        let begun = Instant::now();
        server.restart().with_context(|| format!("round {round}: it does not start again"))?;
        server.unseal().with_context(|| format!("round {round}: it does not open again"))?;
        slowest = slowest.max(begun.elapsed());
        // Everything of the last rounds each time; everything of all rounds at the end.
        let everything = round + 1 == options.count;
        check(&server, &diaries, round, everything, &mut found)?;
        let refused = diaries.iter_mut().flat_map(|d| d.refused.drain(..));
        found.failures.extend(refused.map(|(_, what)| format!("round {round}: refused: {what}")));
    }
    let (acknowledged, counters) = diary::acknowledged(&diaries);
    found.numbers = format!(
        "{} kills, {} writers, {acknowledged} records and {counters} counter steps acknowledged, {} checks, open again after at most {} ms",
        options.count,
        options.connections,
        found.passed,
        slowest.as_millis()
    );
    Ok(found)
}

/// All writers write until the server is gone.
fn write_until_killed(server: &mut Server, diaries: &mut [Diary], round: u64, life: Duration) -> Result<()> {
    let over = AtomicBool::new(false);
    let (url, root) = (server.url.clone(), server.root.clone());
    std::thread::scope(|scope| -> Result<()> {
        for (writer, diary) in diaries.iter_mut().enumerate() {
            let (url, root, over) = (&url, &root, &over);
            scope.spawn(move || {
                let mut step = 0;
                while !over.load(Ordering::Relaxed) && write(url, root, writer, round, step, diary).is_ok() {
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
