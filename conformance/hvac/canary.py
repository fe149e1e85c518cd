"""The canary (AL-01) of hvac's tests: notes the secrets that go over the wire, and looks for them in what the servers wrote.

As a pytest plugin (`-p canary`, with HVAC_CANARY naming a directory) it notes every token, accessor, secret id and unseal key that was
answered, and every value that was written to a KV engine. `search` finds them raw, in hexadecimal or in base64.
"""

import base64
import json
import os
import re
from pathlib import Path

# The names under which answers carry what only their receiver may know; as in conformance/src/play.rs.
SECRET = {"client_token", "accessor", "secret_id", "token", "root_token", "keys", "keys_base64", "plaintext", "client_secret"}
SHORTEST = {"answer": 16, "request": 8}
KV = re.compile(r"^/v1/(?:secret|kv)[^/]*/")
# Accessors of mounts (`kv_12345678`) are no secrets, and words of the fields' own values are not either.
PUBLIC = re.compile(r"^(auth_)?[a-z]+_[0-9a-f]{8}$")


def pytest_configure(config) -> None:
    import requests

    directory = os.environ.get("HVAC_CANARY")
    if not directory:
        return
    noted = open(Path(directory) / f"secrets-{os.getpid()}.txt", "a", encoding="utf-8", buffering=1)
    send = requests.Session.send

    def watched(session, request, **options):
        answer = send(session, request, **options)
        path = request.path_url.split("?")[0]
        listing = request.method == "LIST" or "list=" in request.path_url
        found = [] if listing else list(answered(parsed(answer.content)))
        if KV.match(path) and request.method in ("POST", "PUT", "PATCH") and "/config" not in path:
            found += written(parsed(request.body))
        for secret in found:
            print(json.dumps(secret), file=noted)
        return answer

    requests.Session.send = watched


def parsed(content):
    try:
        return json.loads(content)
    except (TypeError, ValueError):
        return None


def answered(value, key: str = ""):
    """What only the receiver of an answer may know."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from answered(member, name)
    elif isinstance(value, list):
        for item in value:
            yield from answered(item, key)
    elif isinstance(value, str) and key in SECRET and len(value) >= SHORTEST["answer"] and not PUBLIC.match(value):
        yield value


def written(value):
    """The texts in a value that was written."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from written(item)
    elif isinstance(value, str) and len(value) >= SHORTEST["request"]:
        yield value


def search(directory: Path) -> tuple[int, list[str]]:
    """How many secrets were looked for, and where one was found."""
    probe = b"a secret, as a test of the search"
    if not all(leaks(b"{" + form + b"}", probe.decode()) for form in (probe, probe.hex().encode(), base64.b64encode(probe))):
        raise AssertionError("the search finds nothing")
    secrets = {json.loads(line) for file in directory.glob("secrets-*.txt") for line in file.read_text("utf-8").splitlines()}
    files = [*directory.glob("audit-*.log"), *directory.glob("server-*.log")]
    contents = {file.name: file.read_bytes() for file in files}
    found = [f"{secret[:24]}… stands in {name}" for name, content in contents.items() for secret in secrets if leaks(content, secret)]
    if not secrets or not any(content for name, content in contents.items() if name.startswith("audit-")):
        found.append("there are no secrets, or no audit log, to look at")
    return len(secrets), found


def leaks(content: bytes, secret: str) -> bool:
    raw = secret.encode()
    # Base64 of whole groups of three bytes, so that what follows the secret changes nothing. A longer word that begins so is another word.
    whole = re.search(re.escape(raw) + rb"(?![0-9A-Za-z])", content) if raw in content else None
    return bool(whole) or raw.hex().encode() in content or base64.b64encode(raw[: len(raw) // 3 * 3]) in content
