#!/usr/bin/env python3
"""Runs the `sh` blocks of a guide in their order, in one shell, in an empty directory, on free ports and with a PostgreSQL
of Debian's package: run.py BINARY PYTHON [GUIDE], by default docs/guide.md

A block that fails is named by its first line. The last line is `N passed, N failed`.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
# The ports that a guide names.
PORT = re.compile(r"\b(?:182\d\d|5432)\b")


def free_ports(count: int) -> list[str]:
    """Free ports, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


class Postgres:
    """A PostgreSQL server in a temporary directory, with the superuser `postgres`."""

    PASSWORD = "superuser_password"

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            sys.exit("the Debian package postgresql is not installed")
        self.bin, self.port = found[-1].parent, free_ports(1)[0]
        self.directory = Path(tempfile.mkdtemp(prefix="guide-postgres-"))
        try:
            (self.directory / "password").write_text(self.PASSWORD)
            if os.geteuid() == 0:
                shutil.chown(self.directory, "postgres")
                shutil.chown(self.directory / "password", "postgres")
            self.tool("initdb", "-U", "postgres", f"--pwfile={self.directory / 'password'}", "-A", "scram-sha-256", "-N")
            options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
            self.tool("pg_ctl", "-o", options, "-l", str(self.directory / "log"), "-w", "start")
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def tool(self, name: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self.bin / name), "-D", str(self.directory / "data"), *arguments]
        subprocess.run(command, cwd=self.directory, check=True, stdout=subprocess.DEVNULL)

    def environment(self) -> dict[str, str]:
        return {"PGHOST": "127.0.0.1", "PGPORT": self.port, "PGUSER": "postgres", "PGPASSWORD": self.PASSWORD, "PGDATABASE": "postgres"}

    def stop(self) -> None:
        try:
            self.tool("pg_ctl", "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self.directory)


def main() -> int:
    postgres = Postgres()
    try:
        return run(postgres)
    finally:
        postgres.stop()


def run(postgres: Postgres) -> int:
    binary, python = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).absolute()
    guide = DOCS / (sys.argv[3] if len(sys.argv) > 3 else "guide.md")
    blocks = re.findall(r"^```sh\n(.*?)^```", guide.read_text("utf-8"), re.M | re.S)
    named = sorted({port for block in blocks for port in PORT.findall(block)} - {"5432"})
    ports = {"5432": postgres.port} | dict(zip(named, free_ports(len(named)), strict=True))
    blocks = [PORT.sub(lambda port: ports[port.group()], block) for block in blocks]
    with tempfile.TemporaryDirectory(prefix="guide-", ignore_cleanup_errors=True) as directory:
        programs = Path(directory, "bin")
        programs.mkdir()
        (programs / "keepfast").symlink_to(binary)
        script = "set -e -o pipefail\n" + "".join(f"{block}\necho 'block {at} done' >&3\n" for at, block in enumerate(blocks))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_", "KEEPFAST_"))}
        environment |= {"PATH": f"{programs}:{python.parent}:{os.environ['PATH']}:/usr/sbin", "HOME": directory} | postgres.environment()
        # Block numbers come by a pipe of their own; bash ends with the first command that fails.
        shell = subprocess.Popen(["bash", "-c", f"exec 3> done\n{script}"], cwd=directory, env=environment, start_new_session=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output = shell.communicate(timeout=300)[0]
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            output = shell.communicate()[0] + "\nit took too long"
        done = len(Path(directory, "done").read_text().splitlines())
        # What the blocks started in the background is in the group of the shell.
        end_group(shell.pid)
        if shell.returncode:
            first = blocks[done].splitlines()[0] if done < len(blocks) else "the end"
            print(output[-3000:])
            for log in sorted(Path(directory).glob("*/server.log")):
                print(f"--- {log.parent.name}\n{log.read_text('utf-8')[-1500:]}")
            print(f"FAIL {guide.name}: the block that begins with {first!r}")
    print(f"{done} passed, {len(blocks) - done} failed")
    return 0 if done == len(blocks) else 1


def end_group(group: int) -> None:
    """Ends the processes of a group, which write to the directory until then."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
