"""hvac's tests on a cluster of three nodes behind a load balancer, as a pytest plugin (`-p balanced`): hvac's class that
starts servers starts a cluster with `conformance cluster`, which HVAC_BALANCED names. Tests whose names match a pattern in
HVAC_BALANCED_SKIPS, separated by spaces, are not run.

With HVAC_KILL_EVERY, the leader of each cluster is killed each time this number of seconds has passed, and clients send
requests again as hvac's documentation shows. The report of a test has the property `repeated`: how many, of the test and of
the preparation of its class; the number of kills is appended to the file that HVAC_KILLS names."""

import json
import os
import re
import subprocess

KILL_EVERY = os.environ.get("HVAC_KILL_EVERY")


def pytest_runtest_setup(item) -> None:
    if KILL_EVERY:
        from retries import Repeated

        # The class is prepared within the setup of its first test, after this.
        item.repeated_before = Repeated.count()
        if "repeated_before" not in vars(item.cls):
            item.cls.repeated_before = item.repeated_before


def pytest_runtest_call(item) -> None:
    if KILL_EVERY and "repeated_in_setup" not in vars(item.cls):
        from retries import Repeated

        item.cls.repeated_in_setup = Repeated.count() - item.cls.repeated_before


def pytest_runtest_makereport(item, call) -> None:
    if KILL_EVERY and call.when == "teardown":
        from retries import Repeated

        # A class that could not be prepared is run again.
        in_setup = vars(item.cls).get("repeated_in_setup", 1)
        item.user_properties.append(("repeated", Repeated.count() - item.repeated_before + in_setup))


def pytest_collection_modifyitems(config, items) -> None:
    patterns = os.environ["HVAC_BALANCED_SKIPS"].split()
    items[:] = [item for item in items if not any(re.search(pattern, item.nodeid.replace("/", ".")) for pattern in patterns)]


def pytest_configure(config) -> None:
    if KILL_EVERY:
        import requests
        from retries import Session

        requests.Session = Session
    from tests.utils import create_client, get_config_file_path
    from tests.utils.server_manager import ServerManager

    class Cluster(ServerManager):
        def start(self):
            program = os.environ["HVAC_BALANCED"]
            certificate = get_config_file_path("generated", f"server-{os.getpid()}.pem")
            with open(certificate, "w", encoding="ascii") as out:
                for part in ("server-cert.pem", "server-key.pem"):
                    with open(get_config_file_path(part), encoding="ascii") as file:
                        out.write(file.read())
            command = [program, "cluster", "--shares", "5", "--threshold", "3", "--certificate", certificate]
            if KILL_EVERY:
                command += ["--kill-leader-every", KILL_EVERY]
            self.cluster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            line = self.cluster.stdout.readline()
            if not line:
                raise RuntimeError(f"the cluster does not start: {self.cluster.stderr.read()}")
            self.started = json.loads(line)
            if self.client is None:
                self.client = create_client(url=self.started["address"])

        def initialize(self):
            self.keys = self.started["keys"]
            self.root_token = self.client.token = self.started["root_token"]

        def unseal(self):
            """Each node is unsealed at its own address. Those of a new cluster are; one that is killed is unsealed again."""
            for url in [] if KILL_EVERY else self.started["nodes"]:
                create_client(url=url).sys.submit_unseal_keys(self.keys)

        def get_active_vault_addresses(self):
            return [self.started["address"]]

        def stop(self):
            self.client = None
            _, errors = self.cluster.communicate("")
            if KILL_EVERY:
                if self.cluster.returncode:
                    raise RuntimeError(f"the cluster has failed: {errors}")
                with open(os.environ["HVAC_KILLS"], "a", encoding="ascii") as kills:
                    print(errors.split()[0], file=kills)

    for name in ("start", "initialize", "unseal", "get_active_vault_addresses", "stop"):
        setattr(ServerManager, name, getattr(Cluster, name))
