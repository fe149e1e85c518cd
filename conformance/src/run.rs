//! Runs scenarios on a server and reports what did not hold.

use anyhow::Result;

use crate::http::Client;
use crate::matching::differences;
use crate::play::{Play, fill_expect};
use crate::scenario::{Expect, Loaded, Needs, Step};
use crate::servers::{Make, Server, Storage};

/// How many steps held and did not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps that answered as expected.
    pub passed: usize,
    /// Steps that did not, or could not be sent.
    pub failed: usize,
    /// Steps of scenarios that are pending, or need a server of their own where only a URL was given.
    pub skipped: usize,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Where scenarios run.
pub enum Ground {
    /// A server that somebody else started: base URL and root token.
    Given {
        /// Which server it is, for the steps that differ.
        make: Make,
        /// The base URL.
        url: String,
        /// The root token.
        root: String,
    },
    /// Servers that we start: one for all, and one each for the scenarios that need their own.
    Started {
        /// Which.
        make: Make,
        /// With what storage.
        storage: Storage,
        /// The one for all.
        shared: Server,
    },
}

impl Ground {
    /// Starts the server for all.
    pub fn start(make: Make, storage: Storage) -> Result<Self> {
        Ok(Self::Started { make, storage, shared: Server::start_unsealed(make, storage)? })
    }

    /// Which server it is.
    pub fn make(&self) -> Make {
        match self {
            Self::Given { make, .. } | Self::Started { make, .. } => *make,
        }
    }

    /// Calls `then` with a client and the root token of a fitting server; `None` when there is none to be had.
    pub fn with_client<T>(&self, needs: Needs, then: impl FnOnce(&mut Client, &str) -> T) -> Result<Option<T>> {
        let own = match (self, needs) {
            (Self::Given { url, root, .. }, Needs::Shared) => return Ok(Some(then(&mut Client::new(url)?, root))),
            (Self::Given { .. }, _) => return Ok(None),
            (Self::Started { shared, .. }, Needs::Shared) => {
                return Ok(Some(then(&mut shared.client()?, &shared.root)));
            }
            (Self::Started { make, storage, .. }, Needs::Own) => Server::start_unsealed(*make, *storage)?,
            (Self::Started { make, storage, .. }, Needs::Uninitialized) => Server::start(*make, *storage)?,
            (Self::Started { make, storage, .. }, Needs::Open) => Server::start_open(*make, *storage)?,
        };
        Ok(Some(then(&mut own.client()?, &own.root)))
    }
}

/// Runs all scenarios but those that are `pending` (parts of names), printing what fails and, if asked, a line for each.
pub fn run_all(ground: &Ground, scenarios: &[Loaded], pending: &[String], verbose: bool) -> Result<Counts> {
    let mut total = Counts::default();
    for loaded in scenarios {
        if pending.iter().any(|part| loaded.name.contains(part.as_str())) {
            total.skipped += loaded.scenario.steps.len();
            continue;
        }
        let ran =
            ground.with_client(loaded.scenario.needs, |client, root| run_one(client, root, ground.make(), loaded));
        let counts = match ran {
            Ok(Some(counts)) => counts,
            Ok(None) => Counts { skipped: loaded.scenario.steps.len(), ..Counts::default() },
            Err(error) => {
                println!("FAIL {} on {}: {error:#}", loaded.name, ground.make().name());
                Counts { failed: loaded.scenario.steps.len(), ..Counts::default() }
            }
        };
        if verbose {
            println!("{:>4} passed {:>3} failed  {}", counts.passed, counts.failed, loaded.name);
        }
        total.add(counts);
    }
    Ok(total)
}

fn run_one(client: &mut Client, root: &str, make: Make, loaded: &Loaded) -> Counts {
    let mut counts = Counts::default();
    let mut play = match Play::begin(client, root, &loaded.scenario) {
        Ok(play) => play,
        Err(error) => {
            println!("FAIL {} on {}: {error:#}", loaded.name, make.name());
            return Counts { failed: loaded.scenario.steps.len(), ..counts };
        }
    };
    for (index, step) in loaded.scenario.steps.iter().enumerate() {
        let misses = run_step(&mut play, step, make);
        if misses.is_empty() {
            counts.passed += 1;
            continue;
        }
        counts.failed += 1;
        println!("FAIL {} on {}, step {}: {}", loaded.name, make.name(), index + 1, title(step));
        for miss in misses {
            println!("     {miss}");
        }
    }
    play.end();
    counts
}

fn run_step(play: &mut Play<'_>, step: &Step, make: Make) -> Vec<String> {
    let Some(expect) = expectation(step, make) else { return vec!["the step expects nothing: record it".to_owned()] };
    let answer =
        match play.send(step, |variables, answer| differences(&fill_expect(variables, expect), answer).is_empty()) {
            Ok(answer) => answer,
            Err(error) => return vec![format!("{error:#}")],
        };
    let captured = play.capture(step, &answer);
    let mut misses = differences(&fill_expect(&play.variables, expect), &answer);
    if let Err(error) = captured {
        misses.push(error.to_string());
    }
    misses
}

/// What a server of that make must answer.
pub fn expectation(step: &Step, make: Make) -> Option<&Expect> {
    match (&step.differs, make) {
        (Some(differs), Make::Peer) => Some(&differs.peer),
        _ => step.expect.as_ref(),
    }
}

/// A step in a line: method, path, note.
pub fn title(step: &Step) -> String {
    let (method, path) = step.target().unwrap_or(("?", "?"));
    let note = step.note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    format!("{method} {path}{note}")
}
