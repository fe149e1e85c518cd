//! The route tables of all engines without a server, for tools that read policies.

use std::collections::BTreeMap;

use keepfast_framework::engine::{Registered, Registry};
use keepfast_framework::{Kind, Table};

use crate::identity::IdentityEngine;
use crate::sys::System;
use crate::token::TokenAuth;

/// A mount as `sys/mounts` and `sys/auth` show it.
#[derive(Clone, Debug, Default)]
pub struct KnownMount {
    /// Its path with the final slash; that of an auth method begins with `auth/`.
    pub path: String,
    /// The type of its engine.
    pub engine: String,
    /// Its options, such as `version`.
    pub options: BTreeMap<String, String>,
}

impl KnownMount {
    fn kind(&self) -> Kind {
        if self.path.starts_with("auth/") { Kind::Auth } else { Kind::Secrets }
    }
}

/// The route tables of this build, with the mounts of a server where they are known.
pub struct EngineTables {
    registry: Registry,
    mounts: Option<Vec<KnownMount>>,
}

impl EngineTables {
    /// The tables of these engines and those of the kernel. `mounts` are all mounts of the server, if they are known.
    pub fn new(engines: Registry, mounts: Option<Vec<KnownMount>>) -> Self {
        let own = vec![Registered::of::<System>(), Registered::of::<TokenAuth>(), Registered::of::<IdentityEngine>()];
        EngineTables { registry: engines.preceded_by(own), mounts }
    }

    /// The mounts of the server, if they are known.
    pub(super) fn mounts(&self) -> Option<&[KnownMount]> {
        self.mounts.as_deref()
    }

    /// The mount of a path, as far as it is known: its path and its engine.
    pub(super) fn find(&self, path: &str) -> Option<(&str, &Registered)> {
        let built_in = self.registry.built_in().map(|(engine, built_in)| (built_in.path, engine));
        if let Some(found) = built_in.filter(|(mount, _)| path.starts_with(mount)).max_by_key(|(mount, _)| mount.len())
        {
            return Some(found);
        }
        let mounts = self.mounts.iter().flatten().filter(|mount| path.starts_with(&mount.path));
        let mount = mounts.max_by_key(|mount| mount.path.len())?;
        Some((&mount.path, self.engine_of(mount)?))
    }

    /// The engine of a mount, if this build has it.
    pub(super) fn engine_of(&self, mount: &KnownMount) -> Option<&Registered> {
        self.registry.find(mount.kind(), &mount.engine, &mount.options)
    }

    /// Whether a mount of every server, or of this one, has paths that begin with `head`, or contains `head`.
    pub(super) fn touches(&self, head: &str) -> bool {
        let near = |mount: &str| mount.starts_with(head) || head.starts_with(mount);
        let built_in = self.registry.built_in().any(|(_, built_in)| near(built_in.path));
        built_in || self.mounts.iter().flatten().any(|mount| near(&mount.path))
    }
}

/// Whether the table is that of KV version 2, the only engine whose rows have a nested parameter.
pub(super) fn is_kv_version_2(table: &Table) -> bool {
    table.rows().iter().any(|row| row.nested.is_some())
}
