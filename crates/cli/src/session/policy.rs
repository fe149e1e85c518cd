//! The policy that a request needs, for `-output-policy`.

use keepfast_client::{Method, Request};

/// Paths that also need `sudo`; `*` is one segment, a `*` at the end is any rest.
const SUDO: &[&str] = &[
    "auth/token/accessors",
    "sys/audit",
    "sys/audit/*",
    "sys/auth/*",
    "sys/auth/*/tune",
    "sys/config/auditing/request-headers",
    "sys/config/auditing/request-headers/*",
    "sys/config/cors",
    "sys/config/ui/headers",
    "sys/config/ui/headers/*",
    "sys/internal/inspect/router/*",
    "sys/leases",
    "sys/leases/lookup/*",
    "sys/leases/revoke-force/*",
    "sys/leases/revoke-prefix/*",
    "sys/plugins/catalog/*",
    "sys/raw",
    "sys/raw/*",
    "sys/remount",
    "sys/revoke-force/*",
    "sys/revoke-prefix/*",
    "sys/rotate",
];

/// The smallest policy that allows the request.
pub(super) fn needed(request: &Request) -> String {
    let listing = |name: &str| request.query.iter().any(|(given, value)| given == name && value == "true");
    let mut capabilities = match request.method {
        Method::Get if listing("list") => vec!["list"],
        Method::Get if listing("scan") => vec!["scan"],
        Method::Get => vec!["read"],
        Method::Put | Method::Post => vec!["create", "update"],
        Method::Patch => vec!["patch"],
        Method::Delete => vec!["delete"],
    };
    if SUDO.iter().any(|pattern| covers(pattern, &request.path)) {
        capabilities.push("sudo");
    }
    let quoted: Vec<String> = capabilities.iter().map(|name| format!("\"{name}\"")).collect();
    format!("path \"{}\" {{\n  capabilities = [{}]\n}}", request.path, quoted.join(", "))
}

fn covers(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, "")) => path.len() > before.len() && path.starts_with(before),
        Some((before, after)) => {
            let middle = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            middle.is_some_and(|middle| !middle.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_follow_the_method() {
        let list = Request::new(Method::Get, "a/b").with_query("list", "true");
        assert_eq!(needed(&list), "path \"a/b\" {\n  capabilities = [\"list\"]\n}");
        assert!(needed(&Request::new(Method::Put, "a")).contains("\"create\", \"update\"]"));
    }

    #[test]
    fn root_paths_also_need_sudo() {
        for path in ["sys/auth/a", "sys/auth/a/b/tune", "sys/audit", "auth/token/accessors", "sys/rotate"] {
            assert!(needed(&Request::new(Method::Get, path)).contains("[\"read\", \"sudo\"]"), "{path}");
        }
        for path in ["sys/auth", "sys/mounts/a", "sys/rotate/config", "sys/leases/tidy"] {
            assert!(!needed(&Request::new(Method::Get, path)).contains("sudo"), "{path}");
        }
    }
}
