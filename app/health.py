"""/health: for probes of load balancers and supervisors."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.db.database import Db
from app.db.errors import DatabaseDiskFull, DatabaseFileReadOnly, DatabaseUnavailable, SchemaBehind
from app.db.migrations import is_usable
from app.errors import ShuttingDown
from app.http.openapi import describe

PATIENCE = 3  # seconds: probes give up soon

router = APIRouter(prefix="/health", tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/live")
async def live() -> Health:
    """Check that the process serves."""
    return Health()


@router.get("/ready", responses=describe(DatabaseDiskFull, DatabaseFileReadOnly))
async def ready(db: Db, request: Request) -> Health:
    """Check that the service can do its work.

    It can if the database answers, takes writes, and has at least this version's schema. If not, the answer is 503 with
    the reason. Before a stop it is 503 for `DRAIN_SECONDS`, while the service answers all other requests.
    """
    if request.app.state.drain.has_begun:
        raise ShuttingDown
    try:
        async with asyncio.timeout(PATIENCE):
            await db.check_writable()
            has_schema = await db.read(is_usable)
    except TimeoutError:
        raise DatabaseUnavailable from None
    if not has_schema:
        raise SchemaBehind
    return Health()
