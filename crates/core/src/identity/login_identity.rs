//! The entity and the alias of a login.

use serde::{Deserialize, Serialize};

/// The identity of a login: an entity and the alias that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoginIdentity {
    /// The id of the entity; empty for none.
    pub(crate) entity: String,
    /// The id of the alias; empty for none.
    pub(crate) alias: String,
    /// Whether this login created the entity.
    #[serde(skip)]
    pub(crate) created: bool,
    /// Whether this login changed the groups of the entity.
    #[serde(skip)]
    pub(crate) regrouped: bool,
}
