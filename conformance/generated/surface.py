"""What the OpenAPI documents of both servers have: paths, methods and the fields of bodies; and how placeholders are filled."""

import re
from pathlib import Path

from server import Server

MISSING = Path(__file__).resolve().parent.parent / "surface-missing.txt"
# Paths that end the server or the session, or that wait.
NEVER = re.compile(r"^sys/(seal|unseal|step-down|init|rekey/(init|update|verify)|rotate/root/(init|update|verify)|monitor|pprof)")

FILLED = {
    "urlalgorithm": "sha2-256", "hash_algorithm": "sha2-256", "algorithm": "sha2-256", "urlbytes": "16", "bytes": "16",
    "source": "platform", "plaintext": "plaintext", "version": "1", "header": "x-custom", "migration_id": "nope",
}


class Operation:
    """One method of one path, with the fields that its body has in either document."""

    def __init__(self, path: str, method: str):
        self.path, self.method, self.fields = path, method, set()


def operations(ours: Server, peer: Server) -> list[Operation]:
    """The operations of OpenBao's document, but for those that ours is known to miss, with the fields that either has."""
    missing = set(MISSING.read_text().split("\n"))
    found: dict[tuple[str, str], Operation] = {}
    for server in (peer, ours):
        document = server.call("GET", "sys/internal/specs/openapi").body
        for path, item in document["paths"].items():
            path = path.lstrip("/")
            for method, operation in item.items():
                if method not in ("get", "post", "delete", "patch") or path.startswith("identity/"):
                    continue
                name = method.upper()
                if name == "GET" and any(p["name"] == "list" and p.get("required") for p in operation.get("parameters", [])):
                    name = "LIST"
                listed = path.replace("kv2/", "secret/", 1)
                if f"{name} {listed}" in missing or NEVER.match(path):
                    continue
                key = (path.rstrip("/"), name)
                if server is ours and key not in found:
                    continue
                known = found.setdefault(key, Operation(*key))
                known.fields |= set(fields(document, operation))
    return [found[key] for key in sorted(found)]


def fields(document: dict, operation: dict) -> list[str]:
    """The names of the members of the body."""
    content = operation.get("requestBody", {}).get("content", {})
    names: list[str] = []
    for media in content.values():
        schema = media.get("schema", {})
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        names += schema.get("properties", {})
    return names


def filled(path: str, name: str) -> str:
    """A path with this name for each placeholder that is one."""
    def fill(match: re.Match) -> str:
        placeholder = match.group(1)
        if path.startswith("sys/") and placeholder == "path" and "/" in name:
            return name.split("/")[-1]
        if placeholder == "type":
            return "secret" if path.startswith("sys/") else "encryption-key"
        return FILLED.get(placeholder, name)
    return re.sub(r"\{([^}]+)\}", fill, path)
