#!/usr/bin/env python3
"""Transit across servers: what one of them encrypts, signs, authenticates, wraps and backs up, the other reads.

    run.py BAO KEEPFAST

Keys travel by `byok-export` and `import`, and by backups, in both directions. The last line is `N passed, N failed`.
"""

import base64
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CIPHERS = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"]
CURVES = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521"]
RSA = ["rsa-2048", "rsa-3072", "rsa-4096"]
HASHES = ["sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"]
# Modes of signing by type: what is added to the request.
BY_HASH = [{"hash_algorithm": name} for name in HASHES]
SIGNING = {
    "ed25519": [{}],
    **{curve: BY_HASH + [{"marshaling_algorithm": "jws"}] for curve in CURVES},
    **{rsa: BY_HASH + [{"signature_algorithm": "pkcs1v15", **mode} for mode in BY_HASH]
       + [{"salt_length": length} for length in ("hash", "auto", "0", "17")] for rsa in RSA},
}
INPUT = base64.b64encode(b"what the other server reads").decode()
CONTEXT = base64.b64encode(b"a context").decode()


class Server:
    """One server with an unsealed store in memory and a transit mount."""

    def __init__(self, name: str, binary: str):
        self.name = name
        self.directory = tempfile.TemporaryDirectory(prefix="cross-")
        port, cluster = free_port(), free_port()
        self.address = ("127.0.0.1", port)
        config = Path(self.directory.name, "config.json")
        config.write_text(json.dumps({
            "storage": {"inmem": {}}, "listener": {"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}},
            "disable_mlock": True, "api_addr": f"http://127.0.0.1:{port}", "cluster_addr": f"https://127.0.0.1:{cluster}",
            "log_level": "warn"}))
        with open(Path(self.directory.name, "log"), "w") as log:
            self.process = subprocess.Popen([binary, "server", f"-config={config}"], stdout=log, stderr=log)
        self.token = None
        until(lambda: self.status("GET", "sys/seal-status") == 200)
        keys = self.ok("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.token = keys["root_token"]
        self.ok("PUT", "sys/unseal", {"key": keys["keys_base64"][0]})
        until(lambda: self.status("GET", "sys/health") == 200 and self.status("GET", "auth/token/lookup-self") == 200)
        self.ok("POST", "sys/mounts/transit", {"type": "transit"})

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        headers = {"X-Vault-Token": self.token} if self.token else {}
        connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else {}

    def status(self, method: str, path: str) -> int:
        try:
            return self.call(method, path)[0]
        except OSError:
            return 0

    def ok(self, method: str, path: str, body: dict | None = None) -> dict:
        status, answer = self.call(method, path, body)
        if status not in (200, 204):
            raise AssertionError(f"{method} {path} on {self.name}: {status} {answer.get('errors')}")
        return answer.get("data") or answer

    def read(self, path: str) -> dict:
        return self.ok("GET", f"transit/{path}")

    def write(self, path: str, body: dict) -> dict:
        return self.ok("POST", f"transit/{path}", body)


class Tally:
    """Counts what held and says what did not."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, what: str, holds) -> None:
        try:
            held = holds()
        except (AssertionError, KeyError) as why:
            held = False
            what = f"{what}: {why}"
        self.passed, self.failed = self.passed + bool(held), self.failed + (not held)
        if not held:
            print(f"FAIL {what}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(holds) -> None:
    end = time.monotonic() + 30
    while not holds():
        if time.monotonic() > end:
            sys.exit("a server does not answer")
        time.sleep(0.02)


def speak(tally: Tally, what: str, kind: str, name: str, maker: Server, reader: Server, extra: dict | None = None) -> None:
    """What `maker` makes with a key that both have, `reader` reads."""
    extra = extra or {}
    if kind in CIPHERS or kind in RSA:
        def decrypts() -> bool:
            made = maker.write(f"encrypt/{name}", {"plaintext": INPUT, **extra})
            return reader.write(f"decrypt/{name}", {"ciphertext": made["ciphertext"], **extra})["plaintext"] == INPUT

        def opens_data_key() -> bool:
            made = maker.write(f"datakey/plaintext/{name}", extra)
            opened = reader.write(f"decrypt/{name}", {"ciphertext": made["ciphertext"], **extra})
            return opened["plaintext"] == made["plaintext"]

        tally.check(f"{what}: decrypts", decrypts)
        tally.check(f"{what}: opens a data key", opens_data_key)
    if kind in CIPHERS:
        def binds() -> bool:
            made = maker.write(f"encrypt/{name}", {"plaintext": INPUT, "associated_data": CONTEXT, **extra})
            bound = {"ciphertext": made["ciphertext"], **extra}
            without = reader.call("POST", f"transit/decrypt/{name}", bound)[0]
            return without == 400 and reader.write(f"decrypt/{name}", {"associated_data": CONTEXT, **bound})["plaintext"] == INPUT

        tally.check(f"{what}: decrypts with associated data", binds)
    for mode in SIGNING.get(kind, []):
        def verifies() -> bool:
            made = maker.write(f"sign/{name}", {"input": INPUT, **mode, **extra})
            return reader.write(f"verify/{name}", {"input": INPUT, "signature": made["signature"], **mode, **extra})["valid"]

        tally.check(f"{what}: verifies {mode}", verifies)


def authenticates(tally: Tally, what: str, name: str, maker: Server, reader: Server) -> None:
    for algorithm in HASHES:
        def verifies() -> bool:
            made = maker.write(f"hmac/{name}", {"input": INPUT, "algorithm": algorithm})
            return reader.write(f"verify/{name}", {"input": INPUT, "hmac": made["hmac"], "algorithm": algorithm})["valid"]

        tally.check(f"{what}: verifies an HMAC by {algorithm}", verifies)


def travel_wrapped(tally: Tally, source: Server, target: Server, kinds: list[str]) -> None:
    """Keys that `source` wraps for `target`."""
    wrapping = target.read("wrapping_key")["public_key"]
    source.write("keys/door/import", {"type": "rsa-4096", "public_key": wrapping})
    for kind in kinds:
        what, name = f"{kind} wrapped by {source.name} for {target.name}", f"byok-{kind}-{source.name}"
        source.write(f"keys/{name}", {"type": kind, "exportable": True, "key_size": 32 if kind == "hmac" else 0})

        def imports() -> bool:
            wrapped = source.read(f"byok-export/door/{name}")["keys"]["1"]
            target.write(f"keys/{name}/import", {"type": kind, "ciphertext": wrapped, "exportable": True})
            return True

        tally.check(f"{what}: imports", imports)
        for maker, reader in ((source, target), (target, source)):
            speak(tally, f"{what}, made by {maker.name}", kind, name, maker, reader)
            if kind == "hmac":
                authenticates(tally, f"{what}, made by {maker.name}", name, maker, reader)
        same_exports(tally, what, kind, name, source, target, "hmac-key" if kind == "hmac" else None)


def same_exports(tally: Tally, what: str, kind: str, name: str, one: Server, other: Server, more: str | None) -> None:
    """Both export the same texts of the same key; a PEM's encoding of a private RSA key may differ in nothing either."""
    parts = [more] if more else []
    parts += ["encryption-key"] if kind in CIPHERS or kind in RSA else []
    parts += ["signing-key", "public-key"] if kind in SIGNING else []
    for part in parts:
        tally.check(f"{what}: both export the same {part}",
                    lambda: one.read(f"export/{part}/{name}")["keys"] == other.read(f"export/{part}/{name}")["keys"])


def travel_backed_up(tally: Tally, source: Server, target: Server, kinds: list[str]) -> None:
    """Keys of two versions that `source` backs up and `target` restores, also derived and convergent ones."""
    for kind in kinds:
        modes = [{}]
        modes += [{"derived": True}] if kind in CIPHERS + ["ed25519"] else []
        modes += [{"derived": True, "convergent_encryption": True}] if kind in CIPHERS else []
        for number, mode in enumerate(modes):
            what, name = f"{kind} {mode} backed up by {source.name}", f"backup-{kind}-{number}-{source.name}"
            made = {"type": kind, "exportable": True, "allow_plaintext_backup": True, **mode}
            source.write(f"keys/{name}", {**made, "key_size": 64 if kind == "hmac" else 0})
            extra = {"context": CONTEXT} if mode else {}
            before = source.write(f"encrypt/{name}", {"plaintext": INPUT, **extra}) if kind in CIPHERS + RSA else None
            source.write(f"keys/{name}/rotate", {})

            def restores() -> bool:
                target.write("restore", {"backup": source.read(f"backup/{name}")["backup"]})
                there, here = target.read(f"keys/{name}"), source.read(f"keys/{name}")
                return all(there[field] == here[field] for field in here if field not in ("backup_info", "restore_info"))

            tally.check(f"{what}: restores as the same key", restores)
            if before:
                old = {"ciphertext": before["ciphertext"], **extra}
                tally.check(f"{what}: the first version opens",
                            lambda: target.write(f"decrypt/{name}", old)["plaintext"] == INPUT)
            if "convergent_encryption" in mode:
                tally.check(f"{what}: equal plaintexts have equal ciphertexts",
                            lambda: source.write(f"encrypt/{name}", {"plaintext": INPUT, **extra})
                            == target.write(f"encrypt/{name}", {"plaintext": INPUT, **extra}))
            for maker, reader in ((source, target), (target, source)):
                speak(tally, f"{what}, made by {maker.name}", kind, name, maker, reader, extra)
                authenticates(tally, f"{what}, made by {maker.name}", name, maker, reader)


def agree(tally: Tally, one: Server, other: Server) -> None:
    """ECDH: each derives a key from its own pair and the public key of the other."""
    for curve in CURVES:
        public = {}
        for server in (one, other):
            server.write(f"keys/agree-{curve}", {"type": curve})
            public[server.name] = server.read(f"export/public-key/agree-{curve}")["keys"]["1"]

        def agrees() -> bool:
            for server, peer in ((one, other), (other, one)):
                server.write(f"derive-key/shared-{curve}", {
                    "base_key_name": f"agree-{curve}", "peer_public_key": public[peer.name],
                    "key_derivation_algorithm": "ecdh", "derived_key_type": "aes256-gcm96"})
            made = one.write(f"encrypt/shared-{curve}", {"plaintext": INPUT})
            return other.write(f"decrypt/shared-{curve}", {"ciphertext": made["ciphertext"]})["plaintext"] == INPUT

        tally.check(f"both agree on a key by {curve}", agrees)


def main() -> int:
    bao, keepfast = Server("bao", sys.argv[1]), Server("keepfast", sys.argv[2])
    tally = Tally()
    kinds = [*CIPHERS, "ed25519", *CURVES, *RSA, "hmac"]
    try:
        for source, target in ((bao, keepfast), (keepfast, bao)):
            travel_wrapped(tally, source, target, kinds)
            travel_backed_up(tally, source, target, kinds)
        agree(tally, bao, keepfast)
    finally:
        bao.process.kill()
        keepfast.process.kill()
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
