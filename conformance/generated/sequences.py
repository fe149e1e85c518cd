"""Cases of several requests that hang together: made, read, listed, changed, deleted, read again."""

from cases import Case, Step
from things import CONNECTION, PASSWORDS, POLICY, TEXT

MERGE = {"Content-Type": "application/merge-patch+json"}
WRAP = {"X-Vault-Wrap-TTL": "60"}


def get(path: str, **more) -> Step:
    return Step("GET", path, **more)


def post(path: str, body: object = None, **more) -> Step:
    return Step("POST", path, body, **more)


def patch(path: str, body: object, **more) -> Step:
    return Step("PATCH", path, body, headers={**MERGE, **more.pop("headers", {})}, **more)


def lists(path: str, **more) -> Step:
    return Step("LIST", path, **more)


def delete(path: str, **more) -> Step:
    return Step("DELETE", path, **more)


def kv1() -> list[Case]:
    values = [{"ttl": ttl} for ttl in (-1, "-1", "1h", "x", 0, "0", None, 1.5, [], {}, True, "1e3", 10**20, "")] + [
        {"lease": "1h"}, {"ttl": "1h", "lease": "2h"}, {}, {"data": {"a": 1}}, {"a": None}, {"a": [1, {"b": None}]}, {"a": 1.0}, {"a": 10**30}]
    return [Case("(sequence) kv1 value", [post("kv1/s/a", body), get("kv1/s/a"), get("kv1/s/a", headers=WRAP), lists("kv1/s"), lists("kv1/s/"),
                                          Step("SCAN", "kv1/"), get("kv1/?list=true"), delete("kv1/s/a"), get("kv1/s/a"), lists("kv1/s")])
            for body in values] + [
        Case("(sequence) kv1 patch", [post("kv1/p", {"a": 1}), patch("kv1/p", {"b": 1}), get("kv1/p"), patch("kv1/nope", {"b": 1}), delete("kv1/p")])]


def kv2() -> list[Case]:
    out = [Case("(sequence) kv2 life", [
        post("kv2/data/s", {"data": {"a": 1, "b": {"c": 2}}}), get("kv2/data/s"), post("kv2/data/s", {"data": {"a": 2}, "options": options}),
        get("kv2/data/s?version=1"), get("kv2/data/s?version=9"), get("kv2/data/s?version=-1"), get("kv2/data/s?version=x"), get("kv2/subkeys/s"),
        get("kv2/subkeys/s?depth=1"), get("kv2/subkeys/s?depth=x"), get("kv2/subkeys/s?version=1"), get("kv2/metadata/s"), lists("kv2/metadata"),
        lists("kv2/detailed-metadata"), Step("SCAN", "kv2/metadata"), patch("kv2/data/s", {"data": {"z": None, "y": 1}, "options": options}),
        patch("kv2/data/s", {"data": None}), patch("kv2/data/s", {}), delete("kv2/data/s"), get("kv2/data/s"), get("kv2/data/s", headers=WRAP),
        get("kv2/subkeys/s"), patch("kv2/data/s", {"data": {"a": 1}}), post("kv2/undelete/s", {"versions": versions}), get("kv2/data/s"),
        post("kv2/delete/s", {"versions": versions}), post("kv2/destroy/s", {"versions": versions}), get("kv2/data/s?version=1"), get("kv2/metadata/s"),
        post("kv2/destroy/s", {"versions": [1, 2, 3, 4]}), get("kv2/data/s"), post("kv2/data/s", {"data": {"new": 1}}), delete("kv2/metadata/s"),
        get("kv2/metadata/s"), get("kv2/data/s")]) for options in (None, {}, {"cas": 1}, {"cas": 0}, {"cas": "1"}, {"cas": -1}, {"cas": 1.5}, {"cas": None}, {"x": 1}, [], "x")
        for versions in ([1], ["1"], 1, "1,2", [])]
    metadata = [{}, {"max_versions": 2}, {"max_versions": -1}, {"cas_required": True}, {"delete_version_after": "1h"}, {"delete_version_after": "-1s"},
                {"delete_version_after": "x"}, {"custom_metadata": {"a": "b"}}, {"custom_metadata": {"a": 1}}, {"custom_metadata": None},
                {"custom_metadata": {"a": "x" * 600}}, {"custom_metadata": {"k" * 200: "a"}}, {"custom_metadata": {"": "a"}}, {"custom_metadata": []},
                {"custom_metadata": {"a": None}}, {"custom_metadata": {str(n): "a" for n in range(65)}}, {"max_versions": None}, {"unknown": 1}]
    for body in metadata:
        out.append(Case("(sequence) kv2 metadata", [
            post("kv2/metadata/m", body), get("kv2/metadata/m"), patch("kv2/metadata/m", body), get("kv2/metadata/m"), get("kv2/data/m"),
            post("kv2/data/m", {"data": {"a": 1}}), post("kv2/data/m", {"data": {"a": 2}}), post("kv2/data/m", {"data": {"a": 3}, "options": {"cas": 2}}),
            get("kv2/metadata/m"), patch("kv2/metadata/m", {"custom_metadata": {"a": None, "c": "d"}}), get("kv2/metadata/m"), delete("kv2/metadata/m"),
            patch("kv2/metadata/m", body), get("kv2/metadata/m")]))
    return out


