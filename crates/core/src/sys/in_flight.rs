//! `sys/in-flight-req`: the requests under way.

use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes, Status};

use super::System;
use crate::node::Node;
use crate::request::route::MASK;
use crate::request::{Incoming, Response};

const HELP: Help = Help {
    synopsis: "The requests under way.",
    description: "By their ids. What is no part of a route is masked in their paths, because it could be a token.",
};

/// The whole path of these requests themselves.
const PATH: &str = "sys/in-flight-req";

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("in-flight-req", HELP).read(in_flight);
}

async fn in_flight(sys: &System, _: &mut Cx, _: Nothing) -> Result<Raw> {
    sys.node()?.requests_under_way(|segment| if reads_like_a_token(segment) { MASK } else { segment }.to_owned())
}

/// Whether a name begins as tokens do. Only a mistake puts one where a path has a name.
fn reads_like_a_token(segment: &str) -> bool {
    ["hvs.", "hvb.", "s.", "b."].iter().any(|prefix| segment.starts_with(prefix))
}

impl Node {
    /// The requests under way: the mounts and routes that they are for, and of each name in their paths what `name` shows.
    fn requests_under_way(&self, name: impl Fn(&str) -> String) -> Result<Raw> {
        let unsealed = self.unsealed();
        let shown = |operation, path: &str| match &unsealed {
            Some(unsealed) => unsealed.masked_path(operation, path, &name),
            // A sealed server has no routes, and nothing is under way but this.
            None if path == PATH => PATH.to_owned(),
            None => MASK.to_owned(),
        };
        Ok(Raw { status: Status::OK, content_type: "application/json", body: self.in_flight.to_json(shown)? })
    }

    /// The requests under way for whoever asks, where a listener allows that: no names in their paths, because they are for
    /// those to know who may read the path. No device records it.
    pub fn open_in_flight(&self, asking: &Incoming) -> Response {
        let _under_way = self.in_flight.begin(asking, self.clock.now());
        match self.requests_under_way(|_| MASK.to_owned()) {
            Ok(raw) => Response::unrecorded(raw),
            Err(error) => Response::failed(&error),
        }
    }
}
