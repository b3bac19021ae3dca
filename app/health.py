"""/health: whether the process serves, and whether it can do its work."""

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
    """Answer while the process serves."""
    return Health()


@router.get("/ready")
async def ready(db: Db) -> Health:
    """Answer 200 when the database does and its schema is at the newest migration; else 503, saying which."""
    if not await db.read(is_current):
        raise SchemaBehind
    return Health()