def mounts() -> list[Case]:
    tunes = [{"default_lease_ttl": ttl} for ttl in (0, "0", "1h", "x", -1, "-1h", "system", "", None, "999999h")] + [
        {"max_lease_ttl": "1h"}, {"max_lease_ttl": "1h", "default_lease_ttl": "2h"}, {"description": "d"}, {"description": None}, {"description": 1},
        {"listing_visibility": "unauth"}, {"listing_visibility": "hidden"}, {"listing_visibility": "x"}, {"listing_visibility": ""},
        {"audit_non_hmac_request_keys": "a,b"}, {"audit_non_hmac_response_keys": ["a"]}, {"audit_non_hmac_request_keys": []}, {"passthrough_request_headers": "a"},
        {"allowed_response_headers": ["a"]}, {"token_type": "service"}, {"token_type": "batch"}, {"token_type": "default-batch"}, {"token_type": "x"},
        {"options": {}}, {"options": None}, {"options": {"version": "2"}}, {"options": {"version": "3"}}, {"options": {"version": 1}}, {"options": "x"},
        {"plugin_version": "v1"}, {"plugin_version": ""}, {"user_lockout_config": {"lockout_threshold": "3"}}, {"user_lockout_config": {"lockout_threshold": "x"}},
        {"user_lockout_config": {}}, {"user_lockout_config": None}, {"allowed_managed_keys": ["a"]}, {"force_no_cache": True}, {"x": 1}, {}, {"config": {}}]
    out = []
    for tune in tunes:
        for side, kind, read in (("mounts", "kv", "sys/mounts/t"), ("mounts", "transit", "sys/mounts/t"), ("auth", "approle", "sys/auth/t"), ("auth", "userpass", "sys/auth/t")):
            out.append(Case(f"(sequence) tune {side} {kind}", [
                post(f"sys/{side}/t", {"type": kind}), post(f"sys/{side}/t/tune", tune), get(f"sys/{side}/t/tune"), get(read), get(f"sys/internal/ui/mounts/{'auth/' * (side == 'auth')}t"),
                delete(f"sys/{side}/t"), get(read)]))
            out.append(Case(f"(sequence) enable with config {side} {kind}", [
                post(f"sys/{side}/t", {"type": kind, "config": tune, **{k: v for k, v in tune.items() if k in ("options", "description")}}),
                get(f"sys/{side}/t/tune"), get(read), delete(f"sys/{side}/t")]))
    for path in ("sys/mounts/sys/tune", "sys/mounts/cubbyhole/tune", "sys/mounts/auth/token/tune", "sys/auth/token/tune", "sys/mounts/identity/tune"):
        for tune in ({"description": "x"}, {"listing_visibility": "unauth"}, {"options": {"a": "b"}}, {"audit_non_hmac_request_keys": "a"}, {"default_lease_ttl": "0"}, {"max_lease_ttl": 0},
                     {"token_type": "batch"}, {"token_type": "default-service"}, {"passthrough_request_headers": ["a"]}, {"plugin_version": "v1"}):
            undo = {"description": "", "listing_visibility": "", "audit_non_hmac_request_keys": "", "passthrough_request_headers": ""}
            out.append(Case(f"(sequence) tune {path}", [post(path, tune), get(path), post(path, undo)]))
    for body in ({"type": "kv", "path": "x"}, {"type": "nope"}, {"type": "kv", "local": True}, {"type": "kv", "local": "x"}, {"type": "kv", "seal_wrap": True}, {"type": "kv", "external_entropy_access": True},
                 {"type": "kv-v2"}, {"type": "kv-v1"}, {"type": "generic"}, {"type": "kv", "options": {"version": "9"}}, {"type": "kv", "options": {"version": 2}}, {"type": "kv", "options": None},
                 {"type": "system"}, {"type": "token"}, {"type": "cubbyhole"}, {"type": "identity"}, {"type": "plugin", "plugin_name": "kv"}, {"type": "plugin"}, {"type": "kv", "plugin_version": "v9"},
                 {"type": "approle"}, {"type": "KV"}, {"type": " kv"}, {"type": "kv", "description": "é"}, {"type": "kv", "config": {"plugin_name": "kv"}}, {"type": "ns_system"}):
        for side in ("mounts", "auth"):
            out.append(Case(f"(sequence) enable {side}", [post(f"sys/{side}/e", body), get(f"sys/{side}/e"), get(f"sys/{side}/e/tune"), post(f"sys/{side}/e", body), delete(f"sys/{side}/e"),
                                                         delete(f"sys/{side}/e")]))
    for path in ("a/b", "kv1/below", "kv1", "auth", "auth/x", "sys", "sys/x", "cubbyhole", "identity", "audit", "A", "a b", "%20", "a%20", "a.b", "..", "a/", "token", "a" * 400):
        out.append(Case("(sequence) enable at path", [post(f"sys/mounts/{path}", {"type": "kv"}), get(f"sys/mounts/{path}"), delete(f"sys/mounts/{path}")]))
        out.append(Case("(sequence) enable auth at path", [post(f"sys/auth/{path}", {"type": "approle"}), get(f"sys/auth/{path}"), delete(f"sys/auth/{path}")]))
    for move in ({"from": "r", "to": "r2"}, {"from": "r/", "to": "r2/"}, {"from": "r", "to": "r"}, {"from": "r", "to": "kv1"}, {"from": "r", "to": "auth/r2"}, {"from": "r", "to": "sys/r2"}, {"from": "sys", "to": "r2"},
                 {"from": "auth/token", "to": "auth/r2"}, {"from": "r"}, {"to": "r2"}, {"from": "", "to": "r2"}, {"from": "r", "to": ""}, {"from": "r", "to": "r/below"}, {"from": "r", "to": "a b"}, {"from": 1, "to": "r2"}):
        out.append(Case("(sequence) remount", [post("sys/mounts/r", {"type": "kv"}), post("r/a", {"v": 1}), post("sys/remount", move, capture={"migration": "data.migration_id"}),
                                               delete("sys/mounts/r"), delete("sys/mounts/r2")]))
    return out


