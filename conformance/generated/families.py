"""The families of generated cases: every way of asking, every field with every odd value, odd bodies, odd names, odd paths."""

from cases import BODIES, ODD, WAYS, Case, Step, merge_patch
from surface import Operation, filled
from things import FRESH, OWN, around, right

NAMES = ["nope", "Thing", "a%20b", "a%2Fb", "%C3%A9", "-a", "a.", "a*", "a+b", "a:b", "%00", "..", "%2e%2e", "a//b", "n" * 300, "a%0Ab",
         "a%25b", "thing%20", "%20thing", "a?b=c", "a%3Fb", "a%23b", "a;b", "a%5Cb", "~a", "a,b", "root", "default", "0", "null", "thing/below",
         "thing/", "a%E2%80%AEb", "a%FFb", "a%", "(a)", "'a'", "%22a%22", "a=b", "a&b", "@a", "[a]", "{a}", "response-wrapping"]

# Paths that no document has.
PATHS = ["", "sys", "sys/", "auth", "auth/", "auth/token", "auth/token/", "auth/nope", "auth/nope/login", "auth/approle", "auth/approle/", "kv1", "kv1/",
         "kv2", "kv2/", "kv2/data", "kv2/data/", "kv2/metadata", "kv2/metadata/", "kv2/nope", "kv2/nope/a", "kv2/thing", "transit", "transit/", "transit/nope",
         "transit/keys", "transit/keys/", "database", "database/", "database/nope", "nope", "nope/", "nope/a", "cubbyhole", "cubbyhole/", "cubbyhole/response",
         "sys/nope", "sys/nope/", "sys/mounts/", "sys/mounts/nope/tune", "sys/mounts/sys/tune", "sys/mounts/cubbyhole/tune", "sys/mounts/auth/token/tune",
         "sys/mounts/sys", "sys/mounts/cubbyhole", "sys/mounts/kv1", "sys/mounts/kv2", "sys/mounts/kv2/tune", "sys/auth/", "sys/auth/token", "sys/auth/token/tune",
         "sys/auth/approle/tune", "sys/auth/nope/tune", "sys/policies", "sys/policies/", "sys/policies/acl", "sys/policies/acl/", "sys/policies/nope",
         "sys/policies/acl/root", "sys/policies/acl/default", "sys/policies/acl/response-wrapping", "sys/policy/root", "sys/policy/default", "sys/leases",
         "sys/leases/", "sys/leases/lookup", "sys/leases/lookup/", "sys/leases/lookup/auth/token/create", "sys/leases/count", "sys/leases/count?type=irrevocable",
         "sys/leases?type=irrevocable", "sys/leases?type=x", "sys/leases/renew", "sys/leases/renew/nope", "sys/leases/revoke", "sys/leases/revoke/nope",
         "sys/quotas", "sys/quotas/rate-limit", "sys/quotas/rate-limit/", "sys/quotas/lease-count", "sys/quotas/lease-count/a", "sys/tools", "sys/tools/nope",
         "sys/wrapping", "sys/wrapping/nope", "sys/capabilities", "sys/config", "sys/config/", "sys/config/nope", "sys/config/state", "sys/config/state/sanitized",
         "sys/config/ui", "sys/config/ui/headers", "sys/config/ui/headers/", "sys/internal", "sys/internal/ui", "sys/internal/ui/mounts/kv1", "sys/internal/ui/mounts/kv2/a",
         "sys/internal/ui/mounts/nope", "sys/internal/ui/mounts/sys", "sys/internal/ui/mounts/auth/token", "sys/internal/ui/resultant-acl",
         "sys/internal/ui/feature-flags", "sys/internal/ui/version", "sys/internal/counters", "sys/internal/counters/activity", "sys/internal/counters/config",
         "sys/internal/inspect/router", "sys/internal/inspect/router/", "sys/internal/inspect/router/root", "sys/internal/inspect/router/uuid",
         "sys/internal/inspect/router/accessor", "sys/internal/inspect/router/storage", "sys/internal/inspect/router/nope", "sys/internal/inspect/request",
         "sys/health", "sys/health?standbyok=true", "sys/health?activecode=299", "sys/health?activecode=x", "sys/seal-status", "sys/leader", "sys/host-info",
         "sys/ha-status", "sys/version-history", "sys/raw", "sys/raw/", "sys/raw/core/mounts", "sys/storage", "sys/storage/raft/configuration",
         "sys/replication/status", "sys/license", "sys/license/status", "sys/experiments", "sys/locked-users", "sys/locked-users/nope", "sys/rekey", "sys/rekey/backup",
         "sys/rotate", "sys/generate-root", "sys/generate-root/attempt", "sys/plugins", "sys/plugins/catalog", "sys/plugins/catalog/auth", "sys/plugins/catalog/secret",
         "sys/plugins/catalog/database", "sys/plugins/catalog/nope", "sys/plugins/catalog/auth/approle", "sys/plugins/catalog/secret/kv", "sys/plugins/runtimes/catalog",
         "sys/audit", "sys/audit/", "sys/audit/conformance", "sys/audit-hash/conformance", "sys/audit-hash/nope", "sys/in-flight-req", "sys/loggers", "sys/loggers/nope",
         "sys/managed-keys", "sys/mfa/method", "sys/namespaces/a/b", "sys/unwrap", "sys/wrap", "sys/remount/status/nope", "sys/key-status", "sys/metrics/", "sys//mounts",
         "/sys/mounts", "sys/mounts//tune", "auth/token/lookup", "auth/token/lookup/nope", "auth/token/renew/nope", "auth/token/revoke/nope", "auth/token/accessors",
         "auth/token/accessors/", "auth/token/roles", "auth/token/roles/", "auth/token/nope", "auth/approle/role", "auth/approle/role/", "auth/approle/nope",
         "auth/approle/login", "auth/approle/login/", "auth/approle/login/x", "auth/approle/tidy/secret-id", "auth/userpass/users", "auth/userpass/users/", "auth/userpass/login",
         "auth/userpass/login/", "auth/userpass/login/nope", "auth/userpass/login/a/b", "auth/userpass/nope", "auth/approle/role/nope/secret-id",
         "auth/approle/role/nope/role-id", "auth/approle/role/nope/nope", "transit/encrypt", "transit/encrypt/", "transit/random", "transit/random/5", "transit/random/all/5",
         "transit/random/nope", "transit/hash", "transit/hash/nope", "transit/export/nope/thing", "transit/datakey/nope/thing", "transit/keys/a/b",
         "transit/wrapping_key", "transit/cache-config", "database/config", "database/config/", "database/roles", "database/creds", "database/creds/nope",
         "database/static-roles", "database/static-creds/nope", "database/rotate-root/nope", "database/rotate-role/nope", "database/reset/nope", "database/reload/nope"]
