//! The small stanzas: `telemetry`, `user_lockout`, and the keys of log rotation.

use std::path::{Component, PathBuf};
use std::time::Duration;

use keepfast_core::settings::{LockoutSettings, TelemetrySettings};

use super::error::{ConfigError, Warning};
use super::stanza::{Labelled, Stanza};
use super::top_level::LogRotation;

/// The label of the `user_lockout` that applies to auth methods without their own.
const ALL_METHODS: &str = "all";
/// An auth method of OpenBao with user lockout that this server does not have.
const ABSENT_METHOD: &str = "ldap";

/// Keys of Vault's telemetry for other sinks or for metrics that this server does not have.
const WITHOUT_EFFECT: &[&str] = &[
    "add_lease_metrics_namespace_labels",
    "add_mount_point_rollback_metrics",
    "circonus_api_app",
    "circonus_api_token",
    "circonus_api_url",
    "circonus_broker_id",
    "circonus_broker_select_tag",
    "circonus_check_display_name",
    "circonus_check_force_metric_activation",
    "circonus_check_id",
    "circonus_check_instance_id",
    "circonus_check_search_tag",
    "circonus_check_tags",
    "circonus_submission_interval",
    "circonus_submission_url",
    "dogstatsd_addr",
    "dogstatsd_tags",
    "enable_hostname_label",
    "filter_default",
    "lease_metrics_epsilon",
    "metrics_path",
    "num_lease_metrics_buckets",
    "prefix_filter",
    "stackdriver_debug_logs",
    "stackdriver_location",
    "stackdriver_namespace",
    "stackdriver_project_id",
    "statsd_address",
    "statsite_address",
];

/// Checks the directories that contain the files of database connections.
///
/// # Errors
/// When a path is relative, is the root, or contains `..`.
pub(super) fn file_directories(paths: Vec<String>) -> Result<Vec<PathBuf>, ConfigError> {
    let check = |path: String| {
        let path = PathBuf::from(path);
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if path.is_absolute() && path.components().count() > 1 && path.components().all(is_plain) {
            return Ok(path);
        }
        let text = format!("database_file_directories: {path:?} is not an absolute path of a directory below the root");
        Err(ConfigError::Whole(text))
    };
    paths.into_iter().map(check).collect()
}

/// Parses `telemetry { … }`. Without it the defaults apply.
pub(super) fn telemetry(mut stanza: Stanza<'_>, warnings: &mut Vec<Warning>) -> Result<TelemetrySettings, ConfigError> {
    let standard = TelemetrySettings::default();
    let usage_period = match stanza.has("usage_gauge_period") {
        true if stanza.text("usage_gauge_period")?.is_some_and(|text| text == "none") => Duration::ZERO,
        _ => stanza.duration("usage_gauge_period")?.unwrap_or(standard.usage_period),
    };
    let cardinality = stanza.integer("maximum_gauge_cardinality")?.map(|most| {
        let wrong = |_| {
            stanza.fault(stanza.position("maximum_gauge_cardinality"), "maximum_gauge_cardinality cannot be negative")
        };
        usize::try_from(most).map_err(wrong)
    });
    let settings = TelemetrySettings {
        usage_period,
        gauge_cardinality: cardinality.transpose()?.unwrap_or(standard.gauge_cardinality),
        prometheus_retention: stanza.duration("prometheus_retention_time")?.unwrap_or(standard.prometheus_retention),
        disable_hostname: stanza.flag("disable_hostname")?.unwrap_or(standard.disable_hostname),
        prefix: stanza.text("metrics_prefix")?.filter(|p| !p.is_empty()).unwrap_or(standard.prefix),
        is_given: true,
    };
    stanza.without_effect(WITHOUT_EFFECT, warnings);
    stanza.finish(warnings);
    Ok(settings)
}

/// Parses `log_rotate_bytes`, `log_rotate_duration` and `log_rotate_max_files` of the top level.
pub(super) fn log_rotation(root: &mut Stanza<'_>, rotation: &mut LogRotation) -> Result<(), ConfigError> {
    if let Some(bytes) = root.size("log_rotate_bytes")? {
        let negative = |_| root.fault(root.position("log_rotate_bytes"), "log_rotate_bytes cannot be negative");
        rotation.bytes = u64::try_from(bytes).map_err(negative)?;
    }
    if let Some(duration) = root.duration("log_rotate_duration")? {
        rotation.duration = duration;
    }
    if let Some(count) = root.integer("log_rotate_max_files")? {
        rotation.max_files = LogRotation::max_files(count);
    }
    Ok(())
}

/// Parses `user_lockout "userpass" { … }`; the label may be `all`.
pub(super) fn user_lockout(
    block: Labelled<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(String, LockoutSettings), ConfigError> {
    let Labelled { labels, position, mut stanza } = block;
    let of = labels.first().copied().unwrap_or_default().to_ascii_lowercase();
    let engines = keepfast_engines::all();
    let methods: Vec<&str> = engines.all().iter().filter(|e| e.traits.locks_out).map(|e| &*e.engine).collect();
    if of == ABSENT_METHOD {
        let message = format!("user_lockout {of:?} has no effect in Keepfast: there is no such auth method");
        warnings.push(stanza.warning(position, message));
    } else if of != ALL_METHODS && !methods.contains(&of.as_str()) {
        let known = methods.join(", ");
        let message = format!("user_lockout {of:?}: there are {ALL_METHODS}, {known} and {ABSENT_METHOD}");
        return Err(stanza.fault(position, message));
    }
    let standard = LockoutSettings::default();
    let span = |given: Option<Duration>, standard: Duration| given.filter(|d| !d.is_zero()).unwrap_or(standard);
    let threshold = stanza.integer("lockout_threshold")?.filter(|t| *t != 0);
    let threshold = threshold.map_or(Ok(standard.threshold), |t| {
        u64::try_from(t).map_err(|_| stanza.fault(position, "lockout_threshold cannot be negative"))
    })?;
    let settings = LockoutSettings {
        threshold,
        duration: span(stanza.duration("lockout_duration")?, standard.duration),
        counter_reset: span(stanza.duration("lockout_counter_reset")?, standard.counter_reset),
        disabled: stanza.flag("disable_lockout")?.unwrap_or(false),
    };
    stanza.finish(warnings);
    Ok((of, settings))
}
