"""The resources of the cases: setup before a request, cleanup after it, and a valid body."""

import base64
import re

from cases import Step

TEXT = base64.b64encode(b"a text").decode()
POLICY = 'path "a/*" { capabilities = ["read"] }'
PASSWORDS = 'length = 20\nrule "charset" { charset = "abcdefgh" }'
CONNECTION = {"plugin_name": "postgresql-database-plugin", "verify_connection": False, "allowed_roles": "*", "username": "u",
              "password": "database password", "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/x"}
# A new token, for requests that revoke or change a token.
FRESH = Step("POST", "auth/token/create", {"policies": ["default"], "ttl": "1h"},
             capture={"fresh": "auth.client_token", "fresh_accessor": "auth.accessor"})
WRAPPED = Step("POST", "sys/wrapping/wrap", {"a": "b"}, headers={"X-Vault-Wrap-TTL": "60"},
               capture={"wrapped": "wrap_info.token"})
KEY = [Step("POST", "transit/keys/thing"), Step("POST", "transit/keys/thing/config", {"deletion_allowed": True, "exportable": True}),
       Step("POST", "transit/encrypt/thing", {"plaintext": TEXT}, capture={"ciphertext": "data.ciphertext"}),
       Step("POST", "transit/hmac/thing", {"input": TEXT}, capture={"hmac": "data.hmac"})]
ROLE = [Step("POST", "auth/approle/role/thing", {"role_id": "the role"}),
        Step("POST", "auth/approle/role/thing/secret-id",
             capture={"secret_id": "data.secret_id", "secret_id_accessor": "data.secret_id_accessor"})]

# Setup and cleanup, by the prefix of a path.
AROUND: list[tuple[str, list[Step], list[Step]]] = [
    (r"sys/(mounts|internal/ui/mounts)/", [Step("POST", "sys/mounts/thing", {"type": "kv"})], [Step("DELETE", "sys/mounts/thing")]),
    (r"sys/auth/", [Step("POST", "sys/auth/thing", {"type": "approle"})], [Step("DELETE", "sys/auth/thing")]),
    (r"sys/polic(y|ies/acl)/", [Step("POST", "sys/policies/acl/thing", {"policy": POLICY})], [Step("DELETE", "sys/policies/acl/thing")]),
    (r"sys/policies/password/", [Step("POST", "sys/policies/password/thing", {"policy": PASSWORDS})],
     [Step("DELETE", "sys/policies/password/thing")]),
    (r"sys/quotas/rate-limit", [Step("POST", "sys/quotas/rate-limit/thing", {"rate": 1000, "path": "cubbyhole"})],
     [Step("DELETE", "sys/quotas/rate-limit/thing")]),
    (r"sys/quotas/config", [], [Step("POST", "sys/quotas/config", {
        "rate_limit_exempt_paths": [], "enable_rate_limit_audit_logging": False, "enable_rate_limit_response_headers": False})]),
    (r"sys/config/cors", [Step("POST", "sys/config/cors", {"allowed_origins": "http://a"})], [Step("DELETE", "sys/config/cors")]),
    (r"sys/config/ui/headers", [Step("POST", "sys/config/ui/headers/x-custom", {"values": ["a"]})],
     [Step("DELETE", "sys/config/ui/headers/x-custom")]),
    (r"sys/config/auditing", [Step("POST", "sys/config/auditing/request-headers/x-custom")],
     [Step("DELETE", "sys/config/auditing/request-headers/x-custom")]),
    (r"sys/loggers", [], [Step("DELETE", "sys/loggers")]),
    (r"sys/rotate/(keyring/)?config", [], [Step("POST", "sys/rotate/config", {"max_operations": 3865470566, "interval": 0, "enabled": True})]),
    (r"sys/wrapping/(lookup|unwrap|rewrap)", [WRAPPED], []),
    (r"sys/generate-root", [], [Step("DELETE", "sys/generate-root-token/attempt")]),
    (r"auth/token/(lookup|renew|revoke)|sys/capabilities", [FRESH], []),
    (r"auth/token/(roles|create)/", [Step("POST", "auth/token/roles/thing", {})], [Step("DELETE", "auth/token/roles/thing")]),
    (r"auth/approle/", ROLE, [Step("DELETE", "auth/approle/role/thing")]),
    (r"auth/userpass/", [Step("POST", "auth/userpass/users/thing", {"password": "a password"})], [Step("DELETE", "auth/userpass/users/thing")]),
    (r"kv1/", [Step("POST", "kv1/thing", {"a": "b"})], [Step("DELETE", "kv1/thing")]),
    (r"kv2/config", [], [Step("POST", "kv2/config", {"max_versions": 0, "cas_required": False, "delete_version_after": "0s"})]),
    (r"kv2/", [Step("POST", "kv2/data/thing", {"data": {"a": "b"}})], [Step("DELETE", "kv2/metadata/thing")]),
    (r"cubbyhole/", [Step("POST", "cubbyhole/thing", {"a": "b"})], [Step("DELETE", "cubbyhole/thing")]),
    (r"transit/(cache-config|config|random|hash|wrapping)", [], [Step("POST", "transit/config/keys", {"disable_upsert": False})]),
    (r"transit/", KEY, [Step("DELETE", "transit/keys/thing")]),
    (r"database/config", [Step("POST", "database/config/thing", CONNECTION)], [Step("DELETE", "database/config/thing")]),
    (r"database/", [Step("POST", "database/config/thing", CONNECTION),
                    Step("POST", "database/roles/thing", {"db_name": "thing", "creation_statements": ["select 1"]})],
     [Step("DELETE", "database/roles/thing"), Step("DELETE", "database/config/thing")]),
]

