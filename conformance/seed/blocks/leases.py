import asyncio
import logging

log = logging.getLogger(__name__)

class VaultLeaseManager:
    """Manages token and secret lease renewals in the background."""

    def __init__(self, vault_client: VaultClient):
        self.vault = vault_client
        self.credentials: list[DynamicDatabaseCredentials] = []
        self._running = False

    def register(self, creds: DynamicDatabaseCredentials) -> None:
        self.credentials.append(creds)

    async def run(self, renewal_interval: int = 300) -> None:
        """Run the renewal loop. Call as a background task."""
        self._running = True
        while self._running:
            try:
                # Renew Vault token
                self.vault.renew_token()

                # Renew all credential leases
                for cred in self.credentials:
                    try:
                        cred.renew_lease()
                    except Exception as e:
                        log.warning(f"Lease renewal failed, regenerating: {e}")
                        cred._generate()

            except hvac.exceptions.Forbidden:
                log.error("Token renewal forbidden, re-authenticating")
                self.vault._authenticate()

            await asyncio.sleep(renewal_interval)

    def stop(self) -> None:
        self._running = False
        for cred in self.credentials:
            cred.revoke()
