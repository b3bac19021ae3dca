"""/health: for probes of load balancers and supervisors."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.db.database import Db, SchemaBehind
from app.db.migrations import is_current

router = APIRouter(prefix="/health", tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/live")
async def live() -> Health:
    """Check that the process serves."""
    return Health()


@router.get("/ready")
async def ready(db: Db) -> Health:
    """Check that the service can do its work.

    It can if the database answers, takes writes, and has a schema at the newest migration. If not, the answer is 503
    with the reason.
    """
    await db.check_writable()
    if not await db.read(is_current):
        raise SchemaBehind
    return Health()
