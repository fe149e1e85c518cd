//! The parts of a response, in the order of Vault's command line.

use keepfast_client::{Auth, Secret, WrapInfo, duration};
use serde_json::{Map, Value};

use super::sorted;
use super::text::{of_field, plain, quoted_list};

/// The table rows of a response.
pub(crate) fn rows(secret: &Secret) -> Vec<Vec<String>> {
    let mut rows = lease_rows(secret);
    if let Some(auth) = &secret.auth {
        rows.extend(auth_rows(auth));
    }
    if let Some(wrap) = &secret.wrap_info {
        rows.extend(wrap_rows(wrap));
    }
    rows.extend(secret.data.iter().flat_map(data_rows));
    rows
}

/// The table rows of a map.
pub(crate) fn data_rows(data: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = data.iter().map(|(key, value)| vec![key.clone(), of_field(key, value)]).collect();
    rows.sort();
    rows
}

/// A field by its name in the table, else a field of the data.
pub(crate) fn field(secret: &Secret, name: &str) -> Option<Value> {
    let of_lease = match name {
        "refresh_interval" | "lease_duration" if secret.lease_duration > 0 => Some(secret.lease_duration.into()),
        "lease_id" if !secret.lease_id.is_empty() => Some(secret.lease_id.clone().into()),
        _ => None,
    };
    let of_auth = || secret.auth.as_ref().and_then(|auth| auth_field(auth, name));
    let of_wrapping = || secret.wrap_info.as_ref().and_then(|wrap| wrap_field(wrap, name));
    let of_data = || secret.data_field(name).filter(|value| !value.is_null()).cloned();
    of_auth().or_else(of_wrapping).or_else(of_data).or(of_lease).or_else(|| match (name, &secret.data) {
        ("data", Some(data)) => Some(Value::Object(data.clone())),
        _ => None,
    })
}

/// A response as a JSON document: the envelope in its own order, the maps inside sorted.
pub(crate) fn document(secret: &Secret) -> Value {
    let ordered =
        |map: &Map<String, Value>| sorted(&Value::Object(map.clone())).as_object().cloned().unwrap_or_default();
    let mut secret = secret.clone();
    secret.data = secret.data.as_ref().map(ordered);
    if let Some(auth) = &mut secret.auth {
        auth.metadata = auth.metadata.as_ref().map(ordered);
    }
    serde_json::to_value(&secret).unwrap_or_default()
}

fn lease_rows(secret: &Secret) -> Vec<Vec<String>> {
    let time = duration::format_short(secret.lease_duration);
    match (secret.lease_duration > 0, secret.lease_id.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => vec![row("refresh_interval", time)],
        (true, false) => vec![
            row("lease_id", &secret.lease_id),
            row("lease_duration", time),
            row("lease_renewable", secret.renewable),
        ],
    }
}

fn auth_rows(auth: &Auth) -> Vec<Vec<String>> {
    if let Some(requirement) = auth.mfa_requirement.as_ref().filter(|_| auth.client_token.is_empty()) {
        return mfa_rows(requirement);
    }
    let time = if auth.lease_duration == 0 { "∞".to_owned() } else { duration::format_short(auth.lease_duration) };
    let mut rows = vec![
        row("token", &auth.client_token),
        row("token_accessor", &auth.accessor),
        row("token_duration", time),
        row("token_renewable", auth.renewable),
        row("token_policies", quoted_list(auth.token_policies.as_deref())),
        row("identity_policies", quoted_list(auth.identity_policies.as_deref())),
        row("policies", quoted_list(auth.policies.as_deref())),
    ];
    let metadata = auth.metadata.iter().flat_map(data_rows);
    rows.extend(metadata.map(|pair| row(&format!("token_meta_{}", pair[0]), &pair[1])));
    rows
}

/// The rows of the MFA that a login waits for.
fn mfa_rows(requirement: &Value) -> Vec<Vec<String>> {
    let text = |value: Option<&Value>| value.map(plain).unwrap_or_default();
    let mut rows = vec![row("mfa_request_id", text(requirement.get("mfa_request_id")))];
    for (name, constraint) in requirement.get("mfa_constraints").and_then(Value::as_object).into_iter().flatten() {
        for method in constraint.get("any").and_then(Value::as_array).into_iter().flatten() {
            let prefix = format!("mfa_constraint_{name}_{}", text(method.get("type")));
            let fields = ["id", "uses_passcode", "name"].into_iter().filter(|field| method.get(field).is_some());
            rows.extend(fields.map(|field| row(&format!("{prefix}_{field}"), text(method.get(field)))));
        }
    }
    rows
}

