from contextlib import asynccontextmanager
from fastapi import FastAPI

vault = VaultClient()
db_creds = DynamicDatabaseCredentials(vault, role="myapp-readwrite")
lease_manager = VaultLeaseManager(vault)
lease_manager.register(db_creds)

@asynccontextmanager
async def lifespan(app: FastAPI):
    # Startup: begin lease renewal
    task = asyncio.create_task(lease_manager.run())
    yield
    # Shutdown: stop renewal and revoke leases
    lease_manager.stop()
    task.cancel()

app = FastAPI(lifespan=lifespan)

@app.get("/health")
async def health():
    return {"vault": vault.client.is_authenticated()}
