#!/usr/bin/env python3
"""A relying party of the OIDC provider: Authlib, unmodified, on both servers.

    run.py BAO KEEPFAST

For each signature algorithm and each way to authenticate at the token endpoint: discovery, an authorization request with PKCE, the exchange of
the code, the identity token verified against the key set and validated with its nonce, `at_hash` and `c_hash`, and `userinfo`. Then rotations
between the exchange and the verification, and tokens that must not verify. The last line is `N passed, N failed`.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

warnings.filterwarnings("ignore")

import requests  # noqa: E402
from authlib.common.security import generate_token  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402
from authlib.jose import JsonWebKey, JsonWebToken  # noqa: E402
from authlib.oidc.core import CodeIDToken  # noqa: E402

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]
AUTHENTICATION = ["client_secret_basic", "client_secret_post", "none"]
CALLBACK = "http://127.0.0.1:8250/oidc/callback"
POLICY = 'path "identity/oidc/*" { capabilities = ["create", "read", "update"] }'


class Server:
    """An unsealed server in memory with a user that has an entity in a group."""

    def __init__(self, name: str, binary: str):
        self.name = name
        self.directory = tempfile.TemporaryDirectory(prefix="oidc-")
        port, cluster = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = Path(self.directory.name, "config.json")
        config.write_text(json.dumps({
            "storage": {"inmem": {}}, "listener": {"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}},
            "disable_mlock": True, "api_addr": self.url, "cluster_addr": f"https://127.0.0.1:{cluster}", "log_level": "warn"}))
        with open(Path(self.directory.name, "log"), "w") as log:
            self.process = subprocess.Popen([binary, "server", f"-config={config}"], stdout=log, stderr=log)
        self.root = None
        until(lambda: self.call("GET", "sys/seal-status").status_code == 200)
        keys = self.ok("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root = keys["root_token"]
        self.ok("PUT", "sys/unseal", {"key": keys["keys_base64"][0]})
        until(lambda: self.call("GET", "sys/health").status_code == 200 and self.call("GET", "auth/token/lookup-self").status_code == 200)
        self.ok("POST", "sys/policies/acl/oidc", {"policy": POLICY})
        self.ok("POST", "sys/auth/userpass", {"type": "userpass"})
        self.ok("POST", "auth/userpass/users/anna", {"password": "secret-of-anna", "token_policies": "oidc"})
        auth = self.ok("POST", "auth/userpass/login/anna", {"password": "secret-of-anna"})["auth"]
        self.user, self.entity = auth["client_token"], auth["entity_id"]
        self.ok("POST", f"identity/entity/id/{self.entity}", {"name": "anna", "metadata": {"email": "anna@example.com"}})
        self.ok("POST", "identity/group", {"name": "staff", "member_entity_ids": [self.entity]})
        claims = {"groups": "{{identity.entity.groups.names}}", "email": "{{identity.entity.metadata.email}}"}
        template = "{" + ", ".join(f'"{name}": {value}' for name, value in claims.items()) + "}"
        self.ok("POST", "identity/oidc/scope/profile", {"template": template})

    def call(self, method: str, path: str, body: dict | None = None, token: str | None = None) -> requests.Response:
        headers = {"X-Vault-Token": token or self.root} if token or self.root else {}
        return requests.request(method, f"{self.url}/v1/{path}", json=body, headers=headers, timeout=60)

    def ok(self, method: str, path: str, body: dict | None = None, token: str | None = None) -> dict:
        response = self.call(method, path, body, token)
        assert response.status_code < 300, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.text else {}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


class RelyingParty:
    """A client of a provider of its own, with a key of its own."""

    def __init__(self, server: Server, name: str, algorithm: str, authentication: str):
        self.server, self.name, self.authentication = server, name, authentication
        server.ok("POST", f"identity/oidc/key/{name}", {"algorithm": algorithm, "allowed_client_ids": "*", "verification_ttl": "1h"})
        kind = "public" if authentication == "none" else "confidential"
        server.ok("POST", f"identity/oidc/client/{name}", {
            "key": name, "client_type": kind, "redirect_uris": CALLBACK, "assignments": "allow_all", "id_token_ttl": "10m"})
        self.client = server.ok("GET", f"identity/oidc/client/{name}")["data"]
        server.ok("POST", f"identity/oidc/provider/{name}", {
            "allowed_client_ids": self.client["client_id"], "scopes_supported": "profile"})
        issuer = f"{server.url}/v1/identity/oidc/provider/{name}"
        self.metadata = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=60).json()
        assert self.metadata["issuer"] == issuer and algorithm in self.metadata["id_token_signing_alg_values_supported"]

    def session(self) -> OAuth2Session:
        return OAuth2Session(
            self.client["client_id"], self.client.get("client_secret"), scope="openid profile", redirect_uri=CALLBACK,
            token_endpoint_auth_method=self.authentication, code_challenge_method="S256")

    def authorize(self, session: OAuth2Session, verifier: str, nonce: str) -> str:
        """Authorizes as the user. Returns the URL to which the browser would be redirected, with the code."""
        url, state = session.create_authorization_url(self.metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce)
        request = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        response = self.server.ok("POST", f"identity/oidc/provider/{self.name}/authorize", request, self.server.user)
        assert response["state"] == state
        return f"{CALLBACK}?code={response['code']}&state={state}"

    def log_in(self) -> tuple[OAuth2Session, dict, str, str]:
        session, verifier, nonce = self.session(), generate_token(48), generate_token(20)
        callback = self.authorize(session, verifier, nonce)
        token = session.fetch_token(self.metadata["token_endpoint"], authorization_response=callback, code_verifier=verifier)
        return session, token, parse_qs(urlsplit(callback).query)["code"][0], nonce

    def verified(self, token: dict, code: str, nonce: str) -> CodeIDToken:
        """The identity token, verified against the key set and validated."""
        keys = JsonWebKey.import_key_set(requests.get(self.metadata["jwks_uri"], timeout=60).json())
        claims = JsonWebToken(self.metadata["id_token_signing_alg_values_supported"]).decode(
            token["id_token"], keys, claims_cls=CodeIDToken,
            claims_options={"iss": {"value": self.metadata["issuer"]}, "aud": {"value": self.client["client_id"]}},
            claims_params={"nonce": nonce, "client_id": self.client["client_id"], "access_token": token["access_token"], "code": code})
        claims.validate()
        assert "at_hash" in claims and "c_hash" in claims and claims["namespace"] == "root"
        return claims

    def flow(self) -> None:
        session, token, code, nonce = self.log_in()
        claims = self.verified(token, code, nonce)
        expected = {"sub": self.server.entity, "groups": ["staff"], "email": "anna@example.com"}
        assert expected.items() <= claims.items(), claims
        assert session.get(self.metadata["userinfo_endpoint"]).json() == expected

    def rotated(self, times: int) -> None:
        _, token, code, nonce = self.log_in()
        for _ in range(times):
            self.server.ok("POST", f"identity/oidc/key/{self.name}/rotate", {})
        self.verified(token, code, nonce)
        self.flow()

    def published_ahead(self) -> None:
        """A key set that was read before a rotation verifies what is signed after it."""
        before = requests.get(self.metadata["jwks_uri"], timeout=60).json()
        self.server.ok("POST", f"identity/oidc/key/{self.name}/rotate", {})
        _, token, _, _ = self.log_in()
        JsonWebToken(["EdDSA"]).decode(token["id_token"], JsonWebKey.import_key_set(before))

    def refused(self) -> None:
        """An altered token, another verifier and a second exchange fail."""
        _, token, code, nonce = self.log_in()
        head, body, signature = token["id_token"].split(".")
        other = self.log_in()[1]["id_token"].split(".")
        for altered in (f"{head}.{other[1]}.{signature}", f"{head}.{body}.{other[2]}"):
            fails(lambda altered=altered: self.verified({**token, "id_token": altered}, code, nonce))
        fails(lambda: self.verified(token, code, "another nonce"))
        fails(lambda: self.verified({**token, "access_token": "another"}, code, nonce))
        session, verifier = self.session(), generate_token(48)
        callback = self.authorize(session, verifier, nonce)
        exchange = lambda verifier: session.fetch_token(  # noqa: E731
            self.metadata["token_endpoint"], authorization_response=callback, code_verifier=verifier)
        fails(lambda: exchange(generate_token(48)))
        fails(lambda: exchange(verifier))


def fails(what) -> None:
    try:
        what()
    except Exception:
        return
    raise AssertionError("it should have failed")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(holds) -> None:
    for _ in range(600):
        try:
            if holds():
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise SystemExit("a server does not start")


def tests(server: Server):
    for algorithm in ALGORITHMS:
        for authentication in AUTHENTICATION:
            name = f"{algorithm}-{authentication}"
            yield name, lambda name=name, a=algorithm, b=authentication: RelyingParty(server, name, a, b).flow()
    for times in (1, 2):
        for algorithm in ("RS256", "ES256", "EdDSA"):
            name = f"rotated-{times}-{algorithm}"
            yield name, lambda name=name, a=algorithm, n=times: RelyingParty(server, name, a, "client_secret_basic").rotated(n)
    yield "published-ahead", lambda: RelyingParty(server, "published-ahead", "EdDSA", "client_secret_post").published_ahead()
    for authentication in AUTHENTICATION:
        name = f"refused-{authentication}"
        yield name, lambda name=name, a=authentication: RelyingParty(server, name, "ES256", a).refused()


def main() -> int:
    passed = failed = 0
    for name, binary in zip(("bao", "keepfast"), sys.argv[1:]):
        server = Server(name, binary)
        try:
            for test, run in tests(server):
                try:
                    run()
                    passed += 1
                except Exception as error:
                    failed += 1
                    print(f"{name}: {test}: {type(error).__name__}: {error}")
        finally:
            server.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
