"""Sends the steps of a .jsonl file to a running OpenBao and writes the responses into the file.

    python3 record.py http://127.0.0.1:8200 TOKEN kv_v1.jsonl mounts '{"type":"kv"}'
    python3 record.py http://127.0.0.1:8200 TOKEN userpass.jsonl auth '{"type":"userpass"}'

A step is {"do": [METHOD, PATH, BODY?]}; PATH is within a mount that is created for the run, BODY is text. The response is
stored as "openbao". Where Keepfast differs on purpose, "ours" is its response and "why" the reason; both are kept. "keep" is
a field of the response's data, whose value replaces "$field" in later steps.
"""

import json
import re
import sys
import urllib.error
import urllib.request

address, token, file, kind, mount = sys.argv[1:]
at = f"recorded-{abs(hash(file)) % 10**8}"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"(?!0001)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def ask(method, path, body=None):
    headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
    if method == "PATCH":
        headers["Content-Type"] = "application/merge-patch+json"
    data = body.encode() if body is not None else None
    request = urllib.request.Request(f"{address}/v1/{path}", method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as reply:
        return reply.code, reply.read().decode()


def answer(status, text):
    out = {"status": status}
    body = json.loads(text) if text else {}
    if body.get("data") is not None:
        out["data"] = json.loads(TIME.sub("TIME", json.dumps(body["data"])))
    if body.get("lease_duration"):
        out["lease_duration"] = body["lease_duration"]
    if body.get("auth"):
        # Core creates the other fields.
        policies = [p for p in body["auth"]["policies"] if p != "default"]
        out["login"] = {"metadata": body["auth"]["metadata"], "policies": policies}
    if body.get("errors"):
        out["errors"] = body["errors"]
    # Core adds the warnings about unknown parameters.
    warnings = [w for w in body.get("warnings") or [] if not w.startswith("Endpoint ")]
    if warnings:
        out["warnings"] = warnings
    return json.loads(UUID.sub("UUID", json.dumps(out)))


assert ask("POST", f"sys/{kind}/{at}", mount)[0] == 204
kept = {}
prefix = f"auth/{at}" if kind == "auth" else at
lines = []
for line in open(file):
    step = json.loads(line)
    parts = step["do"]
    for name, value in kept.items():
        parts = [part.replace(f"${name}", value) for part in parts]
    method, path, *body = parts
    joint = "" if path[:1] in ("", "?", "/") else "/"
    status, text = ask(method, prefix + joint + path, *body)
    if "keep" in step:
        kept[step["keep"]] = json.loads(text)["data"][step["keep"]]
    step = {"do": step["do"], "openbao": answer(status, text)} | {k: step[k] for k in ("keep", "ours", "why") if k in step}
    lines.append(json.dumps(step, ensure_ascii=False))
open(file, "w").write("\n".join(lines) + "\n")
ask("DELETE", f"sys/{kind}/{at}")
