"""Dynamic database credentials: the one-time setup commands, `DynamicDatabaseCredentials`, `VaultLeaseManager` and the FastAPI application,
against a real PostgreSQL. The document's host and database stand for ours; nothing else is changed."""

import asyncio
import os
import re
import subprocess

import pytest
from fastapi import testclient

import document
from conftest import ADDRESS
from postgres import Postgres

pytestmark = pytest.mark.needs("database")


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database(admin, postgres):
    """The document's commands, run by a shell; then the role of which its policy and application speak."""
    commands = document.block("setup.sh").replace("db.internal:5432/myapp", f"127.0.0.1:{postgres.port}/myapp")
    environment = {**os.environ, "VAULT_ADDR": ADDRESS, "VAULT_TOKEN": "test-token"}
    subprocess.run(["sh", "-e", "-c", commands], env=environment, check=True)
    statements = admin.secrets.database.read_role("myapp-readonly")["data"]["creation_statements"]
    statements = [re.sub("GRANT SELECT", "GRANT SELECT, INSERT", statement) for statement in statements]
    admin.secrets.database.create_role("myapp-readwrite", "myapp-db", statements, default_ttl="1h", max_ttl="24h")
    return postgres


@pytest.fixture
def names():
    return document.run("client.py", "credentials.py", "leases.py")


@pytest.fixture
def dynamic(database, login, names):
    return names["DynamicDatabaseCredentials"](login, role="myapp-readwrite")


def test_the_setup_answers(admin, database):
    role = admin.secrets.database.read_role("myapp-readonly")["data"]
    assert (role["db_name"], role["default_ttl"], role["max_ttl"]) == ("myapp-db", 3600, 86400)
    connection = admin.secrets.database.read_connection("myapp-db")["data"]
    assert connection["allowed_roles"] == ["myapp-readonly", "myapp-readwrite"]
    assert "password" not in connection["connection_details"]


def test_credentials_work_and_are_kept(database, dynamic):
    credentials = dynamic.get_credentials()
    assert dynamic.get_credentials() is credentials
    assert dynamic.lease_duration == 3600
    assert database.sql("SELECT item FROM orders", credentials["username"], credentials["password"]) == "tea"
    assert dynamic.build_dsn("db", 5432, "myapp") == f"postgresql://{credentials['username']}:{credentials['password']}@db:5432/myapp"


def test_credentials_do_no_more_than_granted(database, dynamic):
    credentials = dynamic.get_credentials()
    for statement in ("DELETE FROM orders", "DROP TABLE orders", "CREATE ROLE other"):
        with pytest.raises(subprocess.CalledProcessError):
            database.sql(statement, credentials["username"], credentials["password"])


def test_policy_gives_the_one_role_only(login, database, names):
    with pytest.raises(Exception, match="permission denied"):
        names["DynamicDatabaseCredentials"](login).get_credentials()


def test_revoked_credentials_stop_working(admin, database, dynamic):
    credentials = dynamic.get_credentials()
    # The document's policy grants no sys/leases/revoke beyond what `default` has, so its client revokes with the right to.
    dynamic.vault.client.token = admin.token
    dynamic.renew_lease()
    dynamic.revoke()
    assert dynamic.credentials is None and dynamic.lease_id is None
    with pytest.raises(subprocess.CalledProcessError):
        database.sql("SELECT 1", credentials["username"], credentials["password"])
    assert database.sql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{credentials['username']}'") == "0"


def test_expired_credentials_stop_working(admin, database, names, login):
    role = admin.secrets.database.read_role("myapp-readwrite")["data"]
    admin.secrets.database.create_role("short", "myapp-db", role["creation_statements"], default_ttl="1s", max_ttl="1s")
    connection = admin.secrets.database.read_connection("myapp-db")["data"]
    admin.write("database/config/myapp-db", plugin_name="postgresql-database-plugin", allowed_roles="*",
                connection_url=connection["connection_details"]["connection_url"], username=Postgres.ADMIN, password=Postgres.PASSWORD)
    login.client.token = admin.token
    credentials = names["DynamicDatabaseCredentials"](login, role="short").get_credentials()
    assert asyncio.run(gone(database, credentials["username"]))


async def gone(database, user, seconds=30):
    """Asks until the database knows the user no more."""
    for _ in range(seconds * 5):
        if database.sql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{user}'") == "0":
            return True
        await asyncio.sleep(0.2)
    return False


def test_lease_manager_renews_and_stops(admin, database, dynamic, names):
    dynamic.vault.client.token = admin.auth.token.create(policies=["root"], ttl="1h")["auth"]["client_token"]
    manager = names["VaultLeaseManager"](dynamic.vault)
    manager.register(dynamic)
    user = dynamic.get_credentials()["username"]

    async def some_rounds():
        task = asyncio.create_task(manager.run(renewal_interval=0.05))
        await asyncio.sleep(0.3)
        assert not task.done()
        assert dynamic.get_credentials()["username"] == user
        manager.stop()
        task.cancel()

    asyncio.run(some_rounds())
    assert database.sql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{user}'") == "0"


def test_fastapi_application(database, credentials, monkeypatch):
    monkeypatch.setenv("VAULT_ROLE_ID", credentials[0])
    monkeypatch.setenv("VAULT_SECRET_ID", credentials[1])
    # The document's default address is a name of its own network.
    names = document.run("client.py", "credentials.py", "leases.py")
    client_class = names["VaultClient"]
    names["VaultClient"] = lambda: client_class(vault_url=ADDRESS)
    application = document.run("application.py", **{n: v for n, v in names.items() if not n.startswith("__")})
    with testclient.TestClient(application["app"]) as web:
        assert web.get("/health").json() == {"vault": True}