def tokens() -> list[Case]:
    creations = [{}, {"ttl": "1h"}, {"ttl": "0"}, {"ttl": -1}, {"explicit_max_ttl": "1h"}, {"period": "1h"}, {"period": "1h", "explicit_max_ttl": "2h"}, {"num_uses": 3}, {"num_uses": -1},
                 {"renewable": False}, {"type": "batch"}, {"type": "service"}, {"type": "x"}, {"type": "batch", "num_uses": 1}, {"type": "batch", "period": "1h"}, {"type": "batch", "renewable": True},
                 {"policies": ["default"]}, {"policies": "a,b"}, {"policies": ["A", "a"]}, {"policies": []}, {"policies": ["root"], "ttl": "1h"}, {"policies": [" x"]}, {"no_parent": True},
                 {"no_default_policy": True}, {"meta": {"a": "b"}}, {"meta": {"a": 1}}, {"meta": None}, {"meta": "x"}, {"display_name": "a b"}, {"display_name": ""}, {"display_name": "é_-"}, {"id": "own-id"},
                 {"id": "s.own"}, {"id": "hvs.own"}, {"id": "a.b"}, {"id": ""}, {"entity_alias": "x"}, {"lease": "1h"}, {"ttl": "1h", "lease": "2h"}, {"ttl": "9999h"}, {"explicit_max_ttl": "9999h"},
                 {"period": "9999h"}, {"type": "batch", "id": "x"}, {"type": "batch", "ttl": "1h", "policies": ["default"]}, {"policies": ["response-wrapping"]}, {"strictly_bind_ip": True}]
    out = []
    for body in creations:
        made = {"t": "auth.client_token", "a": "auth.accessor"}
        out.append(Case("(sequence) token", [
            post("auth/token/create", body, capture=made), get("auth/token/lookup-self", token="t"), post("auth/token/lookup", {"token": "{{t}}"}), post("auth/token/lookup-accessor", {"accessor": "{{a}}"}),
            post("auth/token/renew", {"token": "{{t}}"}), post("auth/token/renew", {"token": "{{t}}", "increment": "30m"}), post("auth/token/renew-self", {"increment": 60}, token="t"),
            post("auth/token/renew-accessor", {"accessor": "{{a}}"}), post("auth/token/create", {"ttl": "5m"}, token="t"), get("cubbyhole/x", token="t"), post("cubbyhole/x", {"a": 1}, token="t"),
            lists("cubbyhole/", token="t"), post("sys/capabilities-self", {"path": "cubbyhole/x"}, token="t"), post("sys/capabilities", {"token": "{{t}}", "paths": ["sys/mounts", "a"]}),
            post("auth/token/revoke", {"token": "{{t}}"}), get("auth/token/lookup-self", token="t"), post("auth/token/lookup", {"token": "{{t}}"}), post("auth/token/lookup-accessor", {"accessor": "{{a}}"}),
            post("auth/token/revoke", {"token": "{{t}}"}), post("auth/token/revoke-accessor", {"accessor": "{{a}}"})]))
        out.append(Case("(sequence) wrapped token", [
            post("auth/token/create", body, headers=WRAP, capture={"w": "wrap_info.token"}), post("sys/wrapping/lookup", {"token": "{{w}}"}), get("auth/token/lookup-self", token="w"),
            get("cubbyhole/response", token="w"), post("sys/wrapping/rewrap", {"token": "{{w}}"}, capture={"w": "wrap_info.token"}), post("sys/wrapping/unwrap", {"token": "{{w}}"}),
            post("sys/wrapping/unwrap", {"token": "{{w}}"}), post("sys/wrapping/unwrap", token="w")]))
    roles = [{}, {"allowed_policies": "a,default"}, {"allowed_policies": ["a"], "disallowed_policies": ["b"]}, {"disallowed_policies": "default"}, {"allowed_policies_glob": ["a*"]},
             {"disallowed_policies_glob": ["a*"]}, {"orphan": True}, {"renewable": False}, {"token_period": "1h"}, {"period": "1h"}, {"token_explicit_max_ttl": "1h"}, {"explicit_max_ttl": "1h"},
             {"token_num_uses": 2}, {"token_type": "batch"}, {"token_type": "service"}, {"token_type": "default-batch"}, {"token_type": "x"}, {"token_no_default_policy": True}, {"path_suffix": "s"},
             {"path_suffix": "a b"}, {"path_suffix": "/"}, {"token_bound_cidrs": ["10.0.0.0/8"]}, {"bound_cidrs": "127.0.0.1"}, {"token_bound_cidrs": "x"}, {"allowed_entity_aliases": ["a"]},
             {"token_ttl": "1h"}, {"token_max_ttl": "1h"}, {"token_policies": ["a"]}, {"token_strictly_bind_ip": True}, {"period": "1h", "token_period": "2h"}, {"token_period": -1}, {"unknown": 1}]
    for role in roles:
        for body in ({}, {"policies": ["a"]}, {"policies": ["b"]}, {"ttl": "9h"}, {"type": "batch"}, {"entity_alias": "a"}, {"no_parent": True}):
            out.append(Case("(sequence) token role", [
                post("auth/token/roles/q", role), get("auth/token/roles/q"), post("auth/token/create/q", body, capture={"t": "auth.client_token"}), post("auth/token/lookup", {"token": "{{t}}"}),
                post("auth/token/renew", {"token": "{{t}}", "increment": "3h"}), delete("auth/token/roles/q"), post("auth/token/renew", {"token": "{{t}}"}), get("auth/token/roles/q")]))
    return out


