//! `identity/mfa/`: the API of MFA methods and login enforcements.

mod enforcement;
mod enroll;
mod method;
mod totp;

use keepfast_framework::Routes;

use crate::identity::engine::IdentityEngine;

/// Adds the paths of MFA.
pub(crate) fn routes(r: &mut Routes<IdentityEngine>) {
    method::routes(r);
    totp::routes(r);
    enroll::routes(r);
    enforcement::routes(r);
}
