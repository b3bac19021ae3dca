"""/health: whether the process serves, and whether it can do its work."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.database import Db, SchemaBehind
from app.migrations import is_current
from app.queries import StrictRoute

router = APIRouter(prefix="/health", tags=["health"], route_class=StrictRoute)


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
