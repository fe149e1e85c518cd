//! `sys/storage/raft/autopilot/configuration`

use std::time::Duration;

use keepfast_framework::fields::{Flag, Int, Seconds};
use keepfast_framework::reply::Described;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Error, Result, Routes, duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::autopilot::{AutopilotConfig, CONFIG, LEAST_DEAD, LEAST_QUORUM};
use crate::sys::system::{System, consensus};

const HELP: Help = Help {
    synopsis: "Returns or changes the configuration of autopilot.",
    description: "Autopilot promotes nodes that have joined, and removes nodes that are silent for long if that is enabled.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("storage/raft/autopilot/configuration", HELP).read(read).update(write).not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct ConfigRequest {
    /// Whether nodes that are silent for long are removed. Default: false.
    cleanup_dead_servers: Option<Flag>,
    /// After which silence, at least a minute. Default: 24h.
    dead_server_last_contact_threshold: Option<Seconds>,
    /// The silence after which a node is not healthy. Default: 10s.
    last_contact_threshold: Option<Seconds>,
    /// The number of log entries that a healthy node may lack. Default: 1000.
    max_trailing_logs: Option<Int>,
    /// The number of voters that remain when nodes are removed, at least 3.
    min_quorum: Option<Int>,
    /// How long a node is healthy before it gets a vote. Default: 10s.
    server_stabilization_time: Option<Seconds>,
}

#[derive(Serialize, JsonSchema)]
struct ConfigResponse {
    cleanup_dead_servers: bool,
    dead_server_last_contact_threshold: String,
    last_contact_threshold: String,
    max_trailing_logs: u64,
    min_quorum: u64,
    server_stabilization_time: String,
}

async fn read(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Described<ConfigResponse>> {
    consensus(sys)?;
    let config = CONFIG.get(cx, "").await?.unwrap_or_default();
    let text = |seconds| duration::format(Duration::from_secs(seconds));
    Ok(Described(ConfigResponse {
        cleanup_dead_servers: config.cleanup_dead_servers,
        dead_server_last_contact_threshold: text(config.dead_server_last_contact_threshold),
        last_contact_threshold: text(config.last_contact_threshold),
        max_trailing_logs: config.max_trailing_logs,
        min_quorum: config.min_quorum,
        server_stabilization_time: text(config.server_stabilization_time),
    }))
}

async fn write(sys: &System, cx: &mut Cx, request: ConfigRequest) -> Result<()> {
    consensus(sys)?;
    let mut config = CONFIG.get(cx, "").await?.unwrap_or_default();
    apply(&mut config, &request)?;
    CONFIG.put(cx, "", &config)
}

/// Applies the parameters of a request. Zero leaves a value as it is, as in OpenBao.
fn apply(config: &mut AutopilotConfig, request: &ConfigRequest) -> Result<()> {
    let number = |name: &str, value: Option<Int>, target: &mut u64| match u64::try_from(value.unwrap_or_default().0) {
        Ok(0) => Ok(()),
        Ok(value) => {
            *target = value;
            Ok(())
        }
        Err(_) => Err(Error::invalid(format!("{name} must not be negative"))),
    };
    let seconds = |value: Option<Seconds>, target: &mut u64| {
        if let Some(Seconds(value @ 1..)) = value {
            *target = value;
        }
    };
    number("max_trailing_logs", request.max_trailing_logs, &mut config.max_trailing_logs)?;
    number("min_quorum", request.min_quorum, &mut config.min_quorum)?;
    seconds(request.dead_server_last_contact_threshold, &mut config.dead_server_last_contact_threshold);
    seconds(request.last_contact_threshold, &mut config.last_contact_threshold);
    seconds(request.server_stabilization_time, &mut config.server_stabilization_time);
    if let Some(Flag(cleanup)) = request.cleanup_dead_servers {
        config.cleanup_dead_servers = cleanup;
    }
    check(config)
}

fn check(config: &AutopilotConfig) -> Result<()> {
    if !config.cleanup_dead_servers {
        return Ok(());
    }
    if config.min_quorum < LEAST_QUORUM {
        return Err(Error::invalid(format!(
            "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; cleanup_dead_servers: \
             true, min_quorum: {:#x}",
            config.min_quorum
        )));
    }
    let threshold = config.dead_server_last_contact_threshold;
    if threshold < LEAST_DEAD {
        return Err(Error::invalid(format!(
            "dead_server_last_contact_threshold should not be set to less than 1m; received: {threshold}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_to(config: &mut AutopilotConfig, request: serde_json::Value) -> Result<(), String> {
        apply(config, &serde_json::from_value(request).unwrap()).map_err(|error| error.public().to_owned())
    }

    #[test]
    fn parameters_change_the_configuration_and_zero_leaves_a_value() {
        let mut config = AutopilotConfig::default();
        apply_to(&mut config, serde_json::json!({})).unwrap();
        assert_eq!(config, AutopilotConfig::default());
        let request =
            serde_json::json!({ "min_quorum": 5, "server_stabilization_time": "1m30s", "max_trailing_logs": 7 });
        apply_to(&mut config, request).unwrap();
        let zeros = serde_json::json!({
            "min_quorum": 0, "server_stabilization_time": "0s", "max_trailing_logs": 0, "last_contact_threshold": 0
        });
        apply_to(&mut config, zeros).unwrap();
        let expected = AutopilotConfig {
            min_quorum: 5,
            server_stabilization_time: 90,
            max_trailing_logs: 7,
            ..AutopilotConfig::default()
        };
        assert_eq!(config, expected);
        for name in ["min_quorum", "max_trailing_logs"] {
            let refused = apply_to(&mut config, serde_json::json!({ name: -3 }));
            assert_eq!(refused.unwrap_err(), format!("{name} must not be negative"));
        }
    }

    #[test]
    fn dead_members_are_removed_only_with_a_quorum_and_after_a_minute() {
        let refused = |request: serde_json::Value| apply_to(&mut AutopilotConfig::default(), request).unwrap_err();
        let quorum = "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; \
                      cleanup_dead_servers: true, min_quorum: ";
        assert_eq!(refused(serde_json::json!({ "cleanup_dead_servers": true })), format!("{quorum}0x0"));
        let two = serde_json::json!({ "cleanup_dead_servers": true, "min_quorum": 2 });
        assert_eq!(refused(two), format!("{quorum}0x2"));
        let soon = serde_json::json!({
            "cleanup_dead_servers": true, "min_quorum": 3, "dead_server_last_contact_threshold": "59s"
        });
        let expected = "dead_server_last_contact_threshold should not be set to less than 1m; received: 59";
        assert_eq!(refused(soon), expected);
        let mut config = AutopilotConfig::default();
        let off = serde_json::json!({ "cleanup_dead_servers": false, "dead_server_last_contact_threshold": "1s" });
        apply_to(&mut config, off).unwrap();
        let on = serde_json::json!({
            "cleanup_dead_servers": true, "min_quorum": 3, "dead_server_last_contact_threshold": 60
        });
        apply_to(&mut config, on).unwrap();
        assert!(config.cleanup_dead_servers);
    }
}
