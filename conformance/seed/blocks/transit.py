class TransitEncryptor:
    """Encrypt and decrypt data using Vault's transit engine."""

    def __init__(self, vault_client: VaultClient, key_name: str = "myapp"):
        self.vault = vault_client
        self.key_name = key_name

    def encrypt(self, plaintext: str) -> str:
        """Encrypt a string, returning the ciphertext."""
        import base64
        encoded = base64.b64encode(plaintext.encode()).decode()
        result = self.vault.client.secrets.transit.encrypt_data(
            name=self.key_name,
            plaintext=encoded,
        )
        return result["data"]["ciphertext"]

    def decrypt(self, ciphertext: str) -> str:
        """Decrypt a ciphertext string."""
        import base64
        result = self.vault.client.secrets.transit.decrypt_data(
            name=self.key_name,
            ciphertext=ciphertext,
        )
        return base64.b64decode(result["data"]["plaintext"]).decode()

    def encrypt_batch(self, items: list[str]) -> list[str]:
        """Encrypt multiple items in one API call."""
        import base64
        batch_input = [
            {"plaintext": base64.b64encode(item.encode()).decode()}
            for item in items
        ]
        result = self.vault.client.secrets.transit.encrypt_data(
            name=self.key_name,
            batch_input=batch_input,
        )
        return [item["ciphertext"] for item in result["data"]["batch_results"]]
