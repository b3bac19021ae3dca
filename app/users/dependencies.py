"""Dependencies of the endpoints of users."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request

from app.auth.access import CallerDatabase
from app.auth.dependencies import AccountDb, AdminDb, AppServices, AppSettings, RequestOrigin
from app.clock import Now
from app.users.accounts import Accounts, Administration


async def get_profile_database(request: Request, db: AccountDb, settings: AppSettings) -> CallerDatabase:
    """Check the age of the login before the body, if the body has an e-mail address, valid or not."""
    body = getattr(request, "parsed", None)
    if isinstance(body, dict) and "email" in body:
        request.state.check_caller = replace(db, max_age=settings.fresh_login).current_user
    return db


async def get_accounts(services: AppServices, origin: RequestOrigin, now: Now) -> Accounts:
    return Accounts(services, origin, now)


async def get_administration(services: AppServices, db: AdminDb, now: Now) -> Administration:
    return Administration(services, db, now)


ProfileDb = Annotated[CallerDatabase, Depends(get_profile_database)]
AppAccounts = Annotated[Accounts, Depends(get_accounts)]
AppAdministration = Annotated[Administration, Depends(get_administration)]
