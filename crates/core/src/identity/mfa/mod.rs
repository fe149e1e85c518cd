//! Login MFA: a login that an enforcement binds gets its token only with a code of one of the enforcement's methods.
//!
//! | key, below `identity/mfa/` | record |
//! |---|---|
//! | `method/<id>`, `method-name/<name>` | a [`records::Method`], and the method of a name |
//! | `enforcement/<name>` | a [`records::Enforcement`] |
//! | `method-enforcement/<method>/<name>` | the enforcements that refer to a method |
//! | `secret/<entity>/<method>`, `enrolled/<method>/<entity>` | the secret of an entity for a method |
//! | `attempts/<entity>/<method>` | its last accepted code, and its wrong codes |
//! | `pending/<keyed hash>` | a login that waits for its MFA |
//! | `pending-of/<entity>/<expiry>-<keyed hash>` | the pending logins of an entity, to bound and to delete them |
//!
//! A login runs in one transaction: it reads the enforcements, and either stores the pending login or writes the accepted
//! code and the token. So a code and a pending login count once, on any node and after a restart. Wrong codes are counted
//! in a transaction of their own, before the refusal.
//!
//! Tests of the whole: `tests/mfa.rs`, `tests/mfa_methods.rs`, `conformance/scenarios/identity/mfa*.yaml`.

mod check;
mod credentials;
mod handlers;
mod login;
mod orphans;
mod pending;
mod qr;
mod records;
mod requirement;
mod rules;
mod secrets;
mod totp;

pub(crate) use credentials::MfaCredentials;
pub(super) use handlers::routes;
pub(crate) use login::{MFA_PENDING, MfaOutcome, SentWithLogin};
pub(crate) use orphans::delete_orphans;
pub(crate) use pending::delete_expired_logins;
pub(crate) use requirement::MfaRequirement;
pub(crate) use rules::MfaRules;

/// The prefixes of records with secrets, which seal wrap encrypts.
pub(super) const WRAPPED: [&str; 1] = [records::SECRET_FOLDER];
