#!/usr/bin/env python3
"""Runs the Rust client `vaultrs` against the development servers of these binaries: run.py NAME=BINARY ...

What fails on the first, which is the peer, is excused on the others. With PostgreSQL on the machine the database engine is part of it.
The last line is `N passed, N failed`.
"""

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "seed"))
from postgres import Postgres  # noqa: E402


def main() -> int:
    build = ["cargo", "build", "-q", "--locked", "--manifest-path", str(HERE / "Cargo.toml"), "--target-dir", str(ROOT / "target")]
    subprocess.run(build, check=True)
    try:
        postgres = Postgres()
    except (OSError, KeyError, subprocess.CalledProcessError):
        postgres = None
    passed = failed = 0
    excused = None
    try:
        for argument in sys.argv[1:]:
            name, binary = argument.split("=", 1)
            good, wrong = check(name, binary, postgres)
            if excused is None:
                excused = wrong
            bad = wrong - excused
            print(f"vaultrs on {name}: {good} passed, {len(bad)} failed, {len(wrong) - len(bad)} as on the peer")
            passed, failed = passed + good, failed + len(bad)
    finally:
        if postgres:
            postgres.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def check(name: str, binary: str, postgres: Postgres | None) -> tuple[int, set[str]]:
    """How many checks held, and the names of those that did not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["-dev", "-dev-root-token-id=root", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"]
    server = subprocess.Popen([binary, "server", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        arguments = [f"http://127.0.0.1:{port}", "root"]
        if postgres:
            arguments.append(f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/myapp?sslmode=disable")
        wait_for(port)
        ran = subprocess.run([ROOT / "target/debug/conformance-vaultrs", *arguments], capture_output=True, text=True, timeout=120)
        for line in ran.stdout.splitlines()[:-1]:
            print(f"{name}: {line}")
        counts = re.search(r"(\d+) passed, (\d+) failed", ran.stdout)
        wrong = set(re.findall(r"^FAIL ([^:]+):", ran.stdout, re.M))
        return (int(counts[1]), wrong) if counts else (0, {"it did not end"})
    finally:
        server.terminate()
        server.wait(20)


def wait_for(port: int) -> None:
    import urllib.error
    import urllib.request

    for _ in range(500):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/sys/health", timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    sys.exit("the server does not answer")


if __name__ == "__main__":
    sys.exit(main())
