"""`VaultClient`: AppRole login, reading a versioned secret under the policy, renewal."""

import logging

import hvac
import pytest

import document
from conftest import ADDRESS


def test_dev_server_is_seeded(admin):
    secret = admin.secrets.kv.v2.read_secret_version(path="myapp/database", raise_on_deleted_version=True)
    assert secret["data"]["data"] == {"url": "postgresql://test:test@localhost/test", "password": "test"}
    assert secret["data"]["metadata"]["version"] >= 1


def test_login_reads_its_secret(login):
    assert login.token_ttl == 3600
    assert login.token_renewable is True
    assert login.client.is_authenticated()
    assert login.read_secret("myapp/database")["password"] == "test"


def test_login_takes_its_credentials_from_the_environment(credentials, monkeypatch):
    monkeypatch.setenv("VAULT_ROLE_ID", credentials[0])
    monkeypatch.setenv("VAULT_SECRET_ID", credentials[1])
    client = document.run("client.py")["VaultClient"](vault_url=ADDRESS)
    assert client.read_secret("myapp/database")["password"] == "test"


def test_login_is_logged_without_the_token(credentials, caplog):
    with caplog.at_level(logging.INFO):
        client = document.run("client.py")["VaultClient"](ADDRESS, *credentials)
    assert "Authenticated with Vault, token TTL: 3600s" in caplog.text
    assert client.client.token not in caplog.text


def test_missing_secret_is_an_invalid_path(login):
    with pytest.raises(hvac.exceptions.InvalidPath):
        login.read_secret("myapp/none")


def test_another_applications_secret_is_forbidden(admin, login):
    admin.secrets.kv.v2.create_or_update_secret(path="payments/card", secret={"number": "4"})
    with pytest.raises(hvac.exceptions.Forbidden):
        login.read_secret("payments/card")
    with pytest.raises(hvac.exceptions.Forbidden):
        login.read_secret("other/thing")


def test_policy_reads_and_does_not_write(login):
    with pytest.raises(hvac.exceptions.Forbidden):
        login.client.secrets.kv.v2.create_or_update_secret(path="myapp/database", secret={"a": "b"})
    with pytest.raises(hvac.exceptions.Forbidden):
        login.client.sys.list_policies()


def test_token_is_renewed(login):
    login.renew_token()
    looked_up = login.client.auth.token.lookup_self()["data"]
    assert looked_up["policies"] == ["default", "myapp-api"]
    assert 3590 <= looked_up["ttl"] <= 3600
    assert looked_up["meta"] == {"role_name": "myapp"}


def test_wrong_credentials_are_refused(credentials):
    client_class = document.run("client.py")["VaultClient"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client_class(ADDRESS, credentials[0], "wrong")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client_class(ADDRESS, "wrong", credentials[1])


def test_revoked_token_is_forbidden(login):
    login.client.auth.token.revoke_self()
    with pytest.raises(hvac.exceptions.Forbidden):
        login.read_secret("myapp/database")
