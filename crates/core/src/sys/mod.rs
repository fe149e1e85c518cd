//! `sys/`: the API of the server itself, as an engine like any other, at the one mount that it has.

mod audit;
mod capabilities;
mod keys;
mod lease_top;
mod leases;
mod mount_shown;
mod mounts;
mod openapi;
mod password_policies;
mod policies;
mod remount;
mod rotation;
mod tools;
mod tune;
mod ui;
mod wrapping;

use std::sync::{Arc, Weak};

use keepfast_framework::{Cx, Engine, Error, Kind, Result, Routes};

use crate::node::Node;
use crate::request::dispatch::CoreCall;
use crate::unsealed::Unsealed;

/// The engine at `sys/`.
pub struct System {
    node: Weak<Node>,
}

impl System {
    pub(crate) fn open(node: &Weak<Node>) -> Result<Self> {
        Ok(System { node: node.clone() })
    }

    fn node(&self) -> Result<Arc<Node>> {
        self.node.upgrade().ok_or_else(crate::node::sealed)
    }

    fn unsealed(&self) -> Result<Arc<Unsealed>> {
        self.node()?.unsealed().ok_or_else(crate::node::sealed)
    }
}

/// What core knows of the call.
fn call(cx: &Cx) -> Result<Arc<CoreCall>> {
    cx.core::<CoreCall>().ok_or_else(|| Error::internal("a system request without core's part"))
}

impl Engine for System {
    const TYPE: &'static str = "system";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        mounts::routes(r);
        tune::routes(r);
        remount::routes(r);
        policies::routes(r);
        password_policies::routes(r);
        capabilities::routes(r);
        wrapping::routes(r);
        leases::routes(r);
        keys::routes(r);
        rotation::routes(r);
        audit::routes(r);
        tools::routes(r);
        ui::routes(r);
        openapi::routes(r);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by core itself"))
    }
}
