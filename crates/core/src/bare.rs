//! The paths that answer on a sealed server. They are not audited, because a sealed server has no audit: init, unseal,
//! seal-status, health, leader.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::{Flag, Int, Strings, Text, truth};
use keepfast_framework::{Error, Operation, Query, Result, Status};
use serde::{Deserialize, Serialize};

use crate::init::initialize;
use crate::lifecycle::Lifecycle;
use crate::request::{Incoming, Response};
use crate::seal::shares::{Attempt, check_share, decode_share};
use crate::seal::{SealConfig, SealShape};

/// When this version was released; clients of the peer read it from `sys/seal-status`.
pub(crate) const RELEASED: &str = "2026-11-23T00:00:00Z";

#[derive(Serialize)]
struct SealStatus<'a> {
    #[serde(rename = "type")]
    custody: &'a str,
    initialized: bool,
    sealed: bool,
    t: u8,
    n: u8,
    progress: usize,
    nonce: String,
    recovery_seal: bool,
    version: &'a str,
    commit_date: &'a str,
    migration: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<&'a str>,
    storage_type: &'a str,
    /// Only told while it lasts: `sys/leases/quarantine`.
    #[serde(skip_serializing_if = "is_false")]
    lease_quarantine: bool,
}

#[derive(Serialize)]
struct Health<'a> {
    initialized: bool,
    sealed: bool,
    standby: bool,
    replication_performance_mode: &'a str,
    replication_dr_mode: &'a str,
    server_time_utc: i64,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    lease_quarantine: bool,
}

#[derive(Serialize)]
struct Leader<'a> {
    ha_enabled: bool,
    is_self: bool,
    active_time: String,
    leader_address: &'a str,
    leader_cluster_address: &'a str,
}

#[derive(Deserialize)]
struct InitRequest {
    #[serde(default)]
    secret_shares: Int,
    #[serde(default)]
    secret_threshold: Int,
    #[serde(default)]
    pgp_keys: Strings,
    #[serde(default)]
    root_token_pgp_key: Text,
    #[serde(default)]
    recovery_shares: Int,
    #[serde(default)]
    recovery_threshold: Int,
}

#[derive(Deserialize)]
struct UnsealRequest {
    #[serde(default)]
    key: Text,
    #[serde(default)]
    reset: Flag,
    #[serde(default)]
    migrate: Flag,
}

#[derive(Serialize)]
struct InitAnswer {
    keys: Vec<String>,
    keys_base64: Vec<String>,
    root_token: String,
}

/// Whether a path answers on a sealed server and without audit.
pub fn is_bare_path(path: &str) -> bool {
    matches!(
        path,
        "sys/seal-status" | "sys/health" | "sys/leader" | "sys/init" | "sys/unseal" | "sys/seal" | "sys/step-down"
    )
}

/// Whether a request is for one of the paths that need no unsealed server.
pub(crate) fn is_bare(server: &Lifecycle, incoming: &Incoming) -> bool {
    match incoming.path.as_str() {
        "sys/seal" => match incoming.operation {
            Operation::Update => server.is_sealed(),
            operation => operation != Operation::Help,
        },
        "sys/step-down" => server.settings.storage_type != "raft",
        path => is_bare_path(path) && incoming.operation != Operation::Help,
    }
}

/// Answers a path that needs no unsealed server.
pub(crate) async fn handle(server: &Lifecycle, incoming: Incoming) -> Response {
    use Operation::{Read, Update};
    let answer = match (incoming.path.as_str(), incoming.operation) {
        ("sys/seal-status", Read) => seal_status(server).await,
        ("sys/health", Read) => health(server, &incoming.input.query).await,
        ("sys/leader", Read) => leader(server).await,
        ("sys/init", Read) => init_status(server).await,
        ("sys/init", Update) => init(server, &incoming).await,
        ("sys/unseal", Update) => unseal_step(server, &incoming).await,
        // A server that shares its storage with no other one always leads, so a step-down changes nothing.
        ("sys/step-down", Update) if server.is_sealed() => Err(Error::sealed()),
        ("sys/step-down", Update) => Ok(Response::exempt(Status::NO_CONTENT, Vec::new())),
        ("sys/seal", Update) => Ok(Response::exempt(Status::NO_CONTENT, Vec::new())),
        _ => Err(Error::new(Status::METHOD_NOT_ALLOWED, "")),
    };
    answer.unwrap_or_else(|error| Response::failed(&error))
}

