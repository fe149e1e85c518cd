"""`TransitEncryptor`, with rotation and rewrap in between."""

import pytest

import document

pytestmark = pytest.mark.needs("transit")


@pytest.fixture(scope="module")
def key(admin):
    admin.sys.enable_secrets_engine("transit")
    admin.secrets.transit.create_key("myapp")
    return "myapp"


@pytest.fixture
def encryptor(key, login):
    return document.run("client.py", "transit.py")["TransitEncryptor"](login, key)


def test_what_is_encrypted_decrypts(encryptor):
    ciphertext = encryptor.encrypt("Jürgen, 4111 1111")
    assert ciphertext.startswith("vault:v1:")
    assert encryptor.decrypt(ciphertext) == "Jürgen, 4111 1111"


def test_batch(encryptor):
    ciphertexts = encryptor.encrypt_batch(["one", "two", ""])
    assert [encryptor.decrypt(c) for c in ciphertexts] == ["one", "two", ""]


def test_rotation_is_transparent(admin, key, encryptor):
    old = encryptor.encrypt("kept")
    admin.secrets.transit.rotate_key(key)
    assert encryptor.encrypt("new").startswith("vault:v2:")
    assert encryptor.decrypt(old) == "kept"
    rewrapped = admin.secrets.transit.rewrap_data(key, ciphertext=old)["data"]["ciphertext"]
    assert rewrapped.startswith("vault:v2:")
    assert encryptor.decrypt(rewrapped) == "kept"
