#!/usr/bin/env python3
"""Self-initialization of real processes: the example of docs/self-init.md on both servers, kills, failures, a cluster.

    run.py BAO KEEPFAST [SEED]

The last line is `N passed, N failed`.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "self-init.md"
PASSWORD = "canary-of-the-password"
CONTENT = "canary-of-the-file\n"
# The requests of the runs that are killed, and how often each of these runs is killed.
WRITES, RUNS, KILLS = 900, 3, 8
IN_PROGRESS = "self-initialization is in progress"


def example(directory: Path) -> str:
    """The stanzas of the page, with a file of this directory."""
    (stanzas,) = re.findall(r"^```hcl\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
    (directory / "app.pem").write_text(CONTENT)
    return stanzas.replace("/etc/keepfast/app.pem", str(directory / "app.pem"))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Server:
    """A server with a static seal and storage on disk."""

    # Those that a part has started, which end with it.
    started: list["Server"] = []

    def __init__(self, binary: str, directory: Path, stanzas: str, key: bytes, seal: bool = True, join: int | None = None):
        directory.mkdir(parents=True, exist_ok=True)
        self.binary, self.directory, self.stanzas, self.key = binary, directory, stanzas, key
        self.port, self.cluster = free_ports(2)
        self.seal, self.join, self.process, self.starts = seal, join, None, 0
        (directory / "data").mkdir(exist_ok=True)

    def configure(self) -> Path:
        join = f'retry_join {{ leader_api_addr = "http://127.0.0.1:{self.join}" }}' if self.join else ""
        key = base64.b64encode(self.key).decode()
        seal = f'seal "static" {{ current_key_id = "k1" current_key = "{key}" }}' if self.seal else ""
        path = self.directory / "config.hcl"
        path.write_text(f"""
storage "raft" {{
  path = "{self.directory / 'data'}"
  node_id = "{self.directory.name}"
  performance_multiplier = 1
  {join}
}}
listener "tcp" {{
  address = "127.0.0.1:{self.port}"
  cluster_address = "127.0.0.1:{self.cluster}"
  tls_disable = true
}}
api_addr = "http://127.0.0.1:{self.port}"
cluster_addr = "http{'s' if 'bao' not in Path(self.binary).name else ''}://127.0.0.1:{self.cluster}"
disable_mlock = true
{seal}
{self.stanzas}
""")
        return path

    def start(self) -> "Server":
        path = self.configure()
        self.starts += 1
        Server.started.append(self)
        names = ("VAULT_", "BAO_", "KEEPFAST_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        with open(self.directory / f"log{self.starts}", "w") as log:
            self.process = subprocess.Popen([self.binary, "server", f"-config={path}"], stdout=log, stderr=log,
                                            env=environment | {"ADMIN_PASSWORD": PASSWORD}, start_new_session=True)
        return self

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        return (self.directory / f"log{self.starts}").read_text("utf-8")

    def all_logs(self) -> str:
        return "".join(path.read_text("utf-8") for path in self.directory.glob("log*"))

    def call(self, method: str, path: str, body: dict | None = None, token: str = "") -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"X-Vault-Token": token} if token else {}
        try:
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()
        return response.status, json.loads(text) if text else {}

    def login(self) -> str:
        """The token of the user of the example; empty until the server lets others in."""
        status, response = self.call("POST", "auth/userpass/login/admin", {"password": PASSWORD})
        return response["auth"]["client_token"] if status == 200 else ""

    def ready(self) -> str:
        return until(self.login, f"{self.directory.name} is ready", self)


def until(holds, what: str, server: Server, seconds: float = 90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not in time: {what}\n{server.log()[-3000:]}")


class Tally:
    """Counts what held and says what did not."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, what: str, holds: bool, detail: object = "") -> None:
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        if not holds:
            print(f"FAIL {what}: {detail}")


