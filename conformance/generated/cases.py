"""What a case is: a few requests in their order, which both servers are asked."""

import json
from dataclasses import dataclass, field
from urllib.parse import quote


class Raw(str):
    """JSON text that Python cannot say: `1e400`."""


@dataclass
class Step:
    """One request. `{{name}}` in path, body and headers stands for a variable; a path that begins with `/` is the whole one."""

    method: str
    path: str
    body: object = None
    token: str = "root"
    headers: dict = field(default_factory=dict)
    capture: dict = field(default_factory=dict)

    def target(self) -> str:
        return quote(self.path if self.path.startswith("/") else f"/v1/{self.path}", safe="/?&=%+{}()[]@:;,*#~'!$\\\"")

    def bytes(self) -> bytes | None:
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return dumped(self.body).encode()

    def title(self) -> str:
        sent = self.bytes()
        shown = "" if sent is None else " " + sent[:200].decode(errors="replace")
        extra = {**self.headers} if self.headers else ""
        who = "" if self.token == "root" else f" as {self.token}"
        return f"{self.method} {self.path}{shown}{who} {extra}".rstrip()


@dataclass
class Case:
    """Requests in their order, and by what differences are put together: the path of the API and the way of asking."""

    about: str
    steps: list[Step]


def dumped(value: object) -> str:
    """JSON with the raw texts in it as they are."""
    raws: list[str] = []

    def mark(item: object) -> object:
        if isinstance(item, Raw):
            raws.append(item)
            return f"\u0001{len(raws) - 1}\u0001"
        if isinstance(item, dict):
            return {key: mark(below) for key, below in item.items()}
        if isinstance(item, list):
            return [mark(below) for below in item]
        return item

    text = json.dumps(mark(value))
    for index, raw in enumerate(raws):
        text = text.replace(f'"\\u0001{index}\\u0001"', raw)
    return text


LONG = "l" * 3000
# What a field is given that wants something else, or a border of what it wants.
ODD = [
    None, True, False, "", " ", "x", "X y", "0", "1", "-1", 0, 1, -1, 1.5, 2.0, Raw("1e400"), Raw("1e3"),
    Raw("99999999999999999999"), Raw("-0"), Raw("9223372036854775807"), "1h", "5x", "-5s", "1.5h", "90m", "2d", "0x10", "1e3",
    [], ["a"], ["a", "b"], [1], [None], [[]], [""], {}, {"a": "b"}, {"a": 1}, {"a": None}, {"a": {"b": []}}, "a,b", "a, b,",
    "a=b", "true", "TRUE", "T", "yes", "null", "é☃", "a\u0000b", "a/b", "../a", "[\"a\"]", "{\"a\":\"b\"}", "127.0.0.1",
    "127.0.0.1/33", ["127.0.0.1/8", "x"], "::1", LONG, "root", "default", ["root"], "service", "batch", "aGVsbG8=", "YQ", "not base64!",
]

# Bodies as bytes that are no object, or one in another way than usual.
BODIES = [
    b"", b"{}", b"null", b"[]", b'"text"', b"1", b"true", b"{", b"{} {}", b'{"a":1,}', b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}',
    b'{"a":"\\ud800"}', b'{"unknown_field":1}', b'{"unknown_field":1,"another":[{}]}', b'{"A":1,"a":2}', b" \n{}\n ", b"{}garbage",
    b"a=b&c=d", b'{"a":1e400}', b'{"a":' + b"[" * 60 + b"]" * 60 + b"}", b"'a'", b"{a:1}", b'{"":1}', b"NaN", b'{"a":NaN}', b"\x00", b"{\"a\":01}",
]

METHODS = ["GET", "LIST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "SCAN", "OPTIONS", "TRACE", "FOO"]
# Ways of asking: method, what is added to the path, headers, token.
WAYS: list[tuple[str, str, dict, str]] = (
    [(method, "", {}, who) for method in METHODS[:9] for who in ("root", "none", "weak")]
    + [(method, "", {}, "bad") for method in ("GET", "POST", "LIST", "DELETE")]
    + [(method, "/", {}, "root") for method in METHODS[:8]]
    + [("TRACE", "", {}, "root"), ("FOO", "", {}, "root"), ("get", "", {}, "root")]
    + [("GET", query, {}, "root") for query in (
        "?help=1", "?help=true", "?help=0", "?help=x", "?list=true", "?list=1", "?list=false", "?list=x", "?list", "?scan=true",
        "?unknown=1", "?list=true&limit=1", "?list=true&after=a", "?list=true&limit=x", "?list=true&limit=-1", "?version=1",
        "?version=x", "?list=true&unknown=1", "?a=1&a=2", "?%zz=1", "?list=true&list=false", "?;")]
    + [("GET", "?help=1", {}, who) for who in ("none", "weak", "bad")]
    + [("LIST", query, {}, "root") for query in ("?limit=1", "?after=a", "?unknown=1", "?list=false", "?help=1", "/?limit=0")]
    + [("POST", "?help=1", {}, "root"), ("DELETE", "?help=1", {}, "root"), ("POST", "?list=true", {}, "root"),
       ("DELETE", "?unknown=1", {}, "root"), ("DELETE", "?versions=1", {}, "root")]
    + [(method, "", {"X-Vault-Wrap-TTL": ttl}, "root") for method in ("GET", "LIST", "POST")
       for ttl in ("60", "60s", "0", "-1", "abc", "1h", "", "1.5s", "999999h")]
    + [("DELETE", "", {"X-Vault-Wrap-TTL": "60"}, "root"), ("HEAD", "", {"X-Vault-Wrap-TTL": "60"}, "root")]
    + [("GET", "", {"X-Vault-Namespace": name}, "root") for name in ("root", "root/", "/", "", "nope", "nope/", "/nope/", "a/b")]
    + [("GET", "", {"X-Vault-Namespace": "nope"}, "none"), ("POST", "", {"X-Vault-Namespace": "nope"}, "weak")]
    + [("GET", "", {"X-Vault-Request": value}, "root") for value in ("true", "false", "", "x")]
    + [("POST", "", {"Content-Type": kind}, "root") for kind in (
        "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x")]
    + [("PATCH", "", {"Content-Type": kind}, "root") for kind in (
        "application/json", "application/merge-patch+json", "application/merge-patch+json; charset=utf-8", "text/plain", "")]
    + [("GET", "", {"X-Vault-MFA": "x"}, "root"), ("GET", "", {"X-Vault-No-Request-Forwarding": "true"}, "root"),
       ("GET", "", {"X-Vault-Policy-Override": "true"}, "root"), ("GET", "", {"X-Vault-Policy-Override": "x"}, "root"),
       ("GET", "", {"X-Vault-Inconsistent": "forward-active-node"}, "root"), ("GET", "", {"X-Vault-Index": "x"}, "root"),
       ("GET", "", {"Authorization": "Bearer x"}, "none"), ("GET", "", {"Authorization": "Basic eDp4"}, "none"),
       ("GET", "", {"Authorization": "Bearer {{root}}"}, "none"), ("GET", "", {"Accept": "text/html"}, "root"),
       ("GET", "", {"X-Vault-Token": " "}, "none"), ("GET", "", {"X-Vault-Token": "{{root}} "}, "none"),
       ("GET", "", {"Expect": "x"}, "root"), ("GET", "", {"If-None-Match": "*"}, "root")]
)


def merge_patch(method: str, headers: dict) -> dict:
    """A PATCH has its content type unless it is given another."""
    if method == "PATCH" and "Content-Type" not in headers:
        return {"Content-Type": "application/merge-patch+json", **headers}
    return headers