# A valid body, by the path of the API.
RIGHT: list[tuple[str, dict]] = [
    (r"sys/mounts/\{path\}", {"type": "kv"}),
    (r"sys/auth/\{path\}", {"type": "approle"}),
    (r"sys/remount", {"from": "nope", "to": "nope2"}),
    (r"sys/polic(y|ies/acl)/.*", {"policy": POLICY}),
    (r"sys/policies/password/\{name\}", {"policy": PASSWORDS}),
    (r"sys/quotas/rate-limit/.*", {"rate": 1000, "path": "cubbyhole"}),
    (r"sys/capabilities-accessor", {"paths": ["a/b"], "accessor": "{{fresh_accessor}}"}),
    (r"sys/capabilities", {"paths": ["a/b"], "token": "{{fresh}}"}),
    (r"sys/capabilities-self", {"paths": ["a/b"]}),
    (r"sys/wrapping/(lookup|unwrap|rewrap)", {"token": "{{wrapped}}"}),
    (r"sys/wrapping/wrap", {"a": "b"}),
    (r"sys/(leases/)?(lookup|renew|revoke)", {"lease_id": "nope/a/b"}),
    (r"sys/tools/hash.*", {"input": TEXT}),
    (r"sys/config/cors", {"allowed_origins": "http://a"}),
    (r"sys/config/ui/headers/.*", {"values": ["a"]}),
    (r"sys/audit-hash/.*", {"input": "a"}),
    (r"sys/audit/.*", {"type": "file", "options": {"file_path": "discard"}}),
    (r"sys/plugins/reload/backend", {"plugin": "kv"}),
    (r"sys/plugins/catalog/.*", {"sha256": "ab" * 32, "command": "x"}),
    (r"sys/loggers.*", {"level": "error"}),
    (r"sys/decode-token", {"encoded_token": TEXT, "otp": "a" * 6}),
    (r"auth/token/(lookup|renew|revoke)(-orphan)?", {"token": "{{fresh}}"}),
    (r"auth/token/(lookup|renew|revoke)-accessor", {"accessor": "{{fresh_accessor}}"}),
    (r"auth/approle/login", {"role_id": "the role", "secret_id": "{{secret_id}}"}),
    (r"auth/approle/.*/secret-id/(lookup|destroy)", {"secret_id": "{{secret_id}}"}),
    (r"auth/approle/.*/secret-id-accessor/(lookup|destroy)", {"secret_id_accessor": "{{secret_id_accessor}}"}),
    (r"auth/approle/.*/custom-secret-id", {"secret_id": "a custom one"}),
    (r"auth/approle/.*/role-id", {"role_id": "the role"}),
    (r"auth/userpass/(users|login)/.*", {"password": "a password"}),
    (r"kv1/.*|cubbyhole/.*", {"a": "b"}),
    (r"kv2/data/.*", {"data": {"a": "b"}}),
    (r"kv2/(delete|undelete|destroy)/.*", {"versions": [1]}),
    (r"transit/(encrypt|datakey/.*)/\{name\}", {"plaintext": TEXT}),
    (r"transit/(decrypt|rewrap)/\{name\}", {"ciphertext": "{{ciphertext}}"}),
    (r"transit/(hmac|hash)/?.*", {"input": TEXT}),
    (r"transit/verify/.*", {"input": TEXT, "hmac": "{{hmac}}"}),
    (r"transit/sign/.*", {"input": TEXT}),
    (r"transit/keys/\{name\}/trim", {"min_available_version": 1}),
    (r"database/config/.*", CONNECTION),
    (r"database/roles/.*", {"db_name": "thing", "creation_statements": ["select 1"]}),
    (r"database/static-roles/.*", {"db_name": "thing", "username": "u", "rotation_period": 3600}),
]

# The caller's token, for paths that revoke or change it.
OWN = re.compile(r"auth/token/(revoke|renew|lookup)-self")


def around(path: str) -> tuple[list[Step], list[Step]]:
    """The setup and the cleanup of a request for a path."""
    for pattern, before, after in AROUND:
        if re.match(pattern, path + "/"):
            return before, after
    return [], []


def right(path: str) -> dict:
    """A valid body for a path of the API."""
    for pattern, body in RIGHT:
        if re.fullmatch(pattern, path):
            return dict(body)
    return {}
