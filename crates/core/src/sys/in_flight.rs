//! `sys/in-flight-req`: the requests in flight.

use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Incoming, Result, Routes, Status};

use super::{System, unsealed};
use crate::lifecycle::Lifecycle;
use crate::request::Response;
use crate::request::in_flight::InFlight;
use crate::request::route::{MASK, masked_path};
use crate::unsealed::Unsealed;

const HELP: Help = Help {
    synopsis: "Lists the requests in flight, by request id.",
    description: "Parts of a path that are not literal in its route are masked, because they could be a token.",
};

/// The whole path of this endpoint.
const PATH: &str = "sys/in-flight-req";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("in-flight-req", HELP).read(in_flight).of_own_node().not_in_namespaces();
}

async fn in_flight(_: &System, cx: &mut Cx, _: Nothing) -> Result<Raw> {
    let unsealed = unsealed(cx)?;
    let name = |segment: &str| if reads_like_a_token(segment) { MASK } else { segment }.to_owned();
    under_way(Some(&unsealed), &unsealed.observability.in_flight, name)
}

/// Whether a path segment has the prefix of a token. Only a mistake puts a token where a path has a name.
fn reads_like_a_token(segment: &str) -> bool {
    ["hvs.", "hvb.", "s.", "b."].iter().any(|prefix| segment.starts_with(prefix))
}

/// The requests in flight: their mounts and routes, with each name in their paths as `name` renders it.
fn under_way(unsealed: Option<&Unsealed>, in_flight: &InFlight, name: impl Fn(&str) -> String) -> Result<Raw> {
    let shown = |operation, path: &str| match unsealed {
        Some(unsealed) => masked_path(&unsealed.engines.mounts, operation, path, &name),
        // A sealed server has no routes, and only this request is in flight.
        None if path == PATH => PATH.to_owned(),
        None => MASK.to_owned(),
    };
    Ok(Raw {
        status: Status::OK,
        content_type: "application/json",
        body: in_flight.to_json(shown)?,
        headers: Vec::new(),
    })
}

/// The requests in flight, for a caller without a token; names in their paths are masked.
pub(crate) fn open(server: &Lifecycle, incoming: &Incoming) -> Response {
    let _under_way = server.parts.in_flight.begin(incoming, server.parts.clock.now());
    match under_way(server.unsealed().as_deref(), &server.parts.in_flight, |_| MASK.to_owned()) {
        Ok(raw) => Response::unaudited(raw),
        Err(error) => Response::failed(&error),
    }
}
