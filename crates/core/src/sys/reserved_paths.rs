//! Paths and types that no new mount may have: those of the built-in mounts, and those that OpenBao reserves.

use keepfast_framework::Kind;
use keepfast_framework::engine::Registry;

/// The types of OpenBao's built-in mounts that this server does not have.
const ABSENT_TYPES: [&str; 2] = ["ns_system", "ns_cubbyhole"];
/// Prefixes that no path of a secrets engine may have, besides the paths of built-in mounts.
const RESERVED: [&str; 2] = ["auth/", "audit/"];

/// Whether there is a built-in mount of this kind at this path.
pub(super) fn is_built_in(registry: &Registry, kind: Kind, path: &str) -> bool {
    registry.built_in().any(|(engine, built_in)| engine.kind == kind && built_in.path == path)
}

/// Whether this is the type of a built-in mount, here or on OpenBao.
pub(super) fn is_built_in_type(registry: &Registry, engine: &str) -> bool {
    ABSENT_TYPES.contains(&engine) || registry.built_in().any(|(built_in, _)| built_in.engine == engine)
}

/// Whether the path is reserved, so that no secrets engine may be mounted there.
pub(super) fn is_reserved(registry: &Registry, path: &str) -> bool {
    let secrets = registry.built_in().filter(|(engine, _)| engine.kind == Kind::Secrets);
    let mut first = secrets.map(|(_, built_in)| built_in.path).chain(RESERVED);
    path.starts_with('/') || first.any(|reserved| path.starts_with(reserved))
}