# Whole paths, as they stand in the request.
WHOLE = ["/", "/v1", "/v1/", "/v2/sys/health", "/v1/v1/sys/health", "/V1/sys/health", "/ui", "/ui/", "/v1/sys/health/", "/v1//sys/health", "/v1/sys/../sys/health",
         "/v1/sys/%68ealth", "/v1/sys%2Fhealth", "/v1/./sys/health", "/v1/sys/health?", "/v1/sys/health?&", "/v1/sys/health#x", "//v1/sys/health", "/favicon.ico",
         "/robots.txt", "/healthz", "/v1/sys/HEALTH", "/v1/SYS/health", "/v1/sys/health;a=b", "/v1/kv1/a%2F..%2Fb", "/v1/%2e/sys/health", "/v1/sys/health%20"]


def all_families(operations: list[Operation]) -> list[Case]:
    """Every generated case, in an order that depends on nothing."""
    paths = {}
    for operation in operations:
        paths.setdefault(operation.path, set()).add(operation.method)
    out: list[Case] = []
    for path, methods in paths.items():
        out += ways(path, filled(path, "thing"), "GET" in methods, True)
        if "{" in path:
            out += ways(path + " (missing)", filled(path, "nope"), False, False)
    for path in PATHS:
        kept = [case for case in ways(f"(path) {path}", path, False, False) if not unmounts(path, case)]
        out += kept
    for path in WHOLE:
        out += [Case(f"(whole path) {path}", [Step(method, path, token=who)])
                for method in ("GET", "POST", "LIST", "DELETE", "PUT", "HEAD", "OPTIONS") for who in ("root", "none")]
    for operation in operations:
        readable = "GET" in paths[operation.path]
        if operation.method in ("POST", "PATCH"):
            out += fields(operation, readable)
            out += bodies(operation, readable)
        if "{" in operation.path:
            out += names(operation)
    return out


