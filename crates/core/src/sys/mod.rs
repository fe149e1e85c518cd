//! `sys/`: the API of the server, an engine like any other with exactly one mount.

mod audit;
mod audited_headers;
mod capabilities;
mod config_state;
mod control_group;
mod cors;
mod counters;
mod explain;
mod external_keys;
mod generate_root;
mod ha_status;
mod health;
mod host_info;
pub(crate) mod in_flight;
mod init;
mod inspect;
mod keyring;
mod leader;
mod lease_quotas;
pub(crate) mod lease_top;
mod leases;
mod locked_users;
mod loggers;
pub(crate) mod metrics;
mod mfa;
mod mount_response;
mod mounts;
mod namespaces;
mod openapi;
mod password_policies;
mod plugin_version;
mod plugins;
mod policies;
mod quotas;
mod raft;
mod rekey;
mod rekey_backup;
mod rekey_request;
mod remount;
mod reserved_paths;
mod rotate_config;
mod rotate_root;
mod seal;
mod seal_status;
pub(crate) mod sealed;
mod seals;
mod sealwrap;
mod system;
mod tools;
mod tune;
mod ui;
mod ui_headers;
mod unauthed_endpoints;
mod unseal;
mod version_history;
mod wrapping;

use keepfast_framework::engine::BuiltIn;
use keepfast_framework::{Cx, Engine, Error, Kind, Result, Routes};

pub(crate) use system::System;
use system::{call, unsealed};

use crate::layout::{SYSTEM_MOUNT, SYSTEM_STORAGE};

impl Engine for System {
    const TYPE: &'static str = "system";
    const KIND: Kind = Kind::Secrets;
    const BUILT_IN: Option<BuiltIn> = Some(BuiltIn {
        storage: Some(SYSTEM_STORAGE),
        seal_wrap: true,
        passthrough_request_headers: &["Accept"],
        ..BuiltIn::at(SYSTEM_MOUNT, "system endpoints used for control, policy and debugging")
    });
    const IN_CORE: bool = true;

    fn routes(r: &mut Routes<Self>) {
        mounts::routes(r);
        tune::routes(r);
        remount::routes(r);
        namespaces::routes(r);
        policies::routes(r);
        explain::routes(r);
        password_policies::routes(r);
        capabilities::routes(r);
        wrapping::routes(r);
        mfa::routes(r);
        control_group::routes(r);
        leases::routes(r);
        keyring::routes(r);
        rotate_config::routes(r);
        generate_root::routes(r);
        rotate_root::routes(r);
        rekey_backup::routes(r);
        unauthed_endpoints::routes(r);
        init::routes(r);
        seal_status::routes(r);
        unseal::routes(r);
        seal::routes(r);
        seals::routes(r);
        external_keys::routes(r);
        sealwrap::routes(r);
        health::routes(r);
        leader::routes(r);
        audit::routes(r);
        tools::routes(r);
        audited_headers::routes(r);
        cors::routes(r);
        ui_headers::routes(r);
        lease_quotas::routes(r);
        quotas::routes(r);
        loggers::routes(r);
        plugins::routes(r);
        config_state::routes(r);
        ha_status::routes(r);
        version_history::routes(r);
        counters::routes(r);
        inspect::routes(r);
        host_info::routes(r);
        in_flight::routes(r);
        locked_users::routes(r);
        metrics::routes(r);
        ui::routes(r);
        openapi::routes(r);
        raft::routes(r);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by core itself"))
    }
}
