"""Asks a running peer what the steps of a .jsonl file answer, and writes the answers into the file.

    python3 record.py http://127.0.0.1:8200 TOKEN peer.jsonl approle

A step is {"do": [METHOD, PATH, BODY?]}; PATH is within an auth method of this type that is made for the run, BODY is text.
The answer goes to "peer". Where Keepfast answers otherwise on purpose, "ours" holds what and "why" the reason. "keep" names
the accessor in an answer, and "$name" in a later step stands for it. All three are kept.
"""

import json
import re
import sys
import urllib.error
import urllib.request

address, token, file, method_type = sys.argv[1:]
at = f"recorded-{method_type}"
TIME = re.compile(r"(?!0001)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
kept = {}


def ask(method, path, body=None):
    headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
    data = body.encode() if body is not None else None
    request = urllib.request.Request(f"{address}/v1/{path}", method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as reply:
        return reply.code, reply.read().decode()


def answer(status, body):
    out = {"status": status}
    for name in ("data", "errors"):
        if body.get(name):
            out[name] = body[name]
    if body.get("auth"):
        shown = {"token_policies": []} | body["auth"]
        out["auth"] = {name: shown[name] for name in ("metadata", "num_uses", "token_policies")}
    # That a parameter is unknown is said by core, not by the method.
    warnings = [w for w in body.get("warnings") or [] if not w.startswith("Endpoint ")]
    if warnings:
        out["warnings"] = warnings
    return json.loads(UUID.sub("UUID", TIME.sub("TIME", json.dumps(out))))


ask("DELETE", f"sys/auth/{at}")
assert ask("POST", f"sys/auth/{at}", json.dumps({"type": method_type}))[0] == 204
lines = []
for line in open(file):
    step = json.loads(line)
    parts = step["do"]
    for name, accessor in kept.items():
        parts = [part.replace(f"${name}", accessor) for part in parts]
    method, path, *body = parts
    status, text = ask(method, f"auth/{at}/{path}", *body)
    reply = json.loads(text) if text else {}
    if "keep" in step:
        kept[step["keep"]] = reply["data"]["secret_id_accessor"]
    step = {"do": step["do"], "peer": answer(status, reply)} | {k: step[k] for k in ("keep", "ours", "why") if k in step}
    lines.append(json.dumps(step, ensure_ascii=False))
with open(file, "w") as out:
    out.write("\n".join(lines) + "\n")
ask("DELETE", f"sys/auth/{at}")
