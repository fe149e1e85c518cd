"""Operational considerations: secret ids delivered by single-use wrapped tokens, batch tokens for short jobs."""

import hvac
import pytest

import document
from conftest import ADDRESS


def test_wrapped_secret_id_opens_once_and_logs_in(approle):
    role_id = approle.read_role_id("myapp")["data"]["role_id"]
    wrapped = approle.generate_secret_id("myapp", wrap_ttl="60s")
    assert wrapped["data"] is None
    assert wrapped["wrap_info"]["ttl"] == 60
    assert wrapped["wrap_info"]["creation_path"] == "auth/approle/role/myapp/secret-id"
    token = wrapped["wrap_info"]["token"]

    opened = hvac.Client(url=ADDRESS, token=token).sys.unwrap()
    client = document.run("client.py")["VaultClient"](ADDRESS, role_id, opened["data"]["secret_id"])
    assert client.read_secret("myapp/database")["password"] == "test"

    with pytest.raises(hvac.exceptions.InvalidRequest):
        hvac.Client(url=ADDRESS, token=token).sys.unwrap()


def test_wrapping_token_does_nothing_else(approle):
    token = approle.generate_secret_id("myapp", wrap_ttl="60s")["wrap_info"]["token"]
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(url=ADDRESS, token=token).secrets.kv.v2.read_secret_version(path="myapp/database", raise_on_deleted_version=True)


def test_single_use_secret_id(admin, approle):
    approle.create_or_update_approle("once", token_policies=["myapp-api"], secret_id_num_uses=1)
    role_id = approle.read_role_id("once")["data"]["role_id"]
    secret_id = approle.generate_secret_id("once")["data"]["secret_id"]
    client_class = document.run("client.py")["VaultClient"]
    assert client_class(ADDRESS, role_id, secret_id).client.is_authenticated()
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client_class(ADDRESS, role_id, secret_id)


def test_batch_token_reads(admin, approle):
    approle.create_or_update_approle("job", token_policies=["myapp-api"], token_type="batch", token_ttl="10m")
    role_id = approle.read_role_id("job")["data"]["role_id"]
    secret_id = approle.generate_secret_id("job")["data"]["secret_id"]
    client = document.run("client.py")["VaultClient"](ADDRESS, role_id, secret_id)
    assert client.token_renewable is False
    assert client.read_secret("myapp/database")["password"] == "test"