def logins() -> list[Case]:
    settings = [{}, {"token_ttl": "1h"}, {"token_max_ttl": "1m", "token_ttl": "1h"}, {"token_policies": ["a", "b"]}, {"policies": "a"}, {"token_policies": "root"}, {"token_period": "1h"}, {"token_num_uses": 1},
                {"token_type": "batch"}, {"token_type": "default-batch"}, {"token_bound_cidrs": ["10.0.0.0/8"]}, {"token_no_default_policy": True}, {"token_explicit_max_ttl": "2m"}, {"ttl": "1h"}, {"max_ttl": "2h"},
                {"period": "3h"}, {"token_type": "batch", "token_num_uses": 2}, {"token_ttl": "-1"}, {"token_ttl": "x"}, {"token_num_uses": -1}, {"token_strictly_bind_ip": True}, {"bound_cidrs": ["127.0.0.1/32"]},
                {"token_type": "default"}, {"token_type": ""}, {"token_type": None}, {"token_policies": None}, {"token_bound_cidrs": ""}]
    out = []
    after = [get("auth/token/lookup-self", token="t"), post("auth/token/renew-self", {"increment": "2h"}, token="t"), get("auth/token/lookup-self", token="t"), post("auth/token/revoke-self", token="t"),
             get("auth/token/lookup-self", token="t")]
    made = {"t": "auth.client_token", "w": "wrap_info.token"}
    for more in settings:
        out.append(Case("(sequence) userpass", [
            post("auth/userpass/users/s", {"password": "p", **more}), get("auth/userpass/users/s"), lists("auth/userpass/users"), post("auth/userpass/login/s", {"password": "p"}, token="none", capture=made),
            *after, post("auth/userpass/login/S", {"password": "p"}, token="none"), post("auth/userpass/login/s", {"password": "q"}, token="none"), post("auth/userpass/login/s", {}, token="none"),
            post("auth/userpass/login/s", {"password": "p"}, token="none", headers=WRAP), post("auth/userpass/users/s/password", {"password": "q"}), post("auth/userpass/users/s/policies", {"policies": "x"}),
            post("auth/userpass/users/s", more), get("auth/userpass/users/s"), delete("auth/userpass/users/s"), get("auth/userpass/users/s"), post("auth/userpass/login/s", {"password": "q"}, token="none")]))
    # OpenBao ends the connection at a role of approle whose token_type is null.
    for more in [one for one in settings if one != {"token_type": None}] + [{"bind_secret_id": False}, {"bind_secret_id": False, "token_bound_cidrs": ["127.0.0.1/32"]}, {"secret_id_num_uses": 1}, {"secret_id_ttl": "1h"}, {"secret_id_bound_cidrs": ["127.0.0.1/32"]},
                            {"secret_id_bound_cidrs": ["10.0.0.0/8"]}, {"local_secret_ids": True}, {"role_id": ""}, {"secret_id_num_uses": -1}, {"bound_cidr_list": "127.0.0.1"}]:
        for given in ({}, {"metadata": '{"a":"b"}'}, {"metadata": {"a": "b"}}, {"metadata": "x"}, {"cidr_list": ["127.0.0.1/32"]}, {"cidr_list": "10.0.0.0/8"}, {"num_uses": 1}, {"ttl": "5m"}, {"ttl": "x"}, {"num_uses": -1}):
            out.append(Case("(sequence) approle", [
                post("auth/approle/role/s", {"role_id": "rid", **more}), get("auth/approle/role/s"), get("auth/approle/role/s/role-id"), get("auth/approle/role/s/local-secret-ids"),
                post("auth/approle/role/s/secret-id", given, capture={"secret_id": "data.secret_id", "accessor": "data.secret_id_accessor"}), lists("auth/approle/role/s/secret-id"),
                post("auth/approle/role/s/secret-id/lookup", {"secret_id": "{{secret_id}}"}), post("auth/approle/role/s/secret-id-accessor/lookup", {"secret_id_accessor": "{{accessor}}"}),
                post("auth/approle/login", {"role_id": "rid", "secret_id": "{{secret_id}}"}, token="none", capture=made), *after,
                post("auth/approle/login", {"role_id": "rid"}, token="none"), post("auth/approle/login", {"role_id": "rid", "secret_id": "nope"}, token="none"), post("auth/approle/login", {"role_id": "x", "secret_id": "y"}, token="none"),
                post("auth/approle/role/s/secret-id/lookup", {"secret_id": "{{secret_id}}"}), post("auth/approle/role/s/secret-id/destroy", {"secret_id": "{{secret_id}}"}),
                post("auth/approle/role/s/secret-id-accessor/destroy", {"secret_id_accessor": "{{accessor}}"}), lists("auth/approle/role/s/secret-id"), delete("auth/approle/role/s"), get("auth/approle/role/s")]))
    return out