fn auth_field(auth: &Auth, name: &str) -> Option<Value> {
    Some(match name {
        "token" => auth.client_token.clone().into(),
        "token_accessor" => auth.accessor.clone().into(),
        "token_duration" => auth.lease_duration.into(),
        "token_renewable" => auth.renewable.into(),
        "token_policies" => auth.token_policies.clone().unwrap_or_default().into(),
        "identity_policies" => auth.identity_policies.clone().unwrap_or_default().into(),
        "policies" => auth.policies.clone().unwrap_or_default().into(),
        name => return auth.metadata.as_ref()?.get(name.strip_prefix("token_meta_")?).cloned(),
    })
}

fn wrap_rows(wrap: &WrapInfo) -> Vec<Vec<String>> {
    let mut rows = vec![
        row("wrapping_token:", &wrap.token),
        row("wrapping_accessor:", &wrap.accessor),
        row("wrapping_token_ttl:", duration::format_short(wrap.ttl)),
        row("wrapping_token_creation_time:", go_time(&wrap.creation_time)),
        row("wrapping_token_creation_path:", &wrap.creation_path),
    ];
    if !wrap.wrapped_accessor.is_empty() {
        rows.push(row("wrapped_accessor:", &wrap.wrapped_accessor));
    }
    rows
}

fn wrap_field(wrap: &WrapInfo, name: &str) -> Option<Value> {
    Some(match name {
        "wrapping_token" => wrap.token.clone().into(),
        "wrapping_accessor" => wrap.accessor.clone().into(),
        "wrapping_token_ttl" => wrap.ttl.into(),
        "wrapping_token_creation_time" => go_time(&wrap.creation_time).into(),
        "wrapping_token_creation_path" => wrap.creation_path.clone().into(),
        "wrapped_accessor" => wrap.wrapped_accessor.clone().into(),
        _ => return None,
    })
}

/// Formats a UTC time like Go: `2026-11-23T11:05:55.4Z` as `2026-11-23 11:05:55.4 +0000 UTC`. Keeps other zones.
fn go_time(time: &str) -> String {
    match time.strip_suffix('Z') {
        Some(utc) => format!("{} +0000 UTC", utc.replacen('T', " ", 1)),
        None => time.to_owned(),
    }
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use serde_json::json;

    fn secret(value: Value) -> Secret {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_login_has_its_rows_and_fields() {
        let login = secret(
            json!({"auth": {"client_token": "hvs.x", "accessor": "a", "lease_duration": 0, "policies": ["root"], "metadata": {"role_name": "r"}}}),
        );
        let rows = rows(&login);
        assert_eq!(rows[2], ["token_duration", "∞"]);
        assert_eq!(rows[5], ["identity_policies", "[]"]);
        assert_eq!(rows[6], ["policies", "[\"root\"]"]);
        assert_eq!(rows[7], ["token_meta_role_name", "r"]);
        assert_eq!(field(&login, "token"), Some(json!("hvs.x")));
        assert_eq!(field(&login, "token_meta_role_name"), Some(json!("r")));
        assert_eq!(field(&login, "nope"), None);
    }

    #[test]
    fn a_lease_is_above_its_data() {
        let creds = secret(
            json!({"lease_id": "db/creds/x/1", "lease_duration": 3600, "renewable": true, "data": {"user": "u", "ttl": 60}}),
        );
        let shown: Vec<String> = rows(&creds).iter().map(|row| row.join("=")).collect();
        assert_eq!(shown, ["lease_id=db/creds/x/1", "lease_duration=1h", "lease_renewable=true", "ttl=1m", "user=u"]);
        assert_eq!(field(&creds, "data"), Some(json!({"user": "u", "ttl": 60})));
    }

    #[test]
    fn wrapping_info_has_its_rows_and_fields() {
        let wrapped =
            secret(json!({"wrap_info": {"token": "t", "ttl": 60, "creation_time": "2026-11-23T11:05:55.4Z"}}));
        assert_eq!(rows(&wrapped)[3][1], "2026-11-23 11:05:55.4 +0000 UTC");
        assert_eq!(field(&wrapped, "wrapping_token"), Some(json!("t")));
    }

    #[test]
    fn the_envelope_keeps_its_order_and_data_is_sorted() {
        let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap();
        let shown = document(&secret(json!({"data": {"b": 1, "a": 2}, "request_id": "r"})));
        assert_eq!(keys(&shown), ["request_id", "lease_id", "lease_duration", "renewable", "data", "warnings"]);
        assert_eq!(keys(&shown["data"]), ["a", "b"]);
    }
}
