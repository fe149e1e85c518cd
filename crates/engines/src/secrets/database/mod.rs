//! The database engine: dynamic users that exist for the time of a lease, and static users whose passwords are rotated.
//!
//! Changes in a database cannot be part of a storage transaction. So the lease of a user is durable before the user is
//! created, and a new password is stored beside the old one until the database has accepted it.
//!
//! A kind of database is one folder here and one entry in `kinds.rs`, whose `certificates` declares how it identifies
//! users by certificate, if it does. Credentials are generated in `credential/`.

mod config;
mod connection;
mod credential;
mod creds;
mod details;
mod error;
mod files;
pub(crate) mod fuzzing;
mod kinds;
mod mysql;
mod placeholders;
mod pool;
mod postgres;
mod reconcile;
mod redact;
mod redis;
mod roles;
mod rotation;
mod rotation_backoff;
mod schedule;
mod statement;
mod static_roles;
mod static_rotation;
mod stored_limits;
#[cfg(test)]
mod tests;
mod tls;
mod username;
mod version;

use std::sync::atomic::{AtomicBool, Ordering};

use keepfast_framework::engine::Gauge;
use keepfast_framework::routes::Help;
use keepfast_framework::{Cx, Engine, HeldLease, Kind, LeaseTerms, Result, Routes};

use self::connection::Connections;
use self::files::FileDirectories;
use self::rotation::RunningRotations;
use self::rotation_backoff::RotationBackoff;
use self::static_rotation::NextRotation;

/// The database engine.
pub struct DatabaseEngine {
    connections: Connections,
    rotating: RunningRotations,
    rotating_static: RunningRotations,
    rotation_backoff: RotationBackoff,
    next_rotation: NextRotation,
    /// Whether stored texts beyond the limits were logged.
    limits_logged: AtomicBool,
}

impl Engine for DatabaseEngine {
    const TYPE: &'static str = "database";
    const KIND: Kind = Kind::Secrets;
    const IN_BACKGROUND: bool = true;
    const TICKS_OFTEN: bool = true;
    const WRAPPED: &'static [&'static str] = &[config::FOLDER, static_roles::FOLDER, rotation::PENDING_FOLDER];

    fn routes(r: &mut Routes<Self>) {
        r.path("config/", CONFIGS).list(config::list);
        r.path("config/{name}", CONFIG)
            .names_only()
            .exists(config::exists)
            .read(config::read)
            .update(config::write)
            .delete(config::delete);
        r.path("reset/{name}", RESET).names_only().update(config::reset).once();
        r.path("reload/{plugin}", RELOAD).update(config::reload);
        r.path("reconcile/{name}", RECONCILE).read(reconcile::read).update(reconcile::remove).sudo().once();
        r.path("roles/", ROLES).list(roles::list);
        r.path("roles/{name}", ROLE)
            .names_only()
            .exists(roles::exists)
            .read(roles::read)
            .update(roles::write)
            .delete(roles::delete);
        r.path("creds/{name}", CREDS).names_only().read(creds::read).once();
        r.path("rotate-root/{name}", ROTATE_ROOT).names_only().update(rotation::rotate_root).once();
        r.path("static-roles/", STATIC_ROLES).list(static_roles::list);
        r.path("static-roles/{name}", STATIC_ROLE)
            .names_only()
            .exists(static_roles::exists)
            .read(static_roles::read)
            .update(static_roles::write)
            .delete(static_roles::delete)
            .once();
        r.path("static-creds/{name}", STATIC_CREDS).names_only().read(static_roles::creds);
        r.path("rotate-role/{name}", ROTATE_ROLE).names_only().update(static_rotation::rotate_now).once();
    }

    fn plugins() -> Vec<&'static str> {
        kinds::names()
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.connections.gauges()
    }

    async fn open(cx: &mut Cx) -> Result<Self> {
        Ok(DatabaseEngine {
            connections: Connections::new(FileDirectories::new(&cx.file_directories())),
            rotating: RunningRotations::default(),
            rotating_static: RunningRotations::default(),
            rotation_backoff: RotationBackoff::default(),
            next_rotation: NextRotation::new(1, 1),
            limits_logged: AtomicBool::default(),
        })
    }

    fn invalidate(&self, key: &str, _exists: bool) {
        if let Some(name) = key.strip_prefix(config::FOLDER) {
            self.connections.close(name);
        }
        if key.starts_with(static_roles::FOLDER) {
            self.next_rotation.clear();
        }
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        if !self.limits_logged.swap(true, Ordering::Relaxed) {
            stored_limits::log(cx).await?;
        }
        let recovered = rotation::recover_all(self, cx).await;
        static_rotation::tick(self, cx).await.and(recovered)
    }

    async fn renew_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<LeaseTerms> {
        creds::renew(self, cx, lease).await
    }

    async fn revoke_lease(&self, cx: &mut Cx, lease: &HeldLease) -> Result<()> {
        creds::revoke(self, cx, lease).await
    }
}

const CONFIGS: Help = Help { synopsis: "Lists the names of the connections.", description: "" };
const CONFIG: Help = Help {
    synopsis: "Reads, writes or deletes a connection to a database.",
    description: "Absent settings keep their values. The password is never returned. With TLS the server's certificate is always verified.",
};
const RESET: Help = Help { synopsis: "Closes a connection's pool, then reopens and verifies it.", description: "" };
const RELOAD: Help =
    Help { synopsis: "Closes the pools of all connections of a kind; the next use reopens each.", description: "" };
const RECONCILE: Help = Help {
    synopsis: "Lists or removes the users without a lease whose names match the username_template.",
    description: "A read lists them. A write removes those in `usernames`, which must be in the list. Only the leases of the database \
                  mounts of this server count: do not use it if another server creates users with the same pattern in the same \
                  database, because they would be listed here.",
};
const ROLES: Help = Help { synopsis: "Lists the names of the roles.", description: "" };
const ROLE: Help = Help {
    synopsis: "Reads, writes or deletes a role: the statements that create and revoke users, and their TTLs.",
    description: "Statements have the placeholders {{name}} or {{username}}, {{password}} or {{subject}}, and {{expiration}}. Each list runs in one transaction.",
};
const CREDS: Help = Help {
    synopsis: "Creates a user with a lease.",
    description: "The user is dropped when the lease expires or is revoked.",
};
const ROTATE_ROOT: Help = Help {
    synopsis: "Rotates the administrator's password to one that only this server knows.",
    description: "The new password is stored beside the old one until a login proves which of them the database has.",
};
const STATIC_ROLES: Help = Help { synopsis: "Lists the names of the static roles.", description: "" };
const STATIC_ROLE: Help = Help {
    synopsis: "Reads, writes or deletes a static role: an existing user whose password is rotated.",
    description: "Statements have the placeholders {{name}} or {{username}} and {{password}}.",
};
const STATIC_CREDS: Help = Help { synopsis: "Returns the current password of a static role.", description: "" };
const ROTATE_ROLE: Help = Help { synopsis: "Rotates the password of a static role now.", description: "" };