def policies() -> list[Case]:
    texts = [POLICY, "", " ", "x", 'path "a" {}', 'path "a" { capabilities = ["x"] }', 'path "a" { capabilities = ["deny", "read"] }', 'path "a" { policy = "write" }', 'path "a" { policy = "x" }', '{"path":{"a":{"capabilities":["read"]}}}',
             'path "a" { capabilities = ["read"] allowed_parameters = { "x" = [] } }', 'path "a" { min_wrapping_ttl = "1h" max_wrapping_ttl = "1m" }', 'path "a" { min_wrapping_ttl = "x" }', 'path "+/a*" { capabilities = ["list"] }',
             'path "a+b" { capabilities = ["list"] }', 'path "*a*" { capabilities = ["list"] }', 'name = "x" path "a" { capabilities = ["read"] }', 'foo = 1', 'path "a" { foo = 1 }', 'path "/a" { capabilities = ["read"] }',
             'path "a" { capabilities = "read" }', 'path a { capabilities = ["read"] }', 'path "a" "b" { capabilities = ["read"] }', 'path "a" { capabilities = ["read", "read", "sudo", "patch", "scan", "recover", "subscribe"] }',
             TEXT, 'cGF0aCAiYSIgeyBjYXBhYmlsaXRpZXMgPSBbInJlYWQiXSB9', 'path "a" { expiration = "2099-01-01T00:00:00Z" capabilities = ["read"] }', 'path "a" { expiration = "x" capabilities = ["read"] }',
             'path "{{identity.entity.id}}" { capabilities = ["read"] }', 'path "{{x}}" { capabilities = ["read"] }', 'path "a" { control_group = {} }', 'path "a" { mfa_methods = ["x"] capabilities = ["read"] }',
             'path "a" { required_parameters = ["x"] capabilities = ["create"] }', 'path "a" { pagination_limit = 5 capabilities = ["list"] }', 'path "a" { pagination_limit = -5 capabilities = ["list"] }']
    out = []
    for text in texts:
        for more in ({}, {"ttl": "1h"}, {"expiration": "2099-01-01T00:00:00Z"}, {"cas": 1}, {"cas": -1}, {"cas_required": True}, {"expiration": "x"}, {"ttl": "-1"}):
            out.append(Case("(sequence) policy", [
                post("sys/policies/acl/Pol", {"policy": text, **more}), get("sys/policies/acl/pol"), get("sys/policy/pol"), patch("sys/policies/acl/pol", {"policy": text, **more}), lists("sys/policies/acl"),
                lists("sys/policies/detailed/acl"), delete("sys/policies/acl/pol"), get("sys/policies/acl/pol"), patch("sys/policies/acl/pol", {"policy": text})]))
    for text in [PASSWORDS, "", "length = 0", "length = 20", 'length = 5 rule "charset" { charset = "a" }', 'length = 200 rule "charset" { charset = "a" }', 'length = 20 rule "x" {}', 'length = "20" rule "charset" { charset = "abc" }',
                 'length = 20 rule "charset" { charset = "abc" min-chars = 21 }', 'length = 20 rule "charset" { charset = "abc" min-chars = -1 }', 'length = 20 rule "charset" { charset = "é" }', 'length=20 rule "charset" {}',
                 '{"length": 20, "rule": [{"charset": {"charset": "ab"}}]}', TEXT, 'x = 1', 'length = 20 rule "charset" { charset = "abc" foo = 1 }', 'length = 20.5 rule "charset" { charset = "abc" }']:
        out.append(Case("(sequence) password policy", [
            post("sys/policies/password/pw", {"policy": text}), get("sys/policies/password/pw"), get("sys/policies/password/pw/generate"), lists("sys/policies/password"), delete("sys/policies/password/pw"),
            get("sys/policies/password/pw"), get("sys/policies/password/pw/generate")]))
    return out


