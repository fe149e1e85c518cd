"""hvac's tests on a cluster of three nodes behind a load balancer, as a pytest plugin (`-p balanced`): hvac's class that
starts servers starts a cluster with `conformance cluster`, which HVAC_BALANCED names. Tests whose names match a pattern in
HVAC_BALANCED_SKIPS, separated by spaces, are not run."""

import json
import os
import re
import subprocess


def pytest_collection_modifyitems(config, items) -> None:
    patterns = os.environ["HVAC_BALANCED_SKIPS"].split()
    items[:] = [item for item in items if not any(re.search(pattern, item.nodeid.replace("/", ".")) for pattern in patterns)]


def pytest_configure(config) -> None:
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
            self.cluster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            line = self.cluster.stdout.readline()
            if not line:
                raise RuntimeError("the cluster does not start")
            self.started = json.loads(line)
            if self.client is None:
                self.client = create_client(url=self.started["address"])

        def initialize(self):
            self.keys = self.started["keys"]
            self.root_token = self.client.token = self.started["root_token"]

        def unseal(self):
            """Each node is unsealed at its own address."""
            for url in self.started["nodes"]:
                create_client(url=url).sys.submit_unseal_keys(self.keys)

        def get_active_vault_addresses(self):
            return [self.started["address"]]

        def stop(self):
            self.client = None
            self.cluster.stdin.close()
            self.cluster.wait()

    for name in ("start", "initialize", "unseal", "get_active_vault_addresses", "stop"):
        setattr(ServerManager, name, getattr(Cluster, name))