async fn init_status(server: &Lifecycle) -> Result<Response> {
    let initialized = server.seal_config().await?.is_some();
    answer(Status::OK, &serde_json::json!({ "initialized": initialized }))
}

async fn seal_status(server: &Lifecycle) -> Result<Response> {
    let config = server.seal_config().await?;
    status_of(server, config)
}

fn status_of(server: &Lifecycle, config: Option<SealConfig>) -> Result<Response> {
    let unsealing = server.unsealing.lock();
    let sealed = server.is_sealed();
    let open = config.as_ref().filter(|_| !sealed);
    let status = SealStatus {
        custody: "shamir",
        initialized: config.is_some(),
        sealed,
        t: config.as_ref().map_or(0, |c| c.shape.threshold),
        n: config.as_ref().map_or(0, |c| c.shape.shares),
        progress: unsealing.progress(),
        nonce: unsealing.nonce().to_owned(),
        recovery_seal: false,
        version: &server.settings.version,
        commit_date: RELEASED,
        migration: false,
        cluster_name: open.map(|c| c.cluster_name.as_str()),
        cluster_id: open.map(|c| c.cluster_id.as_str()),
        storage_type: &server.settings.storage_type,
        lease_quarantine: server.has_quarantine(),
    };
    answer(Status::OK, &status)
}

/// The status code tells load balancers what the server is; callers may choose the codes.
async fn health(server: &Lifecycle, query: &Query) -> Result<Response> {
    let config = server.seal_config().await?;
    let sealed = server.is_sealed();
    let chosen = HealthCodes::read(query)?;
    let (name, decided) = match (config.is_some(), sealed) {
        (false, _) => ("uninitcode", 501),
        (true, true) => ("sealedcode", 503),
        (true, false) => ("activecode", 200),
    };
    let open = config.as_ref().filter(|_| !sealed);
    let health = Health {
        initialized: config.is_some(),
        sealed,
        standby: sealed,
        replication_performance_mode: match (sealed, server.settings.storage_type.as_str()) {
            (true, _) => "unknown",
            (false, "raft") => "primary",
            (false, _) => "disabled",
        },
        replication_dr_mode: if sealed { "unknown" } else { "disabled" },
        server_time_utc: server.clock.now().unix(),
        version: &server.settings.version,
        cluster_name: open.map(|c| c.cluster_name.as_str()),
        cluster_id: open.map(|c| c.cluster_id.as_str()),
        lease_quarantine: server.has_quarantine(),
    };
    Ok(answer(Status(decided), &health)?.with_chosen(Status(chosen.code(name, decided))))
}

async fn leader(server: &Lifecycle) -> Result<Response> {
    if server.settings.storage_type != "raft" {
        return answer(Status::OK, &serde_json::json!({ "ha_enabled": false }));
    }
    let leader = Leader {
        ha_enabled: true,
        is_self: true,
        active_time: server.since().ok_or_else(Error::sealed)?.rfc3339(),
        leader_address: &server.settings.api_addr,
        leader_cluster_address: &server.settings.cluster_addr,
    };
    answer(Status::OK, &leader)
}

async fn init(server: &Lifecycle, incoming: &Incoming) -> Result<Response> {
    let request: InitRequest = input(incoming)?;
    if !request.pgp_keys.0.is_empty() || !request.root_token_pgp_key.is_empty() {
        return Err(Error::invalid("encrypting shares with PGP keys is not supported by this server"));
    }
    let recovery = [("recovery_shares", request.recovery_shares), ("recovery_threshold", request.recovery_threshold)];
    let given: Vec<&str> = recovery.iter().filter(|(_, n)| n.0 != 0).map(|(name, _)| *name).collect();
    if !given.is_empty() {
        let given = given.join(",");
        return Err(Error::invalid(format!("parameters {given} not applicable to seal type shamir")));
    }
    let shape = SealShape::new(request.secret_shares.0, request.secret_threshold.0)?;
    if server.seal_config().await?.is_some() {
        return Err(Error::invalid("Vault is already initialized"));
    }
    let made = initialize(server, shape, None).await?;
    let out = InitAnswer {
        keys: made.shares.iter().map(|s| hex::encode(s.expose())).collect(),
        keys_base64: made.shares.iter().map(|s| STANDARD.encode(s.expose())).collect(),
        root_token: made.root_token.expose().clone(),
    };
    answer(Status::OK, &out)
}

