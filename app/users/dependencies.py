"""The dependencies of the endpoints of users."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request

from app.auth.access import CallerDb
from app.auth.dependencies import AccountDb
from app.config import AppSettings


async def get_profile_database(request: Request, db: AccountDb, settings: AppSettings) -> CallerDb:
    """Where the body has an e-mail address, be it valid or not, look at the login's age first."""
    body = getattr(request, "parsed", None)
    if isinstance(body, dict) and "email" in body:
        request.state.check_caller = replace(db, max_age=settings.fresh_login).current_user
    return db


ProfileDb = Annotated[CallerDb, Depends(get_profile_database)]
