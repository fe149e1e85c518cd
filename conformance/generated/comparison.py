"""Normalises responses and lists their differences."""

import re

from server import Answer

# What varies from run to run, by its form.
FORMS = [
    (re.compile(r"^[A-Za-z0-9+/]{42,88}={0,2}$"), "<base64>"),
    (re.compile(r"^[A-Za-z0-9+/]{22}==$"), "<base64>"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b(hvs|s)\.[A-Za-z0-9_-]{20,}"), "<token>"),
    (re.compile(r"\b(hvb|b)\.[A-Za-z0-9_-]{20,}"), "<batch>"),
    (re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(auth_)?([a-z]+)_[0-9a-f]{8}\b"), r"<accessor \2>"),
    (re.compile(r"\bvault:v(\d+):[A-Za-z0-9+/=_-]{20,}"), r"<vault v\1>"),
    (re.compile(r"hmac-sha256:[0-9a-f]{64}"), "<hmac>"),
    (re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.S), r"<pem \1>"),
    (re.compile(r"vault-cluster-[0-9a-f]{8}"), "<cluster>"),
    (re.compile(r"\b[A-Za-z0-9]{24}\b"), "<accessor>"),
    (re.compile(r"127\.0\.0\.1:\d{4,5}"), "<address>"),
    (re.compile(r"generated-\w+/"), "<directory>/"),
    (re.compile(r"(failed to connect to|unable to start transaction).*", re.S), "<no connection>"),
    (re.compile(r"at input byte \d+"), "at input byte <n>"),
    (re.compile(r"OpenBao's server log|the server's log|Keepfast's server log"), "the server's log"),
    # The error texts below come from OpenBao's libraries for JSON and HCL.
    (re.compile(r"(error converting input for field \"[^\"]*\").*", re.S), r"\1"),
    (re.compile(r"failed to (decode|parse) JSON.*", re.S), "failed to parse JSON"),
    (re.compile(r"(failed to parse policy).*", re.S), r"\1"),
]
# Values that are random, by the name of their member; their type is compared.
RANDOM = {"accessor", "nonce", "random_bytes", "public_key", "backup", "signature", "ciphertext", "plaintext", "version",
          "cluster_id", "build_date", "commit_date", "password", "secret_id", "role_id", "otp", "encoded_token", "hmac",
          "creation_time", "token", "csr", "running_plugin_version", "plugin_version",
          "wrapped_accessor", "migration_id", "cluster_name", "api_address", "api_addr", "cluster_addr", "redirect_addr", "address",
          "leader_address", "leader_cluster_address", "cluster_address", "install_time", "previous_version", "running_sha256", "help"}
# Numbers that run down or up while the two servers are asked.
RUNNING = {"ttl", "lease_duration", "secret_id_ttl", "creation_ttl", "last_vault_rotation", "encryptions"}
# How far a running number may be from the other server's.
DRIFT = 5


def normalised(value: object, variables: dict, key: str = "") -> object:
    """The same with what varies from run to run masked."""
    if isinstance(value, dict):
        return {masked(k, variables): normalised(v, variables, k) for k, v in value.items()}
    if isinstance(value, list):
        return [normalised(item, variables, key) for item in value]
    if isinstance(value, str):
        if key in RANDOM and (len(value) >= 8 or key == "random_bytes"):
            return "<text>"
        return masked(value, variables)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1_700_000_000 < value < 4_000_000_000:
        return "<unix>"
    return value


def masked(text: str, variables: dict) -> str:
    for name, value in variables.items():
        if len(value) >= 5:
            text = text.replace(value, f"{{{{{name}}}}}")
    for form, mask in FORMS:
        text = form.sub(mask, text)
    return text


def differences(ours: Answer, peer: Answer, mine: dict, theirs: dict, measured: bool = False) -> list[str]:
    """The differences between the response of Keepfast and that of OpenBao; the variables of both stand for the values that they returned."""
    found = []
    if ours.status != peer.status:
        found.append(f"status: ours {ours.status} {short(error(ours, mine))}, peer {peer.status} {short(error(peer, theirs))}")
        return found
    if ours.content_type != peer.content_type:
        found.append(f"content type: ours {ours.content_type!r}, peer {peer.content_type!r}")
    if ours.cache_control != peer.cache_control:
        found.append(f"cache control: ours {ours.cache_control!r}, peer {peer.cache_control!r}")
    if measured:
        ours, peer = kinds(ours), kinds(peer)
    compare("", plain(normalised(ours.body, mine)), plain(normalised(peer.body, theirs)), found)
    return found


def plain(body: object) -> object:
    """The same without the members of `data` that stand at top level as well, which would only be found twice."""
    # What help and the document of the API say are each server's own words.
    if isinstance(body, dict) and "openapi" in body:
        return {key: type(value).__name__ for key, value in body.items() if key in ("help", "openapi", "see_also", "paths")}
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        return body
    twice = [key for key in body if key in data and body[key] == data[key]]
    return {**{key: value for key, value in body.items() if key not in twice}, **({"<mirrored>": True} if twice else {})}


def kinds(answer: Answer) -> Answer:
    """An answer with the kind of each value in its place: what was measured."""
    def kind(value: object) -> object:
        if isinstance(value, dict):
            return {key: kind(below) for key, below in value.items()}
        if isinstance(value, list):
            return [kind(item) for item in value][:1]
        return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    return Answer(answer.status, kind(answer.body), answer.content_type, answer.cache_control)


def error(answer: Answer, variables: dict) -> object:
    body = normalised(answer.body, variables)
    if isinstance(body, dict) and list(body) == ["errors"]:
        return body["errors"]
    return {key: value for key, value in body.items() if value} if isinstance(body, dict) else body


def compare(at: str, ours: object, peer: object, found: list[str]) -> None:
    if ours == peer and type(ours) is type(peer):
        return
    if isinstance(ours, dict) and isinstance(peer, dict):
        for key in sorted(set(ours) | set(peer)):
            below = f"{at}.{key}"
            if key not in ours:
                found.append(f"{below}: ours absent, peer {short(peer[key])}")
            elif key not in peer:
                found.append(f"{below}: ours {short(ours[key])}, peer absent")
            else:
                compare(below, ours[key], peer[key], found)
        return
    if isinstance(ours, list) and isinstance(peer, list) and len(ours) == len(peer):
        for index, (one, other) in enumerate(zip(ours, peer)):
            compare(f"{at}.{index}", one, other, found)
        return
    numbers = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (ours, peer))
    if numbers and at.rsplit(".", 1)[-1] in RUNNING and abs(ours - peer) <= DRIFT:
        return
    found.append(f"{at or 'body'}: ours {short(ours)}, peer {short(peer)}")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:160] + "…"