async fn unseal_step(server: &Lifecycle, incoming: &Incoming) -> Result<Response> {
    let request: UnsealRequest = input(incoming)?;
    if request.migrate.0 {
        return Err(Error::invalid("there is no seal to migrate from or to"));
    }
    if request.reset.0 {
        if !server.is_sealed() {
            return Err(Error::invalid("vault is unsealed"));
        }
        server.unsealing.lock().reset();
        return seal_status(server).await;
    }
    if request.key.is_empty() {
        return Err(Error::invalid("'key' must be specified in request body as JSON, or 'reset' set to true"));
    }
    let share = decode_share(&request.key)?;
    if !server.is_sealed() {
        return seal_status(server).await;
    }
    let Some(config) = server.seal_config().await? else { return Err(Error::invalid("Vault is not initialized")) };
    check_share(&share)?;
    let Some((attempt, shares)) = enough(server, &config, &share) else { return seal_status(server).await };
    match server.unseal(&shares).await {
        // Nothing is read here: the server is unsealed by now, and a failure would deny it.
        Ok(true) => status_of(server, Some(config)),
        Ok(false) => Err(Error::invalid("Unsealing failed, invalid key")),
        Err(error) => {
            // The shares may be right: all but the last stay, so that the same request can be sent again.
            server.unsealing.lock().give_back(attempt, &shares[..shares.len().saturating_sub(1)]);
            Err(error)
        }
    }
}

/// Takes a share; all of them, with the number of the attempt, when there are enough.
fn enough(
    server: &Lifecycle,
    config: &SealConfig,
    share: &keepfast_crypto::secret::SecretBytes,
) -> Option<(Attempt, Vec<keepfast_crypto::secret::SecretBytes>)> {
    let mut unsealing = server.unsealing.lock();
    // Another request has completed the unsealing. A share that is added now would not be wiped.
    if !server.is_sealed() {
        return None;
    }
    unsealing.add(share);
    (unsealing.progress() >= usize::from(config.shape.threshold)).then(|| unsealing.attempt())
}

/// The status codes that a caller of `sys/health` chose.
struct HealthCodes(Vec<(&'static str, u16)>);

/// The parameters of `sys/health` that choose a code, those of states that this server never has included.
const HEALTH_CODES: &[&str] = &[
    "activecode",
    "standbycode",
    "sealedcode",
    "uninitcode",
    "performancestandbycode",
    "drsecondarycode",
    "haunhealthycode",
    "removedcode",
];

impl HealthCodes {
    /// Checks every parameter, whatever state the server is in: a load balancer with a misspelled code must not find out
    /// on the day the state changes. A final answer has no 1xx status (RFC 9110 section 15.2).
    fn read(query: &Query) -> Result<Self> {
        let mut codes = Vec::new();
        for (name, value) in query.iter().map(|(name, value)| (name, value.first())) {
            if name == "standbyok" && truth(value).is_none() {
                return Err(Error::new(Status::BAD_REQUEST, ""));
            }
            let Some(name) = HEALTH_CODES.iter().find(|known| **known == name) else { continue };
            match value.parse::<u16>().ok().filter(|code| (200..1000).contains(code)) {
                Some(code) => codes.push((*name, code)),
                None => return Err(Error::new(Status::BAD_REQUEST, "")),
            }
        }
        Ok(HealthCodes(codes))
    }

    /// The first value of a parameter.
    fn code(&self, name: &str, default: u16) -> u16 {
        self.0.iter().find(|(known, _)| *known == name).map_or(default, |(_, code)| *code)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's interface")]
fn is_false(value: &bool) -> bool {
    !value
}

fn input<T: serde::de::DeserializeOwned>(incoming: &Incoming) -> Result<T> {
    keepfast_framework::Input { captures: Vec::new(), query: Query::default(), body: incoming.input.body.clone() }
        .read()
}

fn answer<T: Serialize>(status: Status, value: &T) -> Result<Response> {
    let mut body = serde_json::to_vec(value)?;
    body.push(b'\n');
    Ok(Response::exempt(status, body))
}
