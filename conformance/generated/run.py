#!/usr/bin/env python3
"""Asks both servers thousands of generated requests and shows in what their answers differ.

    run.py BAO KEEPFAST [--count N] [--seed N] [--only PART] [--all]

Without --count every case is played; --only takes those whose words hold PART; --all shows accepted differences too.
`accepted.toml` lists the differences that are on purpose, each with its reason. The last line is `N passed, N failed`.
"""

import argparse
import random
import re
import sys
import threading
import time
import tomllib
from collections import defaultdict
from pathlib import Path

from cases import Case, Step
from comparison import differences
from families import all_families
from sequences import SEQUENCES
from server import Answer, Server
from surface import operations

MOUNTS = [("mounts/kv1", {"type": "kv"}), ("mounts/kv2", {"type": "kv", "options": {"version": "2"}}), ("mounts/transit", {"type": "transit"}),
          ("mounts/database", {"type": "database"}), ("auth/approle", {"type": "approle"}), ("auth/userpass", {"type": "userpass"}),
          # Names that no user has are locked by ours only, which `docs/differences.md` says.
          ("auth/approle/tune", {"user_lockout_config": {"lockout_disable": True}}),
          ("auth/userpass/tune", {"user_lockout_config": {"lockout_disable": True}})]


def prepare(server: Server) -> dict[str, str]:
    """Mounts what cases are about; the variables that all cases have."""
    for path, body in MOUNTS:
        answer = server.call("POST", f"sys/{path}", body)
        if answer.status != 204:
            raise AssertionError(f"{path} on {server.name}: {answer}")
    server.until(lambda: server.call("GET", "kv2/config").status == 200)
    weak = server.call("POST", "auth/token/create", {"no_default_policy": True, "policies": ["nothing"], "ttl": "10h"}).body["auth"]
    return {"root": server.token, "weak": weak["client_token"], "port": f"127.0.0.1:{server.address[1]}"}


def play(server: Server, known: dict[str, str], case: Case) -> tuple[list[Answer], dict[str, str]]:
    """The answers to the steps of a case, and the variables at its end."""
    variables, answers = dict(known), []
    for step in case.steps:
        answer = ask(server, variables, step)
        answers.append(answer)
        for name, place in step.capture.items():
            value = answer.body
            for part in place.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            variables[name] = value if isinstance(value, str) else "none"
    return answers, variables


def ask(server: Server, variables: dict[str, str], step: Step) -> Answer:
    def fill(text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda m: variables.get(m.group(1), m.group(0)), text)
    headers = {name: fill(value) for name, value in step.headers.items()}
    token = {"none": "", "bad": "hvs.nonsense"}.get(step.token, variables.get(step.token, ""))
    if token:
        headers["X-Vault-Token"] = token
    body = step.bytes()
    if body is not None and b"{{" in body:
        body = fill(body.decode()).encode()
    return server.ask(step.method, fill(step.target()), body, headers)


class Accepted:
    """The differences that are on purpose."""

    def __init__(self):
        rules = tomllib.loads(Path(__file__).with_name("accepted.toml").read_text())["accepted"]
        self.rules = [(re.compile(rule.get("about", "")), re.compile(rule.get("request", "")), re.compile(rule.get("difference", ""))) for rule in rules]
        self.used = [0] * len(rules)

    def has(self, about: str, request: str, difference: str) -> bool:
        for index, (in_about, in_request, in_difference) in enumerate(self.rules):
            if in_about.search(about) and in_request.search(request) and in_difference.search(difference):
                self.used[index] += 1
                return True
        return False


def all_plays(server: Server, known: dict, chosen: list[Case], out: dict, seconds: float) -> None:
    out[server.name] = []
    end = time.monotonic() + seconds
    try:
        for case in chosen:
            if time.monotonic() > end:
                return
            out[server.name].append(play(server, known, case))
    except Exception as error:  # noqa: BLE001
        out[server.name].append(f"{server.name} at {chosen[len(out[server.name])].steps}: {error!r}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("bao")
    parser.add_argument("keepfast")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--examples", type=int, default=3)
    options = parser.parse_args()
    peer, ours = Server("bao", options.bao), Server("keepfast", options.keepfast)
    try:
        return compare(peer, ours, options)
    finally:
        peer.stop()
        ours.stop()


def compare(peer: Server, ours: Server, options: argparse.Namespace) -> int:
    known = {server.name: prepare(server) for server in (peer, ours)}
    chosen = SEQUENCES + all_families(operations(ours, peer))
    if options.only:
        chosen = [case for case in chosen if options.only in case.about]
    if options.count is not None and options.count < len(chosen):
        kept = sorted(random.Random(options.seed).sample(range(len(chosen)), options.count))
        chosen = [chosen[index] for index in kept]
    played: dict[str, list] = {}
    threads = [threading.Thread(target=all_plays, args=(server, known[server.name], chosen, played, options.seconds)) for server in (peer, ours)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [run[-1] for run in played.values() if run and isinstance(run[-1], str)]
    accepted, classes, passed, steps = Accepted(), defaultdict(list), 0, 0
    for case, of_peer, of_ours in zip(chosen, played["bao"], played["keepfast"]):
        if isinstance(of_peer, str) or isinstance(of_ours, str):
            break
        found = []
        for step, theirs, mine in zip(case.steps, of_peer[0], of_ours[0]):
            steps += 1
            measured = re.search(r"sys/(host-info|metrics|key-status|in-flight-req|internal/counters)|accessors|leases/lookup/auth", step.path) is not None
            for difference in differences(mine, theirs, of_ours[1], of_peer[1], measured):
                known_one = accepted.has(case.about, step.title(), difference)
                if not known_one or options.all:
                    found.append((difference, ("(accepted) " if known_one else "") + f"[{case.about}] {step.title()}"))
        passed += not found
        for difference, shown in found:
            classes[difference].append(shown)
    for difference, shown in sorted(classes.items(), key=lambda item: -len(item[1])):
        print(f"{len(shown)} x {difference}")
        for example in random.Random(1).sample(shown, min(options.examples, len(shown))):
            print(f"      {example}")
    chosen = chosen[:min(len(run) for run in played.values())]
    for failure in failures:
        print(f"FAIL {failure}")
    print(f"{len(chosen)} cases, {steps} requests to each server, {len(classes)} kinds of difference")
    print(f"{passed} passed, {len(chosen) - passed} failed")
    return 0 if passed == len(chosen) and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
