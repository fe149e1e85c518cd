//! The log levels of the loggers, which can change while the server runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use keepfast_core::settings::{LogLevel, LogLevels};
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::logging::Level;

/// The loggers by Vault's names, with their modules. The most specific module applies.
const PARTS: &[(&str, &str)] = &[
    ("admission", "keepfast_core::admission"),
    ("audit", "keepfast_core::audit"),
    ("auth", "keepfast_engines::auth"),
    ("core", "keepfast_core"),
    ("expiration", "keepfast_core::lease"),
    ("identity", "keepfast_core::identity"),
    ("policy", "keepfast_core::policy"),
    ("seals", "keepfast_core::seal"),
    ("secrets", "keepfast_engines::secrets"),
    ("server", "keepfast_edge"),
    ("server", "keepfast_server"),
    ("storage", "keepfast_storage"),
    ("system", "keepfast_core::sys"),
    ("token", "keepfast_core::token"),
];

/// The log levels of the loggers.
pub(crate) struct Levels {
    state: Mutex<State>,
    filter: reload::Handle<Targets, Registry>,
}

struct State {
    /// The level of the configuration.
    configured: LevelFilter,
    /// The levels that were set at run time.
    set: BTreeMap<&'static str, LevelFilter>,
}

impl State {
    fn targets(&self) -> Targets {
        let of = |part: &str| self.set.get(part).copied().unwrap_or(self.configured);
        Targets::new()
            .with_default(self.configured)
            .with_targets(PARTS.iter().map(|(part, target)| (*target, of(part))))
    }
}

impl Levels {
    /// All loggers at one level, with the filter that follows the levels.
    pub(crate) fn new(level: Level) -> (reload::Layer<Targets, Registry>, Arc<Self>) {
        let state = State { configured: level.0, set: BTreeMap::new() };
        let (filter, handle) = reload::Layer::new(state.targets());
        (filter, Arc::new(Levels { state: Mutex::new(state), filter: handle }))
    }

    /// Changes the level of the configuration; levels that were set at run time stay.
    pub(crate) fn configure(&self, level: Level) {
        self.change(|state| state.configured = level.0);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        // Fails only when the log no longer exists.
        let _ = self.filter.reload(state.targets());
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Levels")
    }
}

impl LogLevels for Levels {
    fn levels(&self) -> BTreeMap<&'static str, &'static str> {
        let state = self.state.lock();
        PARTS.iter().map(|(part, _)| (*part, name(*state.set.get(part).unwrap_or(&state.configured)))).collect()
    }

    fn set(&self, part: Option<&str>, level: Option<LogLevel>) -> bool {
        let named: Vec<&'static str> =
            PARTS.iter().map(|(name, _)| *name).filter(|name| part.is_none_or(|part| part == *name)).collect();
        self.change(|state| {
            for part in &named {
                match level {
                    Some(level) => state.set.insert(part, filter(level)),
                    None => state.set.remove(part),
                };
            }
        });
        !named.is_empty()
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

fn name(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::TRACE => "trace",
        LevelFilter::DEBUG => "debug",
        LevelFilter::INFO => "info",
        LevelFilter::WARN => "warn",
        LevelFilter::ERROR => "error",
        _ => "off",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use tracing::Level as L;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn one_logger_changes_alone_and_returns_to_the_configuration() {
        let (filter, levels) = Levels::new(Level(LevelFilter::WARN));
        let subscriber = tracing_subscriber::registry().with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let on = || {
                (
                    tracing::enabled!(target: "keepfast_core::audit::broker", L::DEBUG),
                    tracing::enabled!(target: "keepfast_core::node", L::INFO),
                    tracing::enabled!(target: "hyper", L::INFO),
                )
            };
            assert_eq!(on(), (false, false, false));
            assert!(levels.set(Some("audit"), Some(LogLevel::Debug)));
            assert_eq!((on(), levels.levels()["audit"]), ((true, false, false), "debug"));
            assert!(levels.set(None, Some(LogLevel::Info)));
            assert_eq!(on(), (false, true, false));
            levels.configure(Level(LevelFilter::ERROR));
            assert_eq!(on(), (false, true, false));
            assert!(levels.set(None, None));
            assert_eq!((on(), levels.levels()["core"]), ((false, false, false), "error"));
            assert!(!levels.set(Some("nothing"), Some(LogLevel::Info)));
        });
    }
}
