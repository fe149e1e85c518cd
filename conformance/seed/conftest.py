"""Makes the document's own pytest fixture (`vault server -dev` under the name `vault`, on port 8200) the fixture of this suite."""

import os
import shutil
import socket
import subprocess

import pytest

import document

ADDRESS = "http://127.0.0.1:8200"
ENGINES = {"database", "transit"}


def pytest_addoption(parser):
    parser.addoption("--balanced", default="", help="the program `conformance`: three nodes behind a load balancer instead of a development server")
    parser.addoption("--engines", default="", help="engines beyond the main job that the server has: database,transit")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(engine): runs when --engines names it")


def pytest_collection_modifyitems(config, items):
    engines = [engine for engine in config.getoption("--engines").split(",") if engine]
    unknown = set(engines) - ENGINES
    if unknown:
        raise pytest.UsageError(f"--engines takes {', '.join(sorted(ENGINES))}, not {', '.join(map(repr, sorted(unknown)))}")
    for item in items:
        for mark in item.iter_markers("needs"):
            if mark.args[0] not in engines:
                item.add_marker(pytest.mark.skip(reason=f"needs the {mark.args[0]} engine (--engines)"))


@pytest.fixture(scope="session", autouse=True)
def vault_in_path(request, tmp_path_factory):
    """The document starts whatever is called `vault`, on a port that must be free."""
    assert shutil.which("vault"), "put a directory with the binary under the name `vault` in PATH"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 8200)), "port 8200, which the document uses, is taken"
    for name in list(os.environ):
        if name.startswith(("VAULT_", "BAO_", "KEEPFAST_")):
            del os.environ[name]
    program = request.config.getoption("--balanced")
    if not program:
        yield
        return
    command = [program, "cluster", "--listen", "127.0.0.1:8200", "--token", "test-token"]
    environment = os.environ | {"KEEPFAST": shutil.which("vault")}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cluster:
        assert cluster.stdout.readline(), "the cluster does not start"
        # The document's development server is the cluster: a `vault server` only waits, other commands are the program's.
        script = tmp_path_factory.mktemp("bin") / "vault"
        script.write_text(f'#!/bin/sh\n[ "$1" = server ] && exec sleep infinity\nexec "{shutil.which("vault")}" "$@"\n')
        script.chmod(0o755)
        os.environ["PATH"] = f"{script.parent}:{os.environ['PATH']}"
        yield
        cluster.stdin.close()


# Defines `vault_dev_server`.
globals().update({name: value for name, value in document.run("fixture.py").items() if not name.startswith("__")})


@pytest.fixture(scope="session")
def admin(vault_in_path, vault_dev_server):
    """The document's client with the root token."""
    return vault_dev_server


@pytest.fixture(scope="session")
def approle(admin):
    """An AppRole role with the document's policy, as its chapter sets it up."""
    admin.sys.create_or_update_policy("myapp-api", document.block("policy.hcl"))
    admin.sys.enable_auth_method("approle")
    admin.auth.approle.create_or_update_approle("myapp", token_policies=["myapp-api"], token_ttl="1h", token_max_ttl="4h")
    return admin.auth.approle


@pytest.fixture
def credentials(approle):
    """A role id and a fresh secret id."""
    role_id = approle.read_role_id("myapp")["data"]["role_id"]
    secret_id = approle.generate_secret_id("myapp")["data"]["secret_id"]
    return role_id, secret_id


@pytest.fixture
def login(credentials):
    """The document's `VaultClient`, logged in."""
    role_id, secret_id = credentials
    return document.run("client.py")["VaultClient"](ADDRESS, role_id, secret_id)
