//! `sys/mfa/validate`: completes a login that waits for its MFA.

use keepfast_framework::fields::{Object, Text};
use keepfast_framework::reply::LoggedIn;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Error, Result, Routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{System, unsealed};
use crate::identity::MfaCredentials;
use crate::request::login::LoginIssuer;

const HELP: Help = Help {
    synopsis: "Completes a login that waits for its MFA, and returns its token.",
    description: "A login that is subject to MFA returns `mfa_requirement` with the id of the request and the MFA methods.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("mfa/validate", HELP).update(validate).unauthenticated();
}

#[derive(Deserialize, JsonSchema)]
struct Validate {
    /// Id of the request, from `mfa_requirement` of the login.
    mfa_request_id: Option<Text>,
    /// Codes by the id or the name of an MFA method, a list for each.
    mfa_payload: Option<Object>,
}

async fn validate(_: &System, cx: &mut Cx, req: Validate) -> Result<LoggedIn> {
    let Some(request_id) = req.mfa_request_id.filter(|id| !id.is_empty()) else {
        return Err(Error::invalid("missing request ID"));
    };
    let unsealed = unsealed(cx)?;
    let (identity, tokens) = (&unsealed.access.identity, &unsealed.access.tokens);
    let (now, invalid) = (cx.now(), || Error::invalid("invalid request ID"));
    let (tx, _) = cx.store();
    let pending = identity.pending_login(tx, tokens, &request_id, now).await?.ok_or_else(invalid)?;
    let credentials = MfaCredentials::of_payload(req.mfa_payload.map(|Object(map)| map).unwrap_or_default())?;
    let router = unsealed.engines.mounts.router();
    let mounted = router.by_accessor(&pending.login.mount_accessor).cloned().ok_or_else(invalid)?;
    let wrap_ttl = pending.wrap_ttl;
    let pending = (&*request_id, pending);
    let login = identity.complete_mfa(tx, tokens, &mounted.info, pending, &credentials, now).await?;
    unsealed.engines.mounts.conflict_with_unmount(tx, &mounted).await?;
    let (auth, warnings) = LoginIssuer::new(&unsealed).issue(tx, &mounted, login, now).await?;
    warnings.into_iter().for_each(|warning| cx.warn(warning));
    Ok(LoggedIn { auth: Box::new(auth), wrap_ttl })
}
