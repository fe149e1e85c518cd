//! SIGHUP and SIGUSR2: the reload, and the state dump of a running server.

use std::path::PathBuf;
use std::sync::Arc;

use keepfast_core::{Node, SealSet};
use keepfast_edge::{Connections, Tls};
use keepfast_framework::Timestamp;
use keepfast_framework::clock::{Clock, SystemClock};
use parking_lot::Mutex;

use crate::config::{self, Config, Environment, SealSettings, Storage};
use crate::logging::{Level, Log};

/// The inputs of a reload: the sources of the configuration, and the parts that follow it.
pub(crate) struct Running<'a> {
    pub(crate) node: Arc<Node>,
    pub(crate) certificates: Vec<Arc<Tls>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) log: &'a Log,
    /// The `-config` paths.
    pub(crate) paths: &'a [PathBuf],
    pub(crate) environment: &'a Environment,
    /// Whether `-log-level` was set: it takes precedence over the configuration.
    pub(crate) has_level_flag: bool,
    pub(crate) started: Timestamp,
    /// The seals in use.
    pub(crate) seals: Mutex<Vec<SealSettings>>,
}

/// The metrics of `sys/metrics` in a state dump.
const DUMPED_METRICS: &[&str] = &[
    "core.in_flight_requests",
    "core.locked_users",
    "core.mount_table.num_entries",
    "core.unsealed",
    "expire.num_irrevocable_leases",
    "expire.num_leases",
    "runtime.alloc_bytes",
];

impl Running<'_> {
    /// Reloads certificates, audit logs, the log file, the log level and the seals. A part that is invalid stays as it was.
    pub(crate) fn reload_all(&self) {
        tracing::info!("reload triggered");
        for tls in &self.certificates {
            match tls.reload() {
                Ok(()) => tls.warn_of_dates(SystemClock.now()),
                Err(error) => tracing::error!(%error, "the certificate in use is kept"),
            }
        }
        if let Err(error) = self.log.reopen() {
            tracing::error!(%error, "the log file cannot be reopened");
        }
        let config = self.configuration();
        let seals = config.as_ref().and_then(|config| self.next_seals(config));
        self.node.reload(seals, config.as_ref().map(|config| config.self_init.clone()));
        let level = config.filter(|_| !self.has_level_flag).and_then(|config| Level::parse(&config.log_level));
        if let Some(level) = level {
            self.log.set_level(level);
        }
    }

    /// The configuration as it is now; `None` without files, and when it is invalid.
    fn configuration(&self) -> Option<Config> {
        if self.paths.is_empty() {
            return None;
        }
        let loaded = config::load_over(self.paths, self.environment, Some(Storage::InMemory));
        loaded
            .map(|(config, _)| config)
            .inspect_err(|error| tracing::error!(%error, "the configuration in use is kept"))
            .ok()
    }

    /// The seals of a configuration; `None` when those in use stay.
    fn next_seals(&self, config: &Config) -> Option<SealSet> {
        let mut running = self.seals.lock();
        let next = config::replacing(config.seals.clone(), &running);
        let next = next.inspect_err(|error| tracing::error!(error, "the seals in use are kept")).ok()?;
        let set =
            config::seal_set(&next).inspect_err(|error| tracing::error!(%error, "the seals in use are kept")).ok()?;
        let names = |seals: &[SealSettings]| seals.iter().map(ToString::to_string).collect::<Vec<_>>();
        if names(&next) != names(&running) {
            next.iter().for_each(|seal| tracing::info!(%seal, "seal of the configuration"));
        }
        *running = next;
        Some(set)
    }

    /// Logs counts and versions; no names, paths or values of stored data.
    pub(crate) fn log_state(&self) {
        let runtime = tokio::runtime::Handle::current().metrics();
        let state = self.node.state();
        let numbers: Vec<String> =
            self.node.monitoring().gather().iter().filter(|item| is_dumped(&item.name)).map(text).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            uptime_seconds = SystemClock.now().since(self.started).as_secs(),
            sealed = state.is_sealed,
            leases_quarantined = state.has_quarantine,
            connections = self.connections.count(),
            tasks = runtime.num_alive_tasks(),
            workers = runtime.num_workers(),
            numbers = numbers.join(" "),
            "state of the server"
        );
    }
}

fn is_dumped(name: &str) -> bool {
    DUMPED_METRICS.contains(&name)
}

fn text(item: &keepfast_core::metrics::Item) -> String {
    use keepfast_core::metrics::Value;
    let labels: Vec<String> = item.labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    match &item.value {
        Value::Gauge(value) => format!("{}{labels}={value}", item.name),
        Value::Counter(value) => format!("{}{labels}={value}", item.name),
        Value::Summary(summary) => format!("{}{labels}={}", item.name, summary.count),
    }
}
