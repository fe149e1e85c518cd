//! Identity: entities, their aliases in auth methods, and groups. A login creates its entity; the engine at `identity/`
//! has the API.
//!
//! | key, below `identity/` | record |
//! |---|---|
//! | `entity/<id>` | an [`Entity`] with its aliases, of which it has at most one for each mount |
//! | `entity-name/<name>` | the entity of a name |
//! | `alias/<mount accessor>/<name>` | the entity of an alias |
//! | `alias-id/<id>` | the entity of an alias |
//! | `merged/<id>` | the entity that a former entity was merged into |
//! | `group/<id>`, `group-name/<name>` | a [`Group`], and the group of a name |
//! | `group-alias/<mount accessor>/<name>`, `group-alias-id/<id>` | the group of an alias |
//! | `member/`, `member-of/`, `child/`, `child-of/` | memberships, see [`membership`] |
//! | `converted` | the progress of the conversion of older records, see [`convert`] |
//! | `oidc/` | the OIDC provider |
//! | `mfa/` | login MFA |
//!
//! A name or an alias is the key of a record, so a second one cannot be stored: of two requests that write it at the same
//! time one conflicts and runs again. `<name>` is a hash of the folded name.
//!
//! Tests of the whole: `tests/identity.rs`, `tests/identity_logins.rs`, `tests/identity_nodes.rs`, and
//! `conformance/scenarios/identity`.

mod aliases;
pub(crate) mod convert;
mod effective;
mod engine;
mod entities;
mod expiring;
mod groups;
mod handlers;
mod key_material;
mod login;
mod login_identity;
mod membership;
mod merge;
mod metadata;
mod mfa;
pub(crate) mod names;
mod oidc;
mod proved_login;
mod record;
mod store;

pub(crate) use effective::{Changes, Effective};
pub(crate) use engine::IdentityEngine;
pub(crate) use login_identity::LoginIdentity;
pub(crate) use mfa::{
    MFA_PENDING, MfaCredentials, MfaOutcome, MfaRequirement, SentWithLogin, delete_expired_logins, delete_orphans,
};
pub(crate) use oidc::{OidcState, delete_expired_codes, rotate_due_keys};
pub(crate) use proved_login::{ProvedLogin, ProvedTerms};
pub(crate) use record::Entity;
pub(crate) use store::Identity;
