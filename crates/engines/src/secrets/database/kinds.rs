//! The kinds of database by plugin name, one entry each.

use std::sync::Arc;

use super::details::Details;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Clock;

use super::connection::{Database, OpenError};
use super::credential::Certificates;
use super::files::FileDirectories;
use super::mysql::{self, MySql};
use super::postgres::{self, Postgres};
use super::redact::{self, Redacted};
use super::redis::{self, Redis};

/// The properties of a kind that the engine needs before it connects.
pub(super) struct Kind {
    plugin: &'static str,
    /// The default template of user names.
    pub(super) username_template: &'static str,
    /// The maximum length of a user name, in characters.
    pub(super) max_name_length: usize,
    /// Whether a role must have creation statements.
    pub(super) needs_creation_statements: bool,
    /// How the kind identifies users by certificates, if it does.
    pub(super) certificates: Option<Certificates>,
    /// The settings in responses.
    pub(super) public: &'static [&'static str],
    /// Rebuilds a connection string from its parsed form for responses; `None` if it cannot be parsed.
    pub(super) masked_url: fn(&str) -> Option<String>,
    /// Whether the connection string contains a password, which causes a warning.
    pub(super) has_password: fn(&str) -> bool,
    open: Open,
}

type Open = fn(&Details, &SecretString, &FileDirectories, Arc<dyn Clock>) -> Result<Arc<dyn Database>, OpenError>;

const KINDS: &[Kind] = &[
    Kind {
        plugin: "postgresql-database-plugin",
        username_template: "v-{{.DisplayName | truncate 8}}-{{.RoleName | truncate 8}}-{{random 20}}-{{unix_time}}",
        max_name_length: 63,
        needs_creation_statements: true,
        // For the method `cert` of pg_hba.conf; a user without a password cannot log in otherwise.
        certificates: Some(Certificates { subject: |name| format!("CN={name}"), needs_subject: false }),
        public: postgres::PUBLIC,
        masked_url: postgres::masked_url,
        has_password: postgres::has_password,
        open: |details, password, files, clock| Ok(Arc::new(Postgres::open(details, password, files, clock)?)),
    },
    Kind { plugin: "mysql-database-plugin", username_template: LONG_NAME, max_name_length: 32, ..MYSQL },
    Kind { plugin: "mysql-aurora-database-plugin", ..MYSQL },
    Kind { plugin: "mysql-rds-database-plugin", ..MYSQL },
    Kind { plugin: "mysql-legacy-database-plugin", ..MYSQL },
    Kind { plugin: "valkey-database-plugin", ..REDIS },
    Kind { plugin: "redis-database-plugin", ..REDIS },
];

const LONG_NAME: &str = "v-{{.DisplayName | truncate 10}}-{{.RoleName | truncate 10}}-{{random 20}}-{{unix_time}}";

/// Old servers keep 16 characters of a name; OpenBao uses that limit for all flavours but the first.
const MYSQL: Kind = Kind {
    plugin: "",
    username_template: "v-{{.RoleName | truncate 4}}-{{random 20}}-{{unix_time}}",
    max_name_length: 16,
    needs_creation_statements: true,
    certificates: Some(Certificates { subject: |name| format!("/CN={name}"), needs_subject: true }),
    public: mysql::PUBLIC,
    masked_url: mysql::masked_url,
    // As in OpenBao, whose warning applies to URLs only.
    has_password: |_| false,
    open: |details, password, files, clock| Ok(Arc::new(MySql::open(details, password, files, clock)?)),
};

const REDIS: Kind = Kind {
    plugin: "",
    username_template: "V_{{.DisplayName | uppercase}}_{{.RoleName | uppercase}}_{{random 20 | uppercase}}_{{unix_time}}",
    max_name_length: 256,
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
    /// With OpenBao's text, when the kind does not exist.
    pub(super) fn by_name(plugin: &str) -> Result<&'static Self, String> {
        let unknown = || format!("plugin not found in the catalog: {plugin}");
        KINDS.iter().find(|kind| kind.plugin == plugin).ok_or_else(unknown)
    }

    /// Opens a connection of this kind with errors that contain no secret; sends nothing to the database yet.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn open(
        &self,
        details: &Details,
        password: &SecretString,
        files: &FileDirectories,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn Database>, OpenError> {
        let secrets = redact::secrets_of(details, password);
        match (self.open)(details, password, files, clock.clone()) {
            Ok(database) => Ok(Arc::new(Redacted::new(database, secrets))),
            Err(OpenError::Setting(text)) => Err(OpenError::Setting(redact::redacted(&text, None, &secrets))),
            Err(OpenError::Url(text)) => Err(OpenError::Url(redact::redacted(&text, None, &secrets))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_plugin_has_the_limits_of_openbao() {
        let names: Vec<_> = KINDS.iter().map(|kind| (kind.plugin, kind.max_name_length)).collect();
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
        let unknown = Kind::by_name("mongodb-database-plugin").err().unwrap();
        assert_eq!(unknown, "plugin not found in the catalog: mongodb-database-plugin");
    }
}
