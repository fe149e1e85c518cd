import subprocess
import time
import hvac
import pytest

@pytest.fixture(scope="session")
def vault_dev_server():
    """Start Vault in dev mode for testing."""
    proc = subprocess.Popen(
        ["vault", "server", "-dev", "-dev-root-token-id=test-token"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(2)  # Wait for startup

    client = hvac.Client(url="http://127.0.0.1:8200", token="test-token")
    assert client.is_authenticated()

    # Seed test secrets
    client.secrets.kv.v2.create_or_update_secret(
        path="myapp/database",
        secret={"url": "postgresql://test:test@localhost/test", "password": "test"},
    )

    yield client

    proc.terminate()
    proc.wait()
