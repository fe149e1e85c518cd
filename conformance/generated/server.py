"""A server to test: started with one unseal share in memory, asked over one connection that stays open."""

import http.client
import json
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 60


@dataclass
class Answer:
    """What a server answered: the body as JSON where it is JSON, else as text."""

    status: int
    body: object
    content_type: str
    cache_control: str


class Server:
    """One server with an unsealed store in memory and one audit device."""

    def __init__(self, name: str, binary: str):
        self.name = name
        self.directory = tempfile.TemporaryDirectory(prefix="generated-")
        port, cluster = free_port(), free_port()
        self.address = ("127.0.0.1", port)
        self.connection = None
        at = self.directory.name
        config = Path(at, "config.hcl")
        config.write_text(
            'storage "inmem" {}\n'
            f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  tls_disable = true\n}}\n'
            f'audit "file" "conformance" {{\n  options {{\n    file_path = "{at}/audit.log"\n  }}\n}}\n'
            f'disable_mlock = true\napi_addr = "http://127.0.0.1:{port}"\n'
            f'cluster_addr = "https://127.0.0.1:{cluster}"\nintrospection_endpoint = true\n'
            'log_level = "error"\n')
        with open(Path(at, "log"), "w") as log:
            self.process = subprocess.Popen([binary, "server", f"-config={config}"], stdout=log, stderr=log)
        self.token = ""
        self.until(lambda: self.ask("GET", "/v1/sys/seal-status").status == 200)
        keys = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}).body
        self.token = keys["root_token"]
        self.call("PUT", "sys/unseal", {"key": keys["keys_base64"][0]})
        self.until(lambda: self.ask("GET", "/v1/sys/health").status == 200
                   and self.call("GET", "auth/token/lookup-self").status == 200)

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """As root, below /v1/, with a JSON body."""
        text = None if body is None else json.dumps(body).encode()
        return self.ask(method, f"/v1/{path}", text, {"X-Vault-Token": self.token} if self.token else {})

    def ask(self, method: str, target: str, body: bytes | None = None, headers: dict | None = None) -> Answer:
        """One request; a connection that the server closed meanwhile is opened once more."""
        for fresh in (self.connection is None, True):
            if fresh or self.connection is None:
                self.connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT)
            try:
                return self.exchange(method, target, body, headers or {})
            except (http.client.HTTPException, ConnectionError, BrokenPipeError):
                self.connection = None
        if self.process.poll() is not None:
            raise ConnectionError(f"{self.name} has ended")
        return Answer(0, "closed without an answer", "", "")

    def exchange(self, method: str, target: str, body: bytes | None, headers: dict) -> Answer:
        connection = self.connection
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        raw = response.read()
        if response.will_close:
            connection.close()
            self.connection = None
        try:
            shown = json.loads(raw) if raw else None
        except ValueError:
            shown = raw.decode(errors="replace")
        return Answer(response.status, shown, response.getheader("Content-Type") or "",
                      response.getheader("Cache-Control") or "")

    def until(self, holds, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if holds():
                    return
            except OSError:
                self.connection = None
            time.sleep(0.02)
        raise TimeoutError(f"{self.name} is not ready; its log: {Path(self.directory.name, 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
