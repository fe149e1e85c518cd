//! The OIDC provider at `identity/oidc/`.

use keepfast_framework::Routes;

use super::engine::IdentityEngine;

/// Adds the paths of the provider.
pub(super) fn routes(_: &mut Routes<IdentityEngine>) {}
