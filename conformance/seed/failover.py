#!/usr/bin/env python3
"""The document's classes in a loop, on three nodes behind a load balancer whose leader is killed every ten seconds: failover.py CONFORMANCE [SECONDS]

Clients retry as hvac's documentation shows. A request then succeeds, or fails with an error that clients retry; nothing is refused that is
allowed, nothing is lost that was acknowledged. The last line is `N passed, N failed`.
"""

import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import hvac
import requests

import document

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hvac"))
from retries import Repeated, Session

INTERVAL = 10
WORKERS = 4
RETRYABLE = (hvac.exceptions.InternalServerError, hvac.exceptions.PreconditionFailed, hvac.exceptions.BadGateway, hvac.exceptions.VaultDown,
             requests.exceptions.ConnectionError, requests.exceptions.RetryError, requests.exceptions.Timeout)


class Uncertain(Exception):
    """A request that has its effect once was refused when it was sent again: the first response was lost."""


def once(call, *arguments, **named):
    """A call with a request that is refused after its effect."""
    before = Repeated.count()
    try:
        return call(*arguments, **named)
    except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden, hvac.exceptions.InvalidPath) as refused:
        if Repeated.count() > before:
            raise Uncertain from refused
        raise


def refused(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error:
        return
    raise AssertionError(f"{call} is not refused")


class Jobs:
    """What an application does, each time with names of its own."""

    def __init__(self, address, token):
        self.address = address
        self.admin = hvac.Client(url=address, token=token)
        self.admin.secrets.kv.v2.create_or_update_secret(path="myapp/database", secret={"password": "test"})
        self.admin.sys.create_or_update_policy("myapp-api", document.block("policy.hcl"))
        self.admin.sys.enable_auth_method("approle")
        self.admin.auth.approle.create_or_update_approle("myapp", token_policies=["myapp-api"], token_ttl="1h", token_max_ttl="4h")
        self.role_id = self.admin.auth.approle.read_role_id("myapp")["data"]["role_id"]
        self.admin.sys.enable_secrets_engine("transit")
        self.admin.secrets.transit.create_key("myapp")
        self.names = document.run("client.py", "transit.py")
        self.numbers = itertools.count()

    def _login(self):
        secret_id = self.admin.auth.approle.generate_secret_id("myapp")["data"]["secret_id"]
        return self.names["VaultClient"](self.address, self.role_id, secret_id)

    def login(self):
        client = self._login()
        assert client.read_secret("myapp/database")["password"] == "test"
        client.renew_token()
        once(client.client.auth.token.revoke_self)
        refused(hvac.exceptions.Forbidden, client.read_secret, "myapp/database")

    def secret(self):
        path, kv = f"jobs/{next(self.numbers)}", self.admin.secrets.kv.v2
        for version in range(3):
            once(kv.create_or_update_secret, path=path, secret={"n": version}, cas=version)
            read = kv.read_secret_version(path=path, raise_on_deleted_version=True)["data"]
            assert (read["data"], read["metadata"]["version"]) == ({"n": version}, version + 1), read
        kv.delete_metadata_and_all_versions(path=path)
        refused(hvac.exceptions.InvalidPath, kv.read_secret_version, path=path, raise_on_deleted_version=True)

    def transit(self):
        encryptor, text = self.names["TransitEncryptor"](self._login(), "myapp"), f"Jürgen {next(self.numbers)}"
        assert encryptor.decrypt(encryptor.encrypt(text)) == text
        assert [encryptor.decrypt(each) for each in encryptor.encrypt_batch([text, ""])] == [text, ""]

    def wrapping(self):
        wrapped = self.admin.auth.approle.generate_secret_id("myapp", wrap_ttl="60s")["wrap_info"]["token"]
        opened = once(hvac.Client(url=self.address, token=wrapped).sys.unwrap)
        client = self.names["VaultClient"](self.address, self.role_id, opened["data"]["secret_id"])
        assert client.read_secret("myapp/database")["password"] == "test"
        refused(hvac.exceptions.InvalidRequest, hvac.Client(url=self.address, token=wrapped).sys.unwrap)

    def token(self):
        token = self.admin.auth.token.create(policies=["myapp-api"], ttl="1h")["auth"]["client_token"]
        assert self.admin.auth.token.lookup(token)["data"]["policies"] == ["default", "myapp-api"]
        once(self.admin.auth.token.revoke, token)
        refused(hvac.exceptions.Forbidden, hvac.Client(url=self.address, token=token).auth.token.lookup_self)


def work(jobs, worker, until, counts, failures):
    kinds = itertools.islice(itertools.cycle([jobs.login, jobs.secret, jobs.transit, jobs.wrapping, jobs.token]), worker, None)
    while time.monotonic() < until:
        job = next(kinds)
        try:
            job()
            counts["passed"] += 1
        except RETRYABLE:
            counts["given up"] += 1
        except Uncertain:
            counts["uncertain"] += 1
        except Exception as error:
            failures.append(f"{job.__name__}: {type(error).__name__}: {error}")


def main() -> int:
    # The document logs what it reads as an error when that is refused.
    logging.disable(logging.CRITICAL)
    requests.Session = Session
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 25
    command = [sys.argv[1], "cluster", "--token", "test-token", "--kill-leader-every", str(INTERVAL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as cluster:
        line = cluster.stdout.readline()
        if not line:
            sys.exit(f"the cluster does not start: {cluster.stderr.read()}")
        jobs, counts, failures = Jobs(json.loads(line)["address"], "test-token"), Counter(), []
        until = time.monotonic() + seconds
        workers = [threading.Thread(target=work, args=(jobs, number, until, counts, failures)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        _, errors = cluster.communicate("")
    if cluster.returncode:
        failures.append(f"the cluster: {errors.strip()}")
    for failure in failures[:20]:
        print(f"FAIL failover: {failure}")
    print(f"failover: {errors.strip()}, {dict(counts)}, {Repeated.count()} requests of the setup repeated")
    print(f"{counts['passed']} passed, {len(failures)} failed")
    return 1 if failures or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
