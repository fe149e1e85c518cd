//! Runs scenarios on a server and reports the failed steps.

use anyhow::Result;

use crate::balancer::Balanced;
use crate::http::Client;
use crate::matching::differences;
use crate::one_node::OneNodeOnly;
use crate::play::{Play, Refused, fill_expect};
use crate::scenario::{Expect, Loaded, Needs, Step};
use crate::seals::{SealKind, SealServices};
use crate::servers::{Make, Server, Storage};

/// The numbers of passed and failed steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps with the expected response.
    pub passed: usize,
    /// Steps with another response, or that could not be sent.
    pub failed: usize,
    /// Steps of scenarios that are pending, or that need a server that is not available; and steps for one node only with
    /// another response from a cluster.
    pub skipped: usize,
    /// Requests that were sent again after an error for which clients do so.
    pub repeated: usize,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.repeated += other.repeated;
    }
}

/// The servers on which scenarios run.
pub enum Target {
    /// A running server: base URL and root token.
    Running {
        /// The kind of the server, for steps that differ.
        make: Make,
        /// The base URL.
        url: String,
        /// The root token.
        root: String,
    },
    /// Servers that are started here: a shared one, and one for each scenario that needs its own.
    Started {
        /// The kind of the servers.
        make: Make,
        /// Their storage.
        storage: Storage,
        /// The shared server.
        shared: Server,
    },
    /// A Keepfast that two seals unseal, for scenarios of a shared server.
    Sealed {
        /// The server.
        shared: Server,
        /// The services of its seals.
        services: Box<SealServices>,
    },
    /// Clusters of Keepfast behind a load balancer: a shared one, and one for each scenario that needs its own.
    Balanced {
        /// The shared cluster.
        shared: Box<Balanced>,
        /// Steps that may have another response there.
        one_node_only: OneNodeOnly,
        /// Whether nodes of the shared cluster are killed, so that requests are repeated as clients repeat them.
        retries: bool,
    },
}

impl Target {
    /// Starts the shared server.
    pub fn start(make: Make, storage: Storage) -> Result<Self> {
        Ok(Self::Started { make, storage, shared: Server::start_unsealed(make, storage)? })
    }

    /// Starts a server, initializes it with the seals `static` and `transit`, and restarts it, so that they unseal it.
    pub fn start_sealed() -> Result<Self> {
        let services = Box::new(SealServices::start()?);
        let kinds = [SealKind::Static, SealKind::Transit];
        let stanzas: String = kinds.iter().map(|kind| services.stanza(*kind, "")).collect();
        let mut shared = services.serve(None, &stanzas, Vec::new())?;
        shared.init_with_seals(3, 2)?;
        shared.terminate()?;
        shared.restart()?;
        shared.wait_until_serving()?;
        Ok(Self::Sealed { shared, services })
    }

    /// The kind of the server.
    pub fn make(&self) -> Make {
        match self {
            Self::Running { make, .. } | Self::Started { make, .. } => *make,
            Self::Balanced { .. } | Self::Sealed { .. } => Make::Keepfast,
        }
    }

    fn may_differ(&self, loaded: &Loaded, step: &Step) -> bool {
        let Self::Balanced { one_node_only, .. } = self else { return false };
        one_node_only.may_differ(&loaded.name, &title(step))
    }

    fn retries(&self) -> bool {
        matches!(self, Self::Balanced { retries: true, .. })
    }

    /// Calls `then` with a client and the root token of a suitable server; `None` when there is none.
    pub fn with_client<T>(&self, needs: Needs, then: impl FnOnce(&mut Client, &str) -> T) -> Result<Option<T>> {
        let own = match (self, needs) {
            (Self::Running { url, root, .. }, Needs::Shared) => return Ok(Some(then(&mut Client::new(url)?, root))),
            (Self::Balanced { shared, .. }, Needs::Shared) => {
                return Ok(Some(then(&mut shared.client()?, shared.root())));
            }
            (Self::Balanced { retries: false, .. }, Needs::Own) => {
                let own = Balanced::start(Make::Keepfast)?;
                return Ok(Some(then(&mut own.client()?, own.root())));
            }
            // A node that is not initialized has no cluster; and only nodes of the shared cluster are killed.
            (Self::Sealed { shared, .. }, Needs::Shared) => return Ok(Some(then(&mut shared.client()?, &shared.root))),
            (Self::Running { .. } | Self::Balanced { .. } | Self::Sealed { .. }, _) => return Ok(None),
            (Self::Started { shared, .. }, Needs::Shared) => {
                return Ok(Some(then(&mut shared.client()?, &shared.root)));
            }
            (Self::Started { make, storage, .. }, Needs::Own) => Server::start_unsealed(*make, *storage)?,
            (Self::Started { make, storage, .. }, Needs::Uninitialized) => Server::start(*make, *storage)?,
            (Self::Started { make, storage, .. }, Needs::Open) => Server::start_open(*make, *storage)?,
            (Self::Started { make, storage, .. }, Needs::Static) => Server::start_with_static_seal(*make, *storage)?,
        };
        Ok(Some(then(&mut own.client()?, &own.root)))
    }
}

