//! Stored texts that exceed newer limits. They are logged once, because such a text may fail when it is used.

use keepfast_framework::{Cx, Page, Result};

use super::config::{CONFIGS, Config};
use super::roles::{ROLES, Role};
use super::statement::check_limits;
use super::static_roles::{STATIC_ROLES, StaticRole};
use super::username;

/// Logs the connections and roles with such texts.
///
/// # Errors
/// When storage fails.
pub(super) async fn log(cx: &mut Cx) -> Result<()> {
    for name in CONFIGS.list(cx, "", &Page::all()).await? {
        warn(("connection", &name), CONFIGS.get(cx, &name).await, of_connection);
    }
    for name in ROLES.list(cx, "", &Page::all()).await? {
        warn(("role", &name), ROLES.get(cx, &name).await, of_role);
    }
    for name in STATIC_ROLES.list(cx, "", &Page::all()).await? {
        warn(("static role", &name), STATIC_ROLES.get(cx, &name).await, of_static_role);
    }
    Ok(())
}

/// Logs the texts of one record. A record that cannot be decoded is skipped.
fn warn<T>((kind, name): (&str, &str), record: Result<Option<T>>, exceeded: fn(&T) -> Vec<(&'static str, String)>) {
    for (field, limit) in record.ok().flatten().map(|record| exceeded(&record)).unwrap_or_default() {
        tracing::warn!(kind, name, field, limit, "a stored text exceeds a limit; write a shorter one");
    }
}

fn of_connection(config: &Config) -> Vec<(&'static str, String)> {
    let template = config.username_template().ok().and_then(|template| username::check(&template).err());
    let template = template.map(|error| ("username_template", error.public().to_owned()));
    let statements = of_statements("root_rotation_statements", &config.root_rotation_statements);
    template.into_iter().chain(statements).collect()
}

fn of_role(role: &Role) -> Vec<(&'static str, String)> {
    let lists = [
        ("creation_statements", &role.creation_statements),
        ("renew_statements", &role.renew_statements),
        ("revocation_statements", &role.revocation_statements),
        ("rollback_statements", &role.rollback_statements),
    ];
    lists.into_iter().filter_map(|(field, list)| of_statements(field, list)).collect()
}

fn of_static_role(role: &StaticRole) -> Vec<(&'static str, String)> {
    let schedule = role.schedule_error().map(|error| ("rotation_schedule", error));
    schedule.into_iter().chain(of_statements("rotation_statements", &role.rotation_statements)).collect()
}

fn of_statements(field: &'static str, stored: &[String]) -> Option<(&'static str, String)> {
    check_limits(stored).err().map(|error| (field, error.text().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_beyond_their_limits_are_logged_by_field() {
        let named =
            |exceeded: Vec<(&'static str, String)>| exceeded.into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        let long = vec!["x".repeat(65_537)];
        let mut role = Role::default();
        role.revocation_statements = long.clone();
        assert_eq!(named(of_role(&role)), ["revocation_statements"]);
        assert!(of_role(&Role::default()).is_empty());
        let mut config = Config::default();
        config.root_rotation_statements = long;
        assert_eq!(named(of_connection(&config)), ["root_rotation_statements"]);
    }
}
