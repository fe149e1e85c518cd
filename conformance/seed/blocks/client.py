import hvac
import os
import logging

log = logging.getLogger(__name__)

class VaultClient:
    def __init__(
        self,
        vault_url: str = "https://vault.internal:8200",
        role_id: str | None = None,
        secret_id: str | None = None,
    ):
        self.client = hvac.Client(url=vault_url)
        self.role_id = role_id or os.environ["VAULT_ROLE_ID"]
        self.secret_id = secret_id or os.environ["VAULT_SECRET_ID"]
        self._authenticate()

    def _authenticate(self) -> None:
        """Authenticate with AppRole and store the token."""
        response = self.client.auth.approle.login(
            role_id=self.role_id,
            secret_id=self.secret_id,
        )
        self.client.token = response["auth"]["client_token"]
        self.token_ttl = response["auth"]["lease_duration"]
        self.token_renewable = response["auth"]["renewable"]
        log.info(
            f"Authenticated with Vault, token TTL: {self.token_ttl}s"
        )

    def read_secret(self, path: str, mount: str = "secret") -> dict:
        """Read a KV v2 secret."""
        try:
            response = self.client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount,
            )
            return response["data"]["data"]
        except hvac.exceptions.Forbidden:
            log.error(f"Access denied for secret: {path}")
            raise
        except hvac.exceptions.InvalidPath:
            log.error(f"Secret not found: {path}")
            raise

    def renew_token(self) -> None:
        """Renew the current token before expiry."""
        if self.token_renewable:
            self.client.auth.token.renew_self()
            log.info("Vault token renewed")