/// The most repetitions of a scenario whose requests were repeated.
const ATTEMPTS: usize = 8;

/// Runs all scenarios except the `pending` ones (parts of names); prints failures and, if `verbose`, a line for each.
pub fn run_all(target: &Target, scenarios: &[Loaded], pending: &[String], verbose: bool) -> Result<Counts> {
    let mut total = Counts::default();
    for loaded in scenarios {
        if pending.iter().any(|part| loaded.name.contains(part.as_str())) {
            total.skipped += loaded.scenario.steps.len();
            continue;
        }
        let ran =
            target.with_client(loaded.scenario.needs, |client, root| run_repeatedly(client, root, target, loaded));
        let counts = match ran {
            Ok(Some(counts)) => counts,
            Ok(None) => Counts { skipped: loaded.scenario.steps.len(), ..Counts::default() },
            Err(error) => {
                println!("FAIL {} on {}: {error:#}", loaded.name, target.make().name());
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

/// Runs a scenario; again, when it failed after a request was repeated, which may then have had its effect twice.
fn run_repeatedly(client: &mut Client, root: &str, target: &Target, loaded: &Loaded) -> Counts {
    let (mut attempt, mut repeated) = (1, 0);
    loop {
        let (counts, report) = run_one(client, root, target, loaded);
        repeated += counts.repeated;
        if counts.failed == 0 || counts.repeated == 0 || attempt == ATTEMPTS {
            print!("{report}");
            return Counts { repeated, ..counts };
        }
        attempt += 1;
    }
}

/// Runs a scenario once. Returns the failures as text, too.
fn run_one(client: &mut Client, root: &str, target: &Target, loaded: &Loaded) -> (Counts, String) {
    let make = target.make();
    let (mut counts, mut report) = (Counts::default(), String::new());
    let mut play = match Play::begin(client, root, &loaded.scenario, target.retries()) {
        Ok(play) => play,
        Err(Refused { error, repeated }) => {
            let report = format!("FAIL {} on {}: {error:#}\n", loaded.name, make.name());
            return (Counts { failed: loaded.scenario.steps.len(), repeated, ..counts }, report);
        }
    };
    for (index, step) in loaded.scenario.steps.iter().enumerate() {
        let misses = run_step(&mut play, step, make);
        if misses.is_empty() {
            counts.passed += 1;
            continue;
        }
        if target.may_differ(loaded, step) {
            counts.skipped += 1;
            continue;
        }
        counts.failed += 1;
        report += &format!("FAIL {} on {}, step {}: {}\n", loaded.name, make.name(), index + 1, title(step));
        report.extend(misses.iter().map(|miss| format!("     {miss}\n")));
    }
    counts.repeated = play.end();
    (counts, report)
}

fn run_step(play: &mut Play<'_>, step: &Step, make: Make) -> Vec<String> {
    let Some(expect) = expectation(step, make) else { return vec!["the step expects nothing: record it".to_owned()] };
    let response = match play
        .send(step, |variables, response| differences(&fill_expect(variables, expect), response).is_empty())
    {
        Ok(response) => response,
        Err(error) => return vec![format!("{error:#}")],
    };
    let captured = play.capture(step, &response);
    let mut misses = differences(&fill_expect(&play.variables, expect), &response);
    if let Err(error) = captured {
        misses.push(error.to_string());
    }
    misses
}

/// The expected response of a kind of server.
pub fn expectation(step: &Step, make: Make) -> Option<&Expect> {
    match (&step.differs, make) {
        (Some(differs), Make::OpenBao) => Some(&differs.openbao),
        _ => step.expect.as_ref(),
    }
}

/// A step in one line: method, path, note.
pub fn title(step: &Step) -> String {
    let (method, path) = step.target().unwrap_or(("?", "?"));
    let note = step.note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    format!("{method} {path}{note}")
}