def database() -> list[Case]:
    kinds = [("postgresql-database-plugin", "postgresql://{{username}}:{{password}}@127.0.0.1:1/x"), ("mysql-database-plugin", "{{username}}:{{password}}@tcp(127.0.0.1:1)/"), ("mysql-legacy-database-plugin", "{{username}}:{{password}}@tcp(127.0.0.1:1)/"),
             ("nope-database-plugin", "x"), ("", "x"), ("valkey-database-plugin", ""), ("redis-database-plugin", "")]
    out = []
    for kind, url in kinds:
        for more in ({}, {"verify_connection": True}, {"connection_url": ""}, {"connection_url": "x"}, {"username_template": "{{.RoleName}}"}, {"username_template": "{{x"}, {"max_open_connections": -1}, {"max_open_connections": "x"},
                     {"max_connection_lifetime": "5s"}, {"max_connection_lifetime": "x"}, {"password_policy": "nope"}, {"allowed_roles": ["a"]}, {"allowed_roles": ""}, {"root_rotation_statements": ["x"]}, {"password_authentication": "scram-sha-256"},
                     {"password_authentication": "x"}, {"disable_escaping": True}, {"skip_static_role_import_rotation": True}, {"host": "127.0.0.1", "port": 1}, {"tls_ca": "x"}, {"unknown": 1}, {"username": ""}, {"plugin_version": "v1"}):
            out.append(Case("(sequence) database", [
                post("database/config/d", {"plugin_name": kind, "connection_url": url, "username": "u", "password": "a database password", "verify_connection": False, **more}), get("database/config/d"), lists("database/config"),
                post("database/roles/r", {"db_name": "d", "creation_statements": "create"}), get("database/roles/r"), get("database/creds/r"), post("database/reset/d"), post("database/rotate-root/d"), delete("database/roles/r"),
                post("database/config/d", {"allowed_roles": ["b"]}), get("database/config/d"), delete("database/config/d"), get("database/config/d")]))
    for role in ({}, {"db_name": "nope"}, {"creation_statements": []}, {"creation_statements": "a;b"}, {"default_ttl": "1h", "max_ttl": "1m"}, {"default_ttl": "x"}, {"default_ttl": -1}, {"max_ttl": "1h"}, {"credential_type": "password"},
                 {"credential_type": "x"}, {"credential_type": "rsa_private_key"}, {"credential_config": {"password_policy": "x"}}, {"credential_config": {"x": "y"}}, {"credential_type": "client_certificate"}, {"revocation_statements": "x"},
                 {"rollback_statements": ["a", "b"]}, {"renew_statements": "x"}, {"unknown": 1}, {"creation_statements": [""]}, {"creation_statements": None}):
        out.append(Case("(sequence) database role", [
            post("database/config/d", CONNECTION), post("database/roles/r", {"db_name": "d", "creation_statements": ["a"], **role}), get("database/roles/r"), lists("database/roles"), post("database/roles/r", {"max_ttl": "2h"}), get("database/roles/r"),
            delete("database/roles/r"), get("database/roles/r"), delete("database/config/d")]))
    return out


