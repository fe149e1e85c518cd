//! The fuzz targets on stable Rust, without coverage: `short [--seconds N] [--seed S] [TARGET…]`. Inputs are made from valid ones by a seeded
//! generator, so that a finding can be repeated; the last line is `N passed, N failed`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool: it prints, and it stops by the clock")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use conformance::rng::Rng;
use keepfast_fuzz::{TARGETS, Target};
use rustix::time::{ClockId, clock_gettime};

/// The stack that a worker of the server has, in bytes.
const STACK: usize = 2 * 1024 * 1024;
/// The most seconds of processor time for one input, which has at most 20,000 bytes.
const LONGEST: i64 = 2;

fn main() -> ExitCode {
    let (mut seconds, mut seed, mut only) = (60, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(seconds),
            "--seed" => seed = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(seed),
            name => only.push(name.to_owned()),
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut failed) = (0, 0);
    for target in TARGETS.iter().filter(|target| only.is_empty() || only.iter().any(|name| name == target.0)) {
        let run = || fuzz(target, seed, Duration::from_secs(seconds));
        let is_good = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
            thread.is_ok_and(|thread| thread.join().unwrap_or(false))
        });
        if is_good { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one target until its time is over; false with the input printed when a property broke.
fn fuzz((name, function, corpus): &Target, seed: u64, time: Duration) -> bool {
    let end = Instant::now() + time;
    let mut item = 0;
    while Instant::now() < end {
        // The clock is read once for many inputs.
        for _ in 0..64 {
            let input = input(&mut Rng::of(seed, item), corpus, item);
            let begin = clock_gettime(ClockId::ThreadCPUTime).tv_sec;
            let result = catch_unwind(|| function(&input));
            let spent = clock_gettime(ClockId::ThreadCPUTime).tv_sec - begin;
            let fault = match &result {
                Err(cause) => {
                    let text = cause.downcast_ref::<String>().map(String::as_str);
                    text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
                }
                Ok(()) if spent > LONGEST => format!("it costs {spent} seconds of processor time"),
                Ok(()) => String::new(),
            };
            if !fault.is_empty() {
                println!(
                    "FAIL {name}, seed {seed}, input {item}: {fault}\n     {input:?}\n     {:?}",
                    String::from_utf8_lossy(&input)
                );
                return false;
            }
            item += 1;
        }
    }
    println!("{name}: {item} inputs");
    true
}

/// A valid input, spoilt a little; the first ones are unspoilt.
fn input(rng: &mut Rng, corpus: &[&str], item: u64) -> Vec<u8> {
    const TOKENS: [&str; 20] = [
        "\"", "{", "}", "[", "]", "=", ",", "\n", "#", "/*", "<<E\n", "${", "\\u", "*", "+", "..", "/", "null", "1e9",
        "\u{fffd}",
    ];
    if let Some(whole) = corpus.get(item as usize) {
        return whole.as_bytes().to_vec();
    }
    let mut bytes = rng.pick(corpus).as_bytes().to_vec();
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() + 1);
        let until = (at + rng.below(16)).min(bytes.len());
        match rng.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 => drop(bytes.splice(at..at, rng.pick(&TOKENS).bytes())),
            2 => drop(bytes.drain(at..until)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..until].to_vec();
                for _ in 0..rng.below(60) {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            5 => drop(bytes.splice(at..until, rng.pick(corpus).bytes())),
            _ => {
                let random: Vec<u8> = (0..rng.below(12)).map(|_| rng.draw() as u8).collect();
                bytes.splice(at..until, random);
            }
        }
        bytes.truncate(20_000);
    }
    bytes
}
