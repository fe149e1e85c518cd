//! The kinds of database there are, by their names as plugins: one line each.

use std::sync::Arc;

use super::details::Details;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Clock;

use super::connection::{Database, Unusable};
use super::credential::Certificates;
use super::files::FileDirectories;
use super::mysql::{self, MySql};
use super::postgres::{self, Postgres};
use super::redact::{self, Redacted};
use super::redis::{self, Redis};

/// What the engine has to know of a kind before it is connected.
pub(super) struct Kind {
    plugin: &'static str,
    /// The template of users' names, where a connection has none of its own.
    pub(super) username_template: &'static str,
    /// How long a user's name may be, in characters.
    pub(super) longest_name: usize,
    /// Whether a role has to say how a user is made.
    pub(super) needs_creation_statements: bool,
    /// How it knows users by their certificates, if it does.
    pub(super) certificates: Option<Certificates>,
    /// The settings that reads show.
    pub(super) public: &'static [&'static str],
    /// A connection string for answers, rebuilt from its parsed form; `None` where it cannot be parsed.
    pub(super) masked_url: fn(&str) -> Option<String>,
    /// Whether a warning is due because a password is written in the connection string.
    pub(super) has_password: fn(&str) -> bool,
    open: Open,
}

type Open = fn(&Details, &SecretString, &FileDirectories, Arc<dyn Clock>) -> Result<Arc<dyn Database>, Unusable>;

const KINDS: &[Kind] = &[
    Kind {
        plugin: "postgresql-database-plugin",
        username_template: "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}",
        longest_name: 63,
        needs_creation_statements: true,
        // By the method `cert` of pg_hba.conf; who has no password has no other way in.
        certificates: Some(Certificates { subject: |name| format!("CN={name}"), needs_subject: false }),
        public: postgres::PUBLIC,
        masked_url: postgres::masked_url,
        has_password: postgres::has_password,
        open: |details, password, files, clock| Ok(Arc::new(Postgres::open(details, password, files, clock)?)),
    },
    Kind { plugin: "mysql-database-plugin", username_template: LONG_NAME, longest_name: 32, ..MYSQL },
    Kind { plugin: "mysql-aurora-database-plugin", ..MYSQL },
    Kind { plugin: "mysql-rds-database-plugin", ..MYSQL },
    Kind { plugin: "mysql-legacy-database-plugin", ..MYSQL },
    Kind { plugin: "valkey-database-plugin", ..REDIS },
    Kind { plugin: "redis-database-plugin", ..REDIS },
];

const LONG_NAME: &str = "v-{{.DisplayName | truncate 10}}-{{.RoleName | truncate 10}}-{{random 20}}-{{unix_time}}";

/// Old servers keep 16 characters of a name; the peer has that for all flavours but the first.
const MYSQL: Kind = Kind {
    plugin: "",
    username_template: "v-{{.RoleName | truncate 4}}-{{random 20}}-{{unix_time}}",
    longest_name: 16,
    needs_creation_statements: true,
    certificates: Some(Certificates { subject: |name| format!("/CN={name}"), needs_subject: true }),
    public: mysql::PUBLIC,
    masked_url: mysql::masked_url,
    // As OpenBao, whose warning knows URLs only.
    has_password: |_| false,
    open: |details, password, files, clock| Ok(Arc::new(MySql::open(details, password, files, clock)?)),
};

const REDIS: Kind = Kind {
    plugin: "",
    username_template: "V_{{.DisplayName | uppercase}}_{{.RoleName | uppercase}}_{{random 20 | uppercase}}_{{unix_time}}",
    longest_name: 256,
    needs_creation_statements: false,
    certificates: None,
    public: redis::PUBLIC,
    masked_url: redis::masked_url,
    has_password: redis::has_password,
    open: |details, password, _, clock| Ok(Arc::new(Redis::open(details, password, clock)?)),
};

/// The names of all kinds.
pub(super) fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.plugin).collect()
}

impl Kind {
    /// The kind of this name.
    ///
    /// # Errors
    /// As the peer has it, when there is none.
    pub(super) fn of(plugin: &str) -> Result<&'static Self, String> {
        let unknown = || format!("plugin not found in the catalog: {plugin}");
        KINDS.iter().find(|kind| kind.plugin == plugin).ok_or_else(unknown)
    }

    /// Opens a connection of this kind, whose errors hold no secret; nothing is sent to the database yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn open(
        &self,
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn Database>, Unusable> {
        let secrets = redact::secrets_of(details, password);
        match (self.open)(details, password, files, clock.clone()) {
            Ok(database) => Ok(Arc::new(Redacted::new(database, secrets))),
            Err(Unusable::Setting(text)) => Err(Unusable::Setting(redact::redacted(&text, None, &secrets))),
            Err(Unusable::Url(text)) => Err(Unusable::Url(redact::redacted(&text, None, &secrets))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_of_the_peer_that_is_built_has_its_limits() {
        let names: Vec<_> = KINDS.iter().map(|kind| (kind.plugin, kind.longest_name)).collect();
        let expected = [
            ("postgresql-database-plugin", 63),
            ("mysql-database-plugin", 32),
            ("mysql-aurora-database-plugin", 16),
            ("mysql-rds-database-plugin", 16),
            ("mysql-legacy-database-plugin", 16),
            ("valkey-database-plugin", 256),
            ("redis-database-plugin", 256),
        ];
        assert_eq!(names, expected);
        let unknown = Kind::of("mongodb-database-plugin").err().unwrap();
        assert_eq!(unknown, "plugin not found in the catalog: mongodb-database-plugin");
    }
}
