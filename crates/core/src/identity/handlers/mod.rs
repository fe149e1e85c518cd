//! `identity/`: the API of entities, aliases and groups.

mod alias;
mod entity;
mod group;
mod group_alias;
mod lookup;
mod merge;
mod response;

use keepfast_framework::engine::BuiltIn;
use keepfast_framework::{Cx, Engine, Error, Kind, Result, Routes};

use super::engine::IdentityEngine;
use super::{mfa, oidc};
use crate::layout::{IDENTITY_MOUNT, IDENTITY_STORAGE};

impl Engine for IdentityEngine {
    const TYPE: &'static str = "identity";
    const KIND: Kind = Kind::Secrets;
    const BUILT_IN: Option<BuiltIn> = Some(BuiltIn {
        storage: Some(IDENTITY_STORAGE),
        passthrough_request_headers: &["Authorization"],
        ..BuiltIn::at(IDENTITY_MOUNT, "identity store")
    });
    const IN_CORE: bool = true;
    const IN_BACKGROUND: bool = true;
    const WRAPPED: &'static [&'static str] = &[oidc::WRAPPED[0], oidc::WRAPPED[1], mfa::WRAPPED[0]];

    fn routes(r: &mut Routes<Self>) {
        entity::routes(r);
        merge::routes(r);
        alias::routes(r);
        group::routes(r);
        group_alias::routes(r);
        lookup::routes(r);
        oidc::routes(r);
        mfa::routes(r);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Err(Error::internal("opened by core itself"))
    }
}