def transit() -> list[Case]:
    out = []
    for kind in ("aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "hmac", "x", "", None):
        for more in ({}, {"derived": True}, {"derived": True, "convergent_encryption": True}, {"convergent_encryption": True}, {"exportable": True, "allow_plaintext_backup": True}, {"key_size": 32}, {"key_size": 1}, {"auto_rotate_period": "1h"},
                     {"auto_rotate_period": "1m"}, {"auto_rotate_period": "x"}, {"auto_rotate_period": "-1h"}):
            if kind == "rsa-2048" and more:
                continue
            derived = {"context": TEXT} if more.get("derived") else {}
            # OpenBao makes no HMAC key without its size.
            more = {"key_size": 32, **more} if kind == "hmac" else more
            out.append(Case(f"(sequence) transit {kind}", [
                post("transit/keys/k", {"type": kind, **more}), get("transit/keys/k"), lists("transit/keys"), post("transit/keys/k", {"type": kind, **more}), post("transit/keys/k", {"type": "aes128-gcm96"}),
                post("transit/encrypt/k", {"plaintext": TEXT, **derived}, capture={"c": "data.ciphertext"}), post("transit/decrypt/k", {"ciphertext": "{{c}}", **derived}), post("transit/rewrap/k", {"ciphertext": "{{c}}", **derived}),
                post("transit/encrypt/k", {"plaintext": TEXT}), post("transit/encrypt/k", {"plaintext": "not base64!", **derived}), post("transit/encrypt/k", {"batch_input": [{"plaintext": TEXT, **derived}, {"plaintext": "!"}]}),
                post("transit/decrypt/k", {"batch_input": [{"ciphertext": "{{c}}", **derived}, {"ciphertext": "x"}]}), post("transit/sign/k", {"input": TEXT, **derived}, capture={"s": "data.signature"}),
                post("transit/verify/k", {"input": TEXT, "signature": "{{s}}", **derived}), post("transit/sign/k/sha2-512", {"input": TEXT, **derived}), post("transit/hmac/k", {"input": TEXT}, capture={"h": "data.hmac"}),
                post("transit/verify/k", {"input": TEXT, "hmac": "{{h}}"}), post("transit/hmac/k/sha3-256", {"input": TEXT}), post("transit/datakey/plaintext/k", derived), post("transit/datakey/wrapped/k", {"bits": 128, **derived}),
                post("transit/keys/k/rotate"), post("transit/keys/k/config", {"min_decryption_version": 2, "deletion_allowed": True}), get("transit/keys/k"), post("transit/decrypt/k", {"ciphertext": "{{c}}", **derived}),
                post("transit/keys/k/trim", {"min_available_version": 2}), post("transit/keys/k/config", {"min_encryption_version": 2}), post("transit/keys/k/trim", {"min_available_version": 2}), get("transit/keys/k"),
                get("transit/export/encryption-key/k"), get("transit/export/signing-key/k/2"), get("transit/export/hmac-key/k/latest"), get("transit/export/public-key/k"), get("transit/backup/k"), delete("transit/keys/k/soft-delete"),
                get("transit/keys/k"), post("transit/encrypt/k", {"plaintext": TEXT, **derived}), post("transit/keys/k/soft-delete-restore"), delete("transit/keys/k"), get("transit/keys/k")]))
    return out


def wrapping() -> list[Case]:
    out = []
    for body in ({"a": 1}, {}, None, b"x", b"[]", b"null", {"a": {"b": [None]}}):
        for ttl in ("60", "1h", "0", "", "x", "-5", "1.5"):
            out.append(Case("(sequence) wrap", [
                post("sys/wrapping/wrap", body, headers={"X-Vault-Wrap-TTL": ttl}, capture={"w": "wrap_info.token"}), post("sys/wrapping/lookup", {"token": "{{w}}"}, token="none"), get("sys/wrapping/lookup", token="w"),
                post("sys/wrapping/lookup", {"token": "{{w}}"}), post("sys/wrapping/rewrap", {"token": "{{w}}"}, headers={"X-Vault-Wrap-TTL": ttl}, capture={"w2": "wrap_info.token"}), post("sys/wrapping/unwrap", {"token": "{{w2}}"}, token="none"),
                post("sys/wrapping/unwrap", {"token": "{{w2}}"}), post("sys/wrapping/unwrap", {"token": "{{w}}"}), post("sys/wrapping/unwrap", token="w2")]))
    for path in ("kv1/nope", "kv2/data/nope", "sys/mounts", "sys/policies/acl/nope", "auth/token/lookup-self", "sys/health", "sys/seal-status", "sys/internal/ui/mounts", "kv1/", "sys/internal/specs/openapi?a=1",
                 "sys/tools/random", "auth/approle/role", "sys/leases/lookup/nope", "sys/wrapping/lookup", "sys/config/cors", "sys/metrics", "sys/in-flight-req"):
        for method in ("GET", "LIST", "POST", "DELETE"):
            if method != "DELETE" or "nope" in path:
                out.append(Case("(sequence) wrapped answer", [Step(method, path, headers=WRAP, capture={"w": "wrap_info.token"}), post("sys/wrapping/unwrap", {"token": "{{w}}"})]))
    return out


def system() -> list[Case]:
    out = []
    for body in ({}, {"path": "a"}, {"paths": ["a", "b"]}, {"paths": "a,b"}, {"path": ["a"], "paths": ["b"]}, {"paths": []}, {"paths": [""]}, {"paths": ["sys/mounts", "sys/mounts"]}, {"paths": ["/a"]}, {"paths": None}, {"paths": 1}, {"paths": ["a/../b"]}, {"path": ""}):
        out.append(Case("(sequence) capabilities", [post("sys/capabilities-self", body), post("sys/capabilities-self", body, token="weak"), post("sys/capabilities", {"token": "{{root}}", **body}), post("sys/capabilities", {"token": "nope", **body}),
                                                    post("sys/capabilities-accessor", {"accessor": "nope", **body})]))
    for body in ({"rate": 5}, {"rate": 0}, {"rate": -1}, {"rate": "x"}, {"rate": 1.5}, {}, {"rate": 5000, "interval": "1m"}, {"rate": 5000, "interval": "0"}, {"rate": 5000, "interval": "x"}, {"rate": 5000, "block_interval": "1m"}, {"rate": 5000, "path": "nope"},
                 {"rate": 5000, "path": "kv1/"}, {"rate": 5000, "path": "kv1/a"}, {"rate": 5000, "path": "kv1/a*"}, {"rate": 5000, "role": "x"}, {"rate": 5000, "path": "auth/approle", "role": "x"}, {"rate": 5000, "type": "rate-limit"}, {"rate": 5000, "inheritable": True},
                 {"rate": 5000, "name": "other"}, {"rate": 5000, "path": "auth/approle/", "role": "x"}, {"rate": 5000, "path": "sys/health"}):
        body = {**body, "path": body.get("path", "kv2/")}
        out.append(Case("(sequence) quota", [post("sys/quotas/rate-limit/z", body), get("sys/quotas/rate-limit/z"), lists("sys/quotas/rate-limit"), post("sys/quotas/rate-limit/zz", body), delete("sys/quotas/rate-limit/zz"), delete("sys/quotas/rate-limit/z"),
                                             get("sys/quotas/rate-limit/z"), lists("sys/quotas/rate-limit")]))
    for body in ({"enabled": True}, {"allowed_origins": "*"}, {"allowed_origins": ["http://a", "http://b"]}, {"allowed_origins": ["*", "http://a"]}, {"allowed_origins": "http://a,http://b", "allowed_headers": "X-A"}, {"allowed_origins": "", "allowed_headers": []},
                 {"enabled": False, "allowed_origins": "http://a"}, {"allowed_origins": "nonsense"}):
        out.append(Case("(sequence) cors", [post("sys/config/cors", body), get("sys/config/cors"), get("sys/health", headers={"Origin": "http://a"}), get("kv1/x", headers={"Origin": "http://c"}),
                                            Step("OPTIONS", "kv1/x", headers={"Origin": "http://a", "Access-Control-Request-Method": "GET"}), Step("OPTIONS", "kv1/x", headers={"Origin": "http://c", "Access-Control-Request-Method": "FOO"}),
                                            delete("sys/config/cors"), get("sys/config/cors")]))
    for tag in ("root", "uuid", "accessor", "storage", "nope", "ROOT", ""):
        out.append(Case("(sequence) inspect", [get(f"sys/internal/inspect/router/{tag}", token=who) for who in ("weak", "none", "root")]))
    for number in ("1", "0", "-1", "32", "x", "1000000", "131072", "131073"):
        out.append(Case("(sequence) random", [post(f"sys/tools/random/{number}", {"format": "hex"}), post("sys/tools/random", {"bytes": number}), post(f"transit/random/{number}"), post(f"sys/tools/random/all/{number}"), post(f"sys/tools/random/seal/{number}")]))
    for name in ("sha2-224", "sha2-256", "sha2-512", "sha3-256", "sha1", "SHA2-256", "x", "none"):
        for form in ("hex", "base64", "x", None):
            out.append(Case("(sequence) hash", [post("sys/tools/hash", {"input": TEXT, "algorithm": name, "format": form}), post(f"sys/tools/hash/{name}", {"input": TEXT, "format": form}), post(f"transit/hash/{name}", {"input": TEXT, "format": form})]))
    return out


SEQUENCES: list[Case] = [*kv1(), *kv2(), *mounts(), *tokens(), *logins(), *policies(), *database(), *transit(), *wrapping(), *system()]