class Pgp:
    """Keys of GnuPG in a directory, without passphrases."""

    def __init__(self, home: Path, count: int):
        self.home = home
        home.mkdir(mode=0o700)
        self.files = []
        for at in range(count):
            self.run("--passphrase", "", "--quick-gen-key", f"k{at}@example.com", "default", "default", "never")
            # Alternately binary and in base64.
            exported = self.run("--export", f"k{at}@example.com")
            self.files.append(home / f"k{at}.key")
            self.files[-1].write_bytes(exported if at % 2 else base64.b64encode(exported))

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=120).stdout

    def decrypted(self, message: str) -> str:
        return self.run("--decrypt", stdin=base64.b64decode(message)).decode()

    def end(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"], check=False, timeout=60)


def state(server: Server, token: str) -> dict:
    """What the example has configured, without what differs between two servers."""
    def read(path: str, method: str = "GET") -> dict:
        status, response = server.call(method, path, None, token)
        assert status == 200, f"{path}: {status} {response}"
        return response["data"]

    def mounts(path: str) -> dict:
        return {name: {key: mount[key] for key in ("type", "description", "options")} for name, mount in read(path).items()}

    role = read("auth/approle/role/app")
    return {
        "mounts": mounts("sys/mounts"),
        "auth": mounts("sys/auth"),
        "policies": sorted(read("sys/policies/acl", "LIST")["keys"]),
        "policy admin": read("sys/policies/acl/admin")["policy"],
        "policy app": read("sys/policies/acl/app")["policy"],
        "users": read("auth/userpass/users", "LIST")["keys"],
        "user": read("auth/userpass/users/admin")["token_policies"],
        "roles": read("auth/approle/role", "LIST")["keys"],
        "role": {key: role[key] for key in ("token_policies", "token_ttl", "secret_id_num_uses")},
        "keys": read("transit/keys", "LIST")["keys"],
        "key": read("transit/keys/app")["type"],
        "secret": read("secret/app"),
        "token policies": sorted(sorted(policies) for policies in token_policies(server, token)),
    }


def token_policies(server: Server, token: str) -> list[list[str]]:
    """The policies of all tokens but this one."""
    own = server.call("GET", "auth/token/lookup-self", None, token)[1]["data"]["accessor"]
    found = []
    for accessor in server.call("LIST", "auth/token/accessors", None, token)[1]["data"]["keys"]:
        status, response = server.call("POST", "auth/token/lookup-accessor", {"accessor": accessor}, token)
        if status == 200 and accessor != own:
            found.append(response["data"]["policies"])
    return found


def same_on_both(tally: Tally, directory: Path, binaries: dict[str, str]) -> None:
    states = {}
    for name, binary in binaries.items():
        server = Server(binary, directory / name, example(directory), secrets.token_bytes(32)).start()
        try:
            states[name] = state(server, server.ready())
        finally:
            server.kill()
        if name == "keepfast":
            log = server.log()
            for canary in (PASSWORD, CONTENT.strip(), "hvs."):
                tally.check(f"{canary} is not in the log", canary not in log)
            tally.check("every start warns of missing recovery keys", "there are no recovery keys" in log)
            data = b"".join(path.read_bytes() for path in (server.directory / "data").rglob("*") if path.is_file())
            tally.check("no secret is in the storage as it is", PASSWORD.encode() not in data)
    for what in states["bao"]:
        ours, theirs = states["keepfast"][what], states["bao"][what]
        if what in ("mounts",):
            ours, theirs = ({name: mount["type"] for name, mount in side.items()} for side in (ours, theirs))
            ours, theirs = ({name: kind for name, kind in side.items() if name in ("secret/", "transit/", "sys/")} for side in (ours, theirs))
        if what == "auth":
            ours, theirs = ({name: (mount["type"], mount["description"]) for name, mount in side.items() if name != "token/"}
                            for side in (ours, theirs))
        tally.check(f"{what} is the same on both", ours == theirs, (ours, theirs))


def writes() -> str:
    """The example, and many requests behind it."""
    requests = "".join(f'  request "w{at}" {{ operation = "update" path = "secret/w{at}" data = {{ at = {at} }} }}\n' for at in range(WRITES))
    return f'initialize "more" {{\n{requests}}}\n'


def killed(tally: Tally, directory: Path, binary: str, chance: random.Random) -> None:
    for run in range(RUNS):
        server = Server(binary, directory / f"killed{run}", example(directory) + writes(), secrets.token_bytes(32))
        kills = refused = 0
        for _ in range(KILLS):
            server.start()
            # From the start of the process to the middle of the requests.
            after = chance.choice([0, 1, *(chance.randrange(1, 60) for _ in range(6))])
            if after == 0:
                time.sleep(chance.uniform(0.0, 0.4))
            else:
                until(lambda: server.log().count("the request is done") >= after or server.login(), f"{after} requests", server)
            status, response = server.call("GET", "sys/mounts", None, "x")
            if "is finished" not in server.log() and not server.login():
                refused += (status, response.get("errors")) == (503, [IN_PROGRESS])
                tally.check("others are refused until the end", status in (0, 503), (status, response))
            server.kill()
            kills += 1
        server.start()
        token = server.ready()
        found = server.call("LIST", "secret", None, token)[1]["data"]["keys"]
        tally.check(f"all requests are done after {kills} kills", {f"w{at}" for at in range(WRITES)} < set(found), found)
        policies = token_policies(server, token)
        tally.check("no root token is left", all("root" not in of for of in policies), policies)
        tally.check("others were refused while requests were sent", refused > 0)
        tally.check("the storage was initialized once", server.all_logs().count("security barrier initialized") == 1)
        server.kill()


def failure(tally: Tally, directory: Path, binary: str, by_signal: bool) -> None:
    bad = 'initialize "bad" { request "again" { operation = "update" path = "sys/mounts/secret" data = { type = "kv" } } }\n'
    good = bad.replace("sys/mounts/secret", "sys/mounts/other")
    server = Server(binary, directory / f"failure{by_signal}", example(directory) + bad, secrets.token_bytes(32)).start()
    until(lambda: "self-initialization has failed" in server.log(), "the failure", server)
    log = server.log()
    tally.check("the log has path, status and errors", "path=sys/mounts/secret" in log and "status=400" in log and "already in use" in log)
    status, response = server.call("POST", "auth/userpass/login/admin", {"password": PASSWORD})
    tally.check("nobody is let in", (status, response.get("errors")) == (503, [IN_PROGRESS]), (status, response))
    status, response = server.call("GET", "sys/health")
    tally.check("health says so", (status, response["self_initialization"], response["sealed"]) == (503, "failed", False), response)
    server.stanzas = example(directory) + good
    if by_signal:
        server.configure()
        os.kill(server.process.pid, signal.SIGHUP)
    else:
        server.kill()
        server.start()
    token = server.ready()
    tally.check("the corrected request is done", "other/" in state(server, token)["mounts"])
    tally.check("no root token is left", all("root" not in of for of in token_policies(server, token)))
    server.kill()
    server.stanzas = example(directory)
    server.start().ready()
    until(lambda: "the initialize stanzas have changed" in server.log(), "the warning", server)
    tally.check("later stanzas are one warning", server.log().count("the initialize stanzas have changed") == 1)
    server.kill()


def recovery(tally: Tally, directory: Path, binary: str) -> None:
    output = directory / "keys.json"
    block = f'initialize "keys" {{ recovery {{ shares = 3 threshold = 2 output = "{output}" }} }}\n'
    output.write_text("the keys of other data")
    server = Server(binary, directory / "recovery", block + example(directory), secrets.token_bytes(32)).start()
    until(lambda: "self-initialization cannot run" in server.log(), "the refusal", server)
    tally.check("a file that exists stops the initialization", server.call("GET", "sys/health")[0] == 501)
    tally.check("and is not replaced", output.read_text() == "the keys of other data")
    output.unlink()
    os.kill(server.process.pid, signal.SIGHUP)
    token = server.ready()
    tally.check("the file is for its owner only", stat.S_IMODE(output.stat().st_mode) == 0o600)
    keys = json.loads(output.read_text())
    tally.check("the file has the keys", len(keys["recovery_keys_b64"]) == 3 and keys["recovery_keys_threshold"] == 2)
    tally.check("with recovery keys there is no warning", "there are no recovery keys" not in server.log())
    # Without its seal the keys open the storage.
    def is_sealed() -> bool:
        return server.call("GET", "sys/seal-status")[1].get("sealed") is True

    server.call("PUT", "sys/seal", None, token)
    until(is_sealed, "the server is sealed", server)
    answers = [server.call("PUT", "sys/unseal", {"key": key}) for key in keys["recovery_keys_b64"][:2]]
    tally.check("a quorum of the keys unseals", not is_sealed(), answers)
    server.kill()


def encrypted_recovery(tally: Tally, directory: Path, binary: str) -> None:
    pgp, output = Pgp(directory / "gnupg", 3), directory / "encrypted.json"
    try:
        files = ", ".join(f'"{path}"' for path in pgp.files)
        block = f'initialize "keys" {{ recovery {{ shares = 3 threshold = 2 pgp_keys = [{files}] output = "{output}" }} }}\n'
        server = Server(binary, directory / "encrypted", block + example(directory), secrets.token_bytes(32)).start()
        token = server.ready()
        keys = json.loads(output.read_text())
        shares = [pgp.decrypted(message) for message in keys["recovery_keys_b64"]]
        tally.check("GnuPG decrypts the keys", all(re.fullmatch("[0-9a-f]{66}", share) for share in shares))
        tally.check("the file has the fingerprints", [len(found) for found in keys["pgp_fingerprints"]] == [40] * 3, keys["pgp_fingerprints"])
        server.call("PUT", "sys/seal", None, token)
        for share in shares[1:]:
            server.call("PUT", "sys/unseal", {"key": share})
        tally.check("a quorum of the decrypted keys unseals", server.call("GET", "sys/seal-status")[1].get("sealed") is False)
        server.kill()
    finally:
        pgp.end()


def refused(tally: Tally, directory: Path, binaries: dict[str, str]) -> None:
    for name, binary in binaries.items():
        server = Server(binary, directory / f"noseal-{name}", example(directory), bytes(32), seal=False).start()
        status = server.process.wait(60)
        text = "self-initialization requires auto-unseal as there is no way to persist the Shamir's keys"
        tally.check(f"{name} does not start without a seal", status != 0 and text in server.log(), server.log()[-500:])
    keepfast = binaries["keepfast"]
    server = Server(keepfast, directory / "checked", example(directory), bytes(32))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_", "KEEPFAST_"))}
    run = lambda more=None: subprocess.run([keepfast, "operator", "validate-config", f"-config={server.configure()}"],
                                 capture_output=True, text=True, env=environment | (more or {}), check=False)
    good, warned = run({"ADMIN_PASSWORD": PASSWORD}), run()
    tally.check("a valid configuration passes", (good.returncode, good.stdout) == (0, "Success! The configuration is valid.\n"), good)
    tally.check("a missing variable is a warning", warned.returncode == 2 and "ADMIN_PASSWORD is not set" in warned.stdout, warned)
    tally.check("and nothing is written", list((server.directory / "data").iterdir()) == [])
    server.stanzas = example(directory).replace('response_name   = "login"', 'response_name   = "none"')
    bad = run()
    tally.check("a reference to no request is an error", bad.returncode != 0 and "auth.none is not an earlier request" in bad.stdout + bad.stderr, bad)


def cluster(tally: Tally, directory: Path, binary: str) -> None:
    key = secrets.token_bytes(32)
    first = Server(binary, directory / "n1", example(directory), key).start()
    others = [Server(binary, directory / name, example(directory), key, join=first.port).start() for name in ("n2", "n3")]
    token = first.ready()
    peers = lambda: first.call("GET", "sys/storage/raft/configuration", None, token)[1].get("data", {}).get("config", {}).get("servers", [])
    until(lambda: sum(peer["voter"] for peer in peers()) == 3, "three voters", first)
    begun = [server.log().count("self-initialization begins") for server in (first, *others)]
    tally.check("only the first node initializes", begun == [1, 0, 0], begun)
    for server in others:
        until(server.login, f"{server.directory.name} serves", server)
        status, response = server.call("GET", "secret/app", None, token)
        tally.check("a node that joined serves the same", (status, response.get("data")) == (200, {"certificate": CONTENT}), response)
    # Another leader has nothing to do.
    first.kill()
    until(lambda: any(server.call("GET", "sys/leader")[1].get("is_self") for server in others), "another leader", others[0])
    until(lambda: all(server.login() for server in others), "logins", others[0])
    begun = [server.log().count("self-initialization begins") + server.log().count("self-initialization goes on") for server in others]
    tally.check("another leader sends nothing", begun == [0, 0], begun)
    for server in others:
        server.kill()


def main() -> int:
    binaries = {"bao": sys.argv[1], "keepfast": str(Path(sys.argv[2]).resolve())}
    seed = sys.argv[3] if len(sys.argv) > 3 else secrets.token_hex(8)
    print(f"seed {seed}")
    tally, keepfast = Tally(), binaries["keepfast"]
    with tempfile.TemporaryDirectory(prefix="self-init-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        parts = [
            lambda: refused(tally, directory, binaries),
            lambda: same_on_both(tally, directory, binaries),
            lambda: killed(tally, directory, keepfast, random.Random(seed)),
            lambda: failure(tally, directory, keepfast, True),
            lambda: failure(tally, directory, keepfast, False),
            lambda: recovery(tally, directory, keepfast),
            lambda: encrypted_recovery(tally, directory, keepfast),
            lambda: cluster(tally, directory, keepfast),
        ]
        for part in parts:
            try:
                part()
            except (AssertionError, KeyError, ValueError, OSError, subprocess.SubprocessError) as why:
                tally.check("a part ends", False, repr(why)[-4000:])
            for server in Server.started:
                server.kill()
            Server.started.clear()
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 0 if tally.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
