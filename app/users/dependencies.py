"""Who may change a profile."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request

from app.auth.access import UserDb
from app.auth.dependencies import AccountDb
from app.config import AppSettings


async def get_profile_database(request: Request, user: AccountDb, settings: AppSettings) -> UserDb:
    """Have a body with an e-mail address that is no valid change refused for the login's age first."""
    body = getattr(request, "parsed", None)
    if isinstance(body, dict) and "email" in body:
        request.state.user = replace(user, max_age=settings.fresh_login)
    return user


ProfileDb = Annotated[UserDb, Depends(get_profile_database)]
