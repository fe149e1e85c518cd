//! `sys/in-flight-req`: the requests under way.

use keepfast_framework::reply::Raw;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Result, Routes, Status};

use super::System;
use crate::node::Node;
use crate::request::{Incoming, Response};

const HELP: Help = Help { synopsis: "The requests under way.", description: "By their ids, without tokens." };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("in-flight-req", HELP).read(in_flight);
}

async fn in_flight(sys: &System, _: &mut Cx, _: Nothing) -> Result<Raw> {
    sys.node()?.requests_under_way()
}

impl Node {
    fn requests_under_way(&self) -> Result<Raw> {
        Ok(Raw { status: Status::OK, content_type: "application/json", body: self.in_flight.to_json()? })
    }

    /// The requests under way for whoever asks, where a listener allows that. No device records it.
    pub fn open_in_flight(&self, asking: &Incoming) -> Response {
        let _under_way = self.in_flight.begin(asking, self.clock.now());
        match self.requests_under_way() {
            Ok(raw) => Response::unrecorded(raw),
            Err(error) => Response::failed(&error),
        }
    }
}
