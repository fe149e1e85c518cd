#!/usr/bin/env python3
"""Runs hvac's own integration tests (from its source distribution) against a server under the name `vault`.

    run.py SERVER BINARY [--baseline RESULTS.json] [--balanced CONFORMANCE [--kill-leader-every SECONDS]]

On Keepfast every server gets an audit log beside hvac's configuration, and none of the secrets may stand in it or in the server's output
(see canary.py). Results are written to .cache/hvac/SERVER.json. With a baseline (the peer's results), every test that passed there must pass here,
unless skips.txt names it with a reason. The last line is `N passed, N failed`.

While leaders are killed, the clients send requests again as hvac's documentation shows. A test that fails although nothing was sent again
has failed. One that fails after that is run again, since the repeated request may have had its effect the first time; so are those of the
same class that fail later, on what it has left.
"""

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import canary

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "hvac"
VERSION = "2.4.0"
# The level of the API, by which hvac's tests choose themselves; a server's own version number says nothing of it.
API_LEVEL = "2.7.2"
# How often a test runs whose requests were sent again.
ATTEMPTS = 4
# The second file is for a cluster behind a load balancer.
SKIPS = ["skips.txt", "skips-balanced.txt"]
API = "tests/integration_tests/api"
SELECTION = [
    *(f"{API}/auth_methods/test_{name}.py" for name in ("approle", "token")),
    *(f"{API}/secrets_engines/test_{name}.py" for name in ("identity", "kv_v1", "kv_v2", "transit")),
    *(f"{API}/system_backend/test_{name}.py"
      for name in ("audit", "auth", "health", "init", "key", "leader", "lease", "mount", "policies", "policy", "seal", "wrapping")),
    "tests/integration_tests/v1/test_approle.py",
    "tests/integration_tests/v1/test_integration.py",
    "tests/integration_tests/v1/test_system_backend.py",
]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("binary", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--balanced", type=Path, help="the program `conformance`: run on three nodes behind a load balancer")
    parser.add_argument("--kill-leader-every", help="kill the leader of each cluster each time this number of seconds has passed")
    parser.add_argument("--select", help="parts of the tests' names, as pytest's -k has it; the others count as not wanted")
    arguments = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    source = fetch()
    results = run(source, arguments, wrapper(arguments.server, arguments.binary.resolve()))
    (CACHE / f"{arguments.server}.json").write_text(json.dumps(results, indent=1))
    return report(arguments, results, skips(*(SKIPS if arguments.balanced else SKIPS[:1])))


def fetch() -> Path:
    """hvac's source distribution, unpacked."""
    source = CACHE / f"hvac-{VERSION}"
    if not source.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(CACHE), f"hvac=={VERSION}"]
        subprocess.run(command, check=True)
        with tarfile.open(CACHE / f"hvac-{VERSION}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return source


def wrapper(server: str, binary: Path) -> Path:
    """A directory with the binary under the name `vault`, which answers `-version` with the level of the API.

    A server of ours keeps an audit log and its output, for the canary; hvac reads neither.
    """
    directory = CACHE / f"bin-{server}"
    directory.mkdir(exist_ok=True)
    script = directory / "vault"
    lines = ["#!/bin/sh", f'[ "$1" = -version ] && {{ echo "Vault v{API_LEVEL} ({server})"; exit 0; }}']
    if server == "keepfast":
        wrote = CACHE / "canary"
        stanza = f'audit "file" "canary" {{ options {{ file_path = "{wrote}/audit-%s.log" }} }}'
        lines += ['if [ "$1" = server ]; then', f"  printf '{stanza}' $$ > {wrote}/audit-$$.hcl",
                  f'  exec "{binary}" "$@" "-config={wrote}/audit-$$.hcl" > {wrote}/server-$$.log 2>&1', "fi"]
    script.write_text("\n".join([*lines, f'exec "{binary}" "$@"', ""]))
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return directory


def run(source: Path, arguments: argparse.Namespace, directory: Path) -> dict[str, str]:
    """Each test's outcome by its name: passed, failed or skipped."""
    server, balanced, kill_every = arguments.server, arguments.balanced, arguments.kill_leader_every
    (source / "tests/config_files/generated").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_", "KEEPFAST_"))}
    # The sources come first, so that the tests run with the client they belong to.
    environment |= {"PATH": f"{directory}:{os.environ['PATH']}", "PYTHONPATH": f"{source}:{HERE}"}
    if server == "keepfast":
        shutil.rmtree(CACHE / "canary", ignore_errors=True)
        (CACHE / "canary").mkdir()
        environment["HVAC_CANARY"] = str(CACHE / "canary")
    if balanced:
        environment |= {"HVAC_BALANCED": str(balanced.resolve()), "HVAC_BALANCED_SKIPS": " ".join(skips(SKIPS[1])),
                        "KEEPFAST": str((directory / "vault").resolve())}
    kills = CACHE / "canary/kills.txt"
    if kill_every:
        environment |= {"HVAC_KILL_EVERY": kill_every, "HVAC_KILLS": str(kills)}
    (CACHE / f"{server}.log").unlink(missing_ok=True)
    results, tests, again = {}, SELECTION, 0
    for attempt in range(ATTEMPTS if kill_every else 1):
        played = play(source, server, environment, [*(["-p", "balanced"] if balanced else []), *tests, *(["-k", arguments.select] if arguments.select else [])])
        results |= {name: outcome for name, (outcome, _, _) in played.items()}
        tests = [node for outcome, repeated, node in played.values() if outcome == "failed" and repeated]
        if not tests:
            break
        again += len(tests)
    if kill_every:
        count = sum(map(int, kills.read_text().split()))
        print(f"hvac on {server}: {count} kills of leaders, {again} tests run again after a request that was sent again")
        if not count:
            results["kills of leaders"] = "failed"
    return results


def play(source: Path, server: str, environment: dict[str, str], options: list[str]) -> dict[str, tuple[str, int, str]]:
    """The outcome of tests by their names, the number of requests that were sent again, and pytest's name of the test."""
    report_file = CACHE / f"{server}.xml"
    report_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "canary", "-n", "2", "--dist", "loadfile",
               f"--junitxml={report_file}", *options]
    with open(CACHE / f"{server}.log", "a") as log:
        subprocess.run(command, cwd=source, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=1800)
    results, uncertain = {}, set()
    for case in ElementTree.parse(report_file).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        repeated = sum(int(each.get("value")) for each in case.iter("property") if each.get("name") == "repeated")
        if outcome == "failed" and (repeated or case.get("classname") in uncertain):
            uncertain.add(case.get("classname"))
            repeated = max(repeated, 1)
        *module, group = case.get("classname").split(".")
        node = f"{'/'.join(module)}.py::{group}::{case.get('name')}"
        results[f"{case.get('classname').removeprefix('tests.integration_tests.')}::{case.get('name')}"] = (outcome, repeated, node)
    return results


