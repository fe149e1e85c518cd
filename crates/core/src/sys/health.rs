//! `sys/health`: the state of the server as a status code, for load balancers.

use keepfast_framework::fields::{Flag, Int, truth};
use keepfast_framework::reply::SentStatus;
use keepfast_framework::routes::Help;
use keepfast_framework::sealed::SealedResponse;
use keepfast_framework::{Error, Result, Routes, Status};
use schemars::JsonSchema;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::System;
use super::seal_status::has_lease_quarantine;
use crate::cluster::join::joiner::known_seal;

const HELP: Help = Help {
    synopsis: "Returns the health of the server as a status code.",
    description: "200: active; 429: standby; 501: not initialized; 503: sealed; 530: removed from its cluster. The parameters select other codes from 200 to 999.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("health", HELP).unauthenticated().read_sealed(health).not_in_namespaces();
}

#[derive(Deserialize, JsonSchema)]
struct HealthRequest {
    /// Status code of an active node. Default: 200.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    activecode: FirstText,
    /// Status code of a standby node. Default: 429.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    standbycode: FirstText,
    /// Status code of a sealed node. Default: 503.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    sealedcode: FirstText,
    /// Status code of a node that is not initialized. Default: 501.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    uninitcode: FirstText,
    /// Status code of a standby that serves reads. Default: that of a standby.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    performancestandbycode: FirstText,
    /// Status code of a disaster recovery secondary, which this server never is.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    drsecondarycode: FirstText,
    /// Status code of a node whose cluster is unhealthy.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    haunhealthycode: FirstText,
    /// Status code of a node that was removed from its cluster.
    #[serde(default)]
    #[schemars(with = "Option<Int>")]
    removedcode: FirstText,
    /// Whether a standby returns the status code of an active node. Default: false.
    #[serde(default)]
    #[schemars(with = "Option<Flag>")]
    standbyok: FirstText,
    /// Whether a standby that serves reads returns the status code of an active node. Default: false.
    #[serde(default)]
    #[schemars(with = "Option<Flag>")]
    perfstandbyok: FirstText,
}

impl HealthRequest {
    /// Checks every parameter in any state of the server: a load balancer with an invalid code must see the error at
    /// once and not on the day the state changes.
    fn check(&self) -> Result<()> {
        let codes = [
            &self.activecode,
            &self.standbycode,
            &self.sealedcode,
            &self.uninitcode,
            &self.performancestandbycode,
            &self.drsecondarycode,
            &self.haunhealthycode,
            &self.removedcode,
        ];
        codes.into_iter().try_for_each(|code| code.status().map(drop))?;
        let flags = [&self.standbyok, &self.perfstandbyok];
        match flags.into_iter().filter_map(|flag| flag.0.as_deref()).all(|text| truth(text).is_some()) {
            true => Ok(()),
            false => Err(Error::new(Status::BAD_REQUEST, "")),
        }
    }

    /// Whether a standby counts as an active node.
    fn counts_as_active(&self, serves_reads: bool) -> bool {
        let is_set = |flag: &FirstText| flag.0.as_deref().and_then(truth) == Some(true);
        is_set(&self.standbyok) || serves_reads && is_set(&self.perfstandbyok)
    }

    /// The parameter of the status code of a standby.
    fn code_of_standby(&self, serves_reads: bool) -> &FirstText {
        let is_given = self.performancestandbycode.0.is_some();
        if serves_reads && is_given { &self.performancestandbycode } else { &self.standbycode }
    }
}

/// The first value of a parameter, which may be repeated. Any value but a text counts as an empty one.
#[derive(Default)]
struct FirstText(Option<String>);

impl FirstText {
    /// The status code; `None` without one. A final response has no 1xx status (RFC 9110 section 15.2).
    fn status(&self) -> Result<Option<Status>> {
        let Some(text) = &self.0 else { return Ok(None) };
        match text.parse::<u16>().ok().filter(|code| (200..1000).contains(code)) {
            Some(code) => Ok(Some(Status(code))),
            None => Err(Error::new(Status::BAD_REQUEST, "")),
        }
    }
}

impl<'de> Deserialize<'de> for FirstText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = String;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> std::result::Result<String, A::Error> {
                let first = texts.next_element::<String>()?;
                while texts.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first.unwrap_or_default())
            }
        }
        deserializer.deserialize_any(First).map(|text| FirstText(Some(text)))
    }
}

#[derive(Serialize, JsonSchema)]
struct Health {
    initialized: bool,
    sealed: bool,
    standby: bool,
    /// Only there on a standby that serves reads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    performance_standby: bool,
    replication_performance_mode: &'static str,
    replication_dr_mode: &'static str,
    server_time_utc: i64,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Only there while it lasts: `sys/leases/quarantine`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lease_quarantine: bool,
    /// Only there until the self-initialization is finished: `in progress` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    self_initialization: Option<&'static str>,
    /// Only there on a standby whose clock differs from that of its leader, so that it serves no reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_skew_ms: Option<u64>,
}

/// The status code reports the state of the server to load balancers; callers may choose the codes.
async fn health(sys: &System, req: HealthRequest) -> Result<SealedResponse<Health>> {
    req.check()?;
    let server = sys.lifecycle()?;
    // An unsealed server is initialized: its record is not read again for each check of a load balancer.
    let cluster_id = server.cluster_id();
    let sealed = cluster_id.is_none();
    let initialized = !sealed || known_seal(&server).await?.is_some();
    let standby = !server.parts.is_active();
    let replicated = server.parts.membership.with_others();
    let skew = server.parts.membership.clocks.skew().filter(|_| standby && !sealed);
    let reads = !server.parts.settings.disable_standby_reads && skew.is_none();
    let serves_reads = standby && replicated.is_some() && reads;
    let self_initialization = server.self_init.status().filter(|_| !sealed);
    let is_removed = server.parts.membership.consensus().is_some_and(|consensus| consensus.is_removed());
    let (chosen, counted) = match (initialized, sealed) {
        _ if is_removed => (&req.removedcode, Status(530)),
        (false, _) => (&req.uninitcode, Status(501)),
        (true, true) => (&req.sealedcode, Status(503)),
        (true, false) if self_initialization.is_some() => (&req.sealedcode, Status(503)),
        (true, false) if standby && !req.counts_as_active(serves_reads) => {
            (req.code_of_standby(serves_reads), Status(429))
        }
        (true, false) => (&req.activecode, Status::OK),
    };
    let status = SentStatus { sent: chosen.status()?.unwrap_or(counted), counted };
    let cluster_name = cluster_id.is_some().then(|| server.cluster_name());
    let document = Health {
        initialized,
        sealed,
        standby: sealed || standby,
        performance_standby: !sealed && serves_reads,
        replication_performance_mode: match sealed {
            true => "unknown",
            false if server.parts.role().is_some() => "primary",
            false => "disabled",
        },
        replication_dr_mode: if sealed { "unknown" } else { "disabled" },
        server_time_utc: server.parts.clock.now().unix(),
        version: server.parts.settings.version.clone(),
        cluster_name,
        cluster_id: cluster_id.map(|id| id.to_string()),
        lease_quarantine: has_lease_quarantine(&server),
        self_initialization,
        clock_skew_ms: skew.map(|skew| u64::try_from(skew.as_millis()).unwrap_or(u64::MAX)),
    };
    Ok(SealedResponse::Document { status, document })
}
