//! Issuers: the configured scheme, host and port, or the API address of the leader.

use keepfast_framework::{Cx, Error, Result};

use super::records::CONFIG;
use super::redirect::is_issuer;
use crate::identity::engine::unsealed;

/// The warning of a write of an issuer.
const WARNING: &str = "If \"issuer\" is set explicitly, all tokens must be validated against that address, including \
    those issued by secondary clusters. Setting issuer to \"\" will restore the default behavior of using the \
    cluster's api_addr as the issuer.";

/// Checks an issuer that is written, and warns about it.
///
/// # Errors
/// 400 when it is not only a scheme, a host and a port.
pub(super) fn checked(cx: &mut Cx, issuer: String) -> Result<String> {
    if issuer.is_empty() {
        return Ok(issuer);
    }
    if !is_issuer(&issuer) {
        let text = "invalid issuer, which must include only a scheme, host, and optional port (e.g. \
            https://example.com:8200)";
        return Err(Error::invalid(text));
    }
    cx.warn(WARNING);
    Ok(issuer)
}

/// The base of URLs: `configured`, or the API address of the leader, so that all nodes have the same issuer.
pub(super) fn base(cx: &Cx, configured: &str) -> Result<String> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    let unsealed = unsealed(cx)?;
    let leader = unsealed.access.identity.oidc.leader_address();
    let address = leader.unwrap_or_else(|| unsealed.settings.api_addr.clone());
    Ok(address.trim_end_matches('/').to_owned())
}

/// The path of the namespace of the call, such as `a/`; empty for root.
pub(super) fn namespace(cx: &Cx) -> Result<String> {
    Ok(unsealed(cx)?.access.namespace.path.to_string())
}

/// The issuer of the tokens of roles.
pub(super) async fn of_roles(cx: &mut Cx) -> Result<String> {
    let configured = CONFIG.get(cx, "").await?.unwrap_or_default().issuer;
    Ok(format!("{}/v1/{}identity/oidc", base(cx, &configured)?, namespace(cx)?))
}

/// The issuer of a provider.
pub(super) fn of_provider(cx: &Cx, name: &str, configured: &str) -> Result<String> {
    Ok(format!("{}/v1/{}identity/oidc/provider/{name}", base(cx, configured)?, namespace(cx)?))
}
