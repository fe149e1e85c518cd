#!/usr/bin/env python3
"""Runs the `sh` blocks of docs/guide.md in their order, in one shell, in an empty directory and on a free port: run.py BINARY PYTHON

A block that fails is named by its first line. The last line is `N passed, N failed`.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"


def main() -> int:
    binary, python = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).absolute()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    blocks = [block.replace("18200", port) for block in re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)]
    with tempfile.TemporaryDirectory(prefix="guide-") as directory:
        programs = Path(directory, "bin")
        programs.mkdir()
        (programs / "keepfast").symlink_to(binary)
        script = "set -e -o pipefail\n" + "".join(f"{block}\necho 'block {at} done' >&3\n" for at, block in enumerate(blocks))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_", "KEEPFAST_"))}
        environment |= {"PATH": f"{programs}:{python.parent}:{os.environ['PATH']}", "HOME": directory}
        # Block numbers come by a pipe of their own; bash ends with the first command that fails.
        shell = subprocess.Popen(["bash", "-c", f"exec 3> done\n{script}"], cwd=directory, env=environment, start_new_session=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output = shell.communicate(timeout=300)[0]
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            output = shell.communicate()[0] + "\nit took too long"
        done = len(Path(directory, "done").read_text().splitlines())
        pid = Path(directory, "keepfast.pid")
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)
        if shell.returncode:
            first = blocks[done].splitlines()[0] if done < len(blocks) else "the end"
            print(output[-3000:])
            print(f"FAIL guide: the block that begins with {first!r}")
    print(f"{done} passed, {len(blocks) - done} failed")
    return 0 if done == len(blocks) else 1


if __name__ == "__main__":
    sys.exit(main())
