//! Faults of the services of seals, and how they end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::seals::{SealKind, SealServices, done, permit_transit, random_key};
use crate::slow_proxy::SlowProxy;

/// How long a slow service takes.
const SLOW: Duration = Duration::from_secs(30);

/// A fault of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TransitStopped,
    TransitKilled,
    TransitDenied,
    TransitSlow,
    /// The version of the key that wraps is below `min_decryption_version`.
    TransitWrong,
    /// The program of the HSM ends; it is started again.
    ProgramKilled,
    /// The program of the HSM hangs; it is killed and started again.
    ProgramHung,
    TokenRemoved,
    /// Another token with the same name and PIN, and another key.
    TokenWrong,
    /// The key of `static` is read at the start only.
    StaticUnreadable,
}

impl Fault {
    /// Every fault.
    pub(super) const ALL: [Self; 10] = [
        Self::TransitStopped,
        Self::TransitKilled,
        Self::TransitDenied,
        Self::TransitSlow,
        Self::TransitWrong,
        Self::ProgramKilled,
        Self::ProgramHung,
        Self::TokenRemoved,
        Self::TokenWrong,
        Self::StaticUnreadable,
    ];

    /// The seal that fails, and the classes of its failure; none for a fault that no call sees.
    pub(super) fn expected(self) -> Option<(SealKind, &'static [&'static str])> {
        Some(match self {
            Self::TransitStopped | Self::TransitKilled | Self::TransitSlow => (SealKind::Transit, &["unreachable"]),
            Self::TransitDenied => (SealKind::Transit, &["denied"]),
            Self::TransitWrong => (SealKind::Transit, &["wrong_key"]),
            Self::ProgramKilled => (SealKind::Pkcs11, &["crashed"]),
            Self::ProgramHung => (SealKind::Pkcs11, &["unreachable", "crashed"]),
            Self::TokenRemoved => (SealKind::Pkcs11, &["unreachable", "misconfigured", "wrong_key"]),
            Self::TokenWrong => (SealKind::Pkcs11, &["wrong_key"]),
            Self::StaticUnreadable => return None,
        })
    }

    /// Causes the fault. `server` is the process id of the sealed server.
    pub(super) fn begin(self, services: &mut SealServices, proxy: &SlowProxy, server: u32) -> Result<()> {
        match self {
            Self::TransitStopped => services.kms.pause(),
            Self::TransitKilled => services.kms.kill(),
            Self::TransitDenied => permit_transit(&services.kms, false),
            Self::TransitSlow => {
                proxy.set_delay(SLOW);
                Ok(())
            }
            Self::TransitWrong => {
                let server = i32::try_from(server).ok().and_then(Pid::from_raw).context("no process")?;
                // It must not see the new version before the old one is refused.
                kill_process(server, Signal::STOP)?;
                let refused = refuse_older_versions(services);
                kill_process(server, Signal::CONT)?;
                refused
            }
            Self::ProgramKilled => signal_programs(server, Signal::KILL),
            Self::ProgramHung => signal_programs(server, Signal::STOP),
            Self::TokenRemoved => {
                std::fs::rename(services.tokens(), aside(services))?;
                signal_programs(server, Signal::KILL)
            }
            Self::TokenWrong => {
                std::fs::rename(services.tokens(), aside(services))?;
                services.create_token(&services.tokens(), &random_key()?[..32])?;
                signal_programs(server, Signal::KILL)
            }
            Self::StaticUnreadable => Ok(std::fs::remove_file(services.static_key("k1"))?),
        }
    }

    /// Ends the fault. `key` is that of `static`.
    pub(super) fn end(self, services: &mut SealServices, proxy: &SlowProxy, server: u32, key: &str) -> Result<()> {
        match self {
            Self::TransitStopped => services.kms.resume(),
            Self::TransitKilled => {
                services.kms.restart()?;
                services.kms.unseal()
            }
            Self::TransitDenied => permit_transit(&services.kms, true),
            Self::TransitSlow => {
                proxy.set_delay(Duration::ZERO);
                Ok(())
            }
            Self::TransitWrong => {
                let root = services.kms.root.clone();
                let body = json!({"min_decryption_version": 1});
                done(&mut services.kms.client()?, &root, "POST", "seal/keys/k/config", &body).map(drop)
            }
            Self::ProgramKilled | Self::ProgramHung => Ok(()),
            Self::TokenRemoved => Ok(std::fs::rename(aside(services), services.tokens())?),
            Self::TokenWrong => {
                std::fs::remove_dir_all(services.tokens())?;
                std::fs::rename(aside(services), services.tokens())?;
                signal_programs(server, Signal::KILL)
            }
            Self::StaticUnreadable => services.write_static_key("k1", key),
        }
    }
}

/// Rotates the key of `transit`, and lets only the new version decrypt.
fn refuse_older_versions(services: &SealServices) -> Result<()> {
    let root = &services.kms.root;
    let mut client = services.kms.client()?;
    let rotated = done(&mut client, root, "POST", "seal/keys/k/rotate", &json!({}))?;
    let newest = rotated["data"]["latest_version"].as_u64().context("no version")?;
    let body = json!({"min_decryption_version": newest});
    done(&mut client, root, "POST", "seal/keys/k/config", &body).map(drop)
}

/// Where the tokens are while they are removed.
fn aside(services: &SealServices) -> PathBuf {
    services.tokens().with_extension("aside")
}

/// Sends a signal to the programs that a server has started.
fn signal_programs(server: u32, signal: Signal) -> Result<()> {
    for pid in programs(server)? {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may have ended.
            let _ = kill_process(pid, signal);
        }
    }
    Ok(())
}

/// The process ids of the programs that a server has started.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn programs(server: u32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{server}/task"))? {
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(found)
}