def skips(*files: str) -> dict[str, str]:
    """Patterns of test names that Keepfast does not have to pass, each with its reason."""
    lines = [line for file in files for line in (HERE / file).read_text().splitlines()]
    pairs = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    without = [pair[0] for pair in pairs if len(pair) < 2]
    if without:
        sys.exit(f"{' '.join(files)}: no reason for {', '.join(without)}")
    return {pattern: reason for pattern, reason in pairs}


def report(arguments: argparse.Namespace, results: dict[str, str], excused: dict[str, str]) -> int:
    server, baseline = arguments.server, arguments.baseline
    if baseline is None:
        # Of the peer nothing is demanded: its results are the measure.
        counts = [sum(outcome == kind for outcome in results.values()) for kind in ("passed", "failed", "skipped")]
        print(f"hvac on {server}: {counts[0]} pass, {counts[1]} fail and {counts[2]} are skipped by hvac: the measure for us")
        print(f"{counts[0]} passed, {0 if counts[0] else 1} failed")
        return 0 if counts[0] else 1
    wanted = [name for name, outcome in json.loads(baseline.read_text()).items() if outcome == "passed"]
    if arguments.select:
        wanted = [name for name in wanted if name in results]
    passed, failed, skipped = [], [name for name in ["kills of leaders"] if name in results], []
    for name in wanted:
        if name not in results and not results:
            continue
        if results.get(name) == "passed":
            passed.append(name)
        elif any(re.search(pattern, name) for pattern in excused):
            skipped.append(name)
        else:
            failed.append(name)
    for name in failed:
        print(f"FAIL hvac on {server}: {name} ({results.get(name, 'did not run')})")
    secrets, leaked = canary.search(CACHE / "canary")
    for leak in leaked:
        print(f"FAIL hvac on {server}: {leak}")
    print(f"hvac on {server}: {secrets} secrets looked for in the audit logs and outputs of its servers")
    stale = [pattern for pattern in ([] if arguments.select else excused) if not any(re.search(pattern, name) for name in skipped)]
    for pattern in stale:
        print(f"FAIL hvac on {server}: skips.txt: {pattern} matches no test that is skipped")
    print(f"hvac on {server}: {len(skipped)} excused by skips.txt, of {len(wanted)} that pass on the peer; log in .cache/hvac/{server}.log")
    print(f"{len(passed)} passed, {len(failed) + len(leaked) + len(stale)} failed")
    return 1 if failed or leaked or stale or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