def unmounts(path: str, case: Case) -> bool:
    """Whether a case takes away a mount that other cases need."""
    return path in ("sys/mounts/kv1", "sys/mounts/kv2") and any(step.method == "DELETE" for step in case.steps)


def surrounded(about: str, path: str, step: Step, then: list[Step] | None = None) -> Case:
    """A request between its setup and its cleanup."""
    before, after = around(path)
    if OWN.match(path) and step.token == "root":
        before, step.token = [FRESH], "fresh"
    return Case(about, [*before, step, *(then or []), *after])


def ways(about: str, path: str, readable: bool, exists: bool) -> list[Case]:
    out = []
    for method, added, headers, who in WAYS:
        step = Step(method, path + added, token=who, headers=merge_patch(method, headers))
        then = [Step("GET", path)] if readable and method in ("POST", "PUT", "PATCH", "DELETE") else []
        out.append(surrounded(about, path if exists else "", step, then))
    return out


def fields(operation: Operation, readable: bool) -> list[Case]:
    path, base = filled(operation.path, "thing"), right(operation.path)
    headers = merge_patch(operation.method, {})
    then = [Step("GET", path)] if readable else []

    def case(body: object) -> Case:
        return surrounded(f"{operation.method} {operation.path}", path, Step(operation.method, path, body, headers=headers), then)
    out = [case({**base, name: value}) for name in sorted(operation.fields) for value in ODD]
    out += [case({key: value for key, value in base.items() if key != left_out}) for left_out in base]
    out += [case({**base, "unknown_field": value}) for value in (1, None, {"a": [1]})]
    return out


def bodies(operation: Operation, readable: bool) -> list[Case]:
    path, headers = filled(operation.path, "thing"), merge_patch(operation.method, {})
    then = [Step("GET", path)] if readable else []
    about = f"{operation.method} {operation.path} (body)"
    out = [surrounded(about, path, Step(operation.method, path, body, headers=headers), then) for body in BODIES]
    base = right(operation.path)
    if base and operation.method == "POST":
        out += [surrounded(about, path, Step(method, path, base, who, head), then) for method, who, head in (
            ("POST", "root", {}), ("PUT", "root", {}), ("POST", "none", {}), ("POST", "weak", {}), ("POST", "bad", {}),
            ("POST", "root", {"X-Vault-Wrap-TTL": "60"}), ("POST", "none", {"X-Vault-Wrap-TTL": "60"}),
            ("POST", "root", {"Content-Type": "text/plain"}), ("POST", "root", {"X-Vault-Namespace": "nope"}),
            ("DELETE", "root", {}), ("GET", "root", {}))]
        out.append(Case(about, [*around(path)[0], Step("POST", path, base), Step("POST", path, base), *then, *around(path)[1]]))
    return out


def names(operation: Operation) -> list[Case]:
    out, base = [], right(operation.path)
    headers = merge_patch(operation.method, {})
    for name in NAMES:
        path = filled(operation.path, name)
        body = base if operation.method in ("POST", "PATCH") else None
        steps = [Step(operation.method, path, body, headers=headers)]
        if operation.method == "POST":
            steps += [Step("GET", path), Step("DELETE", path)]
        out.append(Case(f"{operation.method} {operation.path} (name)", steps))
    return out
