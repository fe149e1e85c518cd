class DynamicDatabaseCredentials:
    """Manages dynamic database credentials with automatic renewal."""

    def __init__(self, vault_client: VaultClient, role: str = "myapp-readonly"):
        self.vault = vault_client
        self.role = role
        self.lease_id: str | None = None
        self.credentials: dict | None = None
        self.lease_duration: int = 0

    def get_credentials(self) -> dict:
        """Get current credentials, generating new ones if needed."""
        if self.credentials is None:
            self._generate()
        return self.credentials

    def _generate(self) -> None:
        """Request new dynamic credentials from Vault."""
        response = self.vault.client.secrets.database.generate_credentials(
            name=self.role,
        )
        self.credentials = {
            "username": response["data"]["username"],
            "password": response["data"]["password"],
        }
        self.lease_id = response["lease_id"]
        self.lease_duration = response["lease_duration"]
        log.info(
            f"Generated dynamic DB credentials: "
            f"user={self.credentials['username']}, "
            f"TTL={self.lease_duration}s"
        )

    def renew_lease(self) -> None:
        """Renew the credential lease."""
        if self.lease_id:
            self.vault.client.sys.renew_lease(
                lease_id=self.lease_id,
                increment=self.lease_duration,
            )
            log.info(f"Renewed lease {self.lease_id[:16]}...")

    def revoke(self) -> None:
        """Explicitly revoke credentials when shutting down."""
        if self.lease_id:
            self.vault.client.sys.revoke_lease(self.lease_id)
            log.info("Revoked dynamic credentials")
            self.credentials = None
            self.lease_id = None

    def build_dsn(self, host: str, port: int, dbname: str) -> str:
        """Build a SQLAlchemy-compatible DSN."""
        creds = self.get_credentials()
        return (
            f"postgresql://{creds['username']}:{creds['password']}"
            f"@{host}:{port}/{dbname}"
        )
