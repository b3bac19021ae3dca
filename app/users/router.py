"""/users: registration, your own account, recovery, and everybody's accounts for administrators."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import RowMapping
from starlette.background import BackgroundTask

from app.auth import errors as auth
from app.auth import second_factor
from app.auth.access import CallerDatabase
from app.auth.account_events import list_events as read_events
from app.auth.dependencies import AccountDb, AdminDb, AppServices, AppSettings, FreshAccountDb, RequestOrigin
from app.auth.schemas import EventPage, TokenResponse
from app.clock import Now
from app.http.fields import PathId
from app.http.openapi import describe
from app.http.planned_route import PlannedRoute
from app.http.router import Router
from app.pagination.page import PAGE, PageQuery
from app.users import addresses, errors, recovery, schemas, service
from app.users.accounts import Accounts, Administration
from app.users.mailing import Mailing

router = Router(prefix="/users", tags=["users"], route_class=PlannedRoute)

HASHING_ERRORS = auth.WeakPassword, auth.HashingQueueFull
REGISTER_ERRORS = describe(errors.UsernameTaken, errors.RegistrationClosed, auth.TooManyAttempts, *HASHING_ERRORS)
PASSWORD_ERRORS = describe(auth.StaleLogin, auth.WrongPassword, auth.TooManyAttempts, *HASHING_ERRORS)
TOTP_ERRORS = describe(auth.StaleLogin, auth.WrongCode, auth.TOTPNotSetUp, auth.TOTPActive)
RESET_ERRORS = describe(auth.InvalidResetToken, *HASHING_ERRORS)
CHANGE_ERRORS = describe(errors.UserNotFound, errors.LastAdministrator)
TOKEN_ANSWERS = describe(errors.UserNotFound, errors.UserDisabled) | {
    202: {"model": schemas.TokenMailed, "description": "The token goes to the user by mail"}
}
SEND_ERRORS = describe(errors.MailNotConfigured, errors.NothingToVerify, auth.TooManyAttempts)
VERIFY_ERRORS = describe(errors.InvalidVerificationToken, errors.MailNotConfigured, errors.EmailTaken)


async def get_profile_database(request: Request, db: AccountDb, settings: AppSettings) -> CallerDatabase:
    """Check the age of the login before the body, if the body has an e-mail address, valid or not."""
    body = getattr(request, "parsed", None)
    if isinstance(body, dict) and "email" in body:
        request.state.check_caller = replace(db, max_age=settings.fresh_login).current_user
    return db


async def get_accounts(services: AppServices, origin: RequestOrigin, now: Now) -> Accounts:
    return Accounts(services, origin, now)


async def get_mailing(services: AppServices, origin: RequestOrigin, now: Now) -> Mailing:
    return Mailing(services, origin, now)


async def get_administration(services: AppServices, db: AdminDb, now: Now) -> Administration:
    return Administration(services, db, now)


ProfileDb = Annotated[CallerDatabase, Depends(get_profile_database)]
AppAccounts = Annotated[Accounts, Depends(get_accounts)]
AppMailing = Annotated[Mailing, Depends(get_mailing)]
AppAdministration = Annotated[Administration, Depends(get_administration)]


@router.post("", status_code=201, response_model=schemas.UserRead, responses=REGISTER_ERRORS)
async def register(fields: schemas.UserCreate, accounts: AppAccounts) -> RowMapping:
    """Make an account, while registration is open."""
    return await accounts.register(fields)


@router.get("/me", response_model=schemas.UserRead)
async def read_profile(db: AccountDb) -> RowMapping:
    """Read your profile."""
    return await db.read(service.get_profile)


@router.patch("/me", response_model=schemas.UserRead, responses=describe(auth.StaleLogin))
async def change_profile(changes: schemas.UserUpdate, db: ProfileDb, accounts: AppAccounts) -> RowMapping:
    """Change the given fields. Null clears a field. A change of the e-mail address needs a fresh login (RFC 9470)."""
    return await accounts.change_profile(db, changes)


@router.put("/me/password", responses=PASSWORD_ERRORS)
async def set_password(fields: schemas.PasswordChange, db: AccountDb, accounts: AppAccounts) -> TokenResponse:
    """Change your password. Your sessions end, and the answer has the tokens of one that goes on in place of this one.

    Personal tokens stay. With a personal token nobody can change the password: log in.
    """
    return await accounts.change_password(db, fields)


@router.get("/me/events", response_model=EventPage, responses=PAGE)
async def list_events(db: AccountDb, query: Annotated[PageQuery, Query()], request: Request) -> Response:
    """List what has concerned the security of your account in the last 90 days, the latest first.

    `ip` and `user_agent` are null where the client was not yours: an administrator has done it.
    """
    page = await db.read(lambda connection, user: read_events(connection, user.user_id, query, db.moment))
    return page.response(request, query)


@router.post(
    "/me/totp", status_code=201, response_model=schemas.TOTPSetup, responses=describe(auth.StaleLogin, auth.TOTPActive)
)
async def set_up_totp(db: FreshAccountDb, services: AppServices) -> dict[str, str]:
    """Set up a second factor (RFC 6238). It needs a fresh login, and a code of yours to become active.

    Put the secret into an authenticator app. A repeat makes another secret, until the factor is active.
    """
    return await db.write(second_factor.set_up, services.one_time_codes)


@router.put("/me/totp", response_model=schemas.RecoveryCodes, responses=TOTP_ERRORS)
async def activate_totp(
    fields: schemas.TOTPActivation, db: FreshAccountDb, accounts: AppAccounts
) -> schemas.RecoveryCodes:
    """Activate the second factor with its first code. From now on each login needs an `otp`.

    No session ends. Each recovery code works once in place of a code.
    """
    return schemas.RecoveryCodes(recovery_codes=await accounts.activate_totp(db, fields))


@router.delete("/me/totp", status_code=204, responses=describe(auth.StaleLogin))
async def remove_totp(db: FreshAccountDb, accounts: AppAccounts) -> None:
    """Remove your second factor, with its recovery codes. This needs a fresh login (RFC 9470)."""
    await accounts.remove_totp(db)


@router.delete("/me", status_code=204, responses=describe(auth.StaleLogin, errors.LastAdministrator))
async def delete_account(db: FreshAccountDb, accounts: AppAccounts) -> None:
    """Delete your account, with your tasks and sessions. This needs a fresh login (RFC 9470).

    The account is gone at once. The service may take some time to delete all its rows.
    """
    await accounts.delete(db)


@router.post("/me/verify-email", status_code=202, response_model=schemas.TokenMailed, responses=SEND_ERRORS)
async def send_verification(db: AccountDb, mailing: AppMailing) -> dict[str, int]:
    """Get a mail with a token that verifies your e-mail address. One a minute is sent, and five an hour."""
    await mailing.send_verification(db)
    return {"expires_in": addresses.TTL}


@router.post("/verify-email", status_code=204, responses=VERIFY_ERRORS)
async def verify_email(fields: schemas.AddressVerification, mailing: AppMailing) -> None:
    """Verify an e-mail address with the token that was mailed to it.

    The address then logs in as the username does, and gets reset tokens and notices. One account at most can verify an
    address.
    """
    await mailing.verify_address(fields.verification_token)


@router.post(
    "/forgot-password",
    status_code=202,
    response_model=schemas.TokenMailed,
    responses=describe(errors.MailNotConfigured),
)
async def forgot_password(fields: schemas.ForgottenPassword, mailing: AppMailing) -> Response:
    """Ask for a mail with a token that sets a new password.

    The answer is the same whether the user exists or not. The mail goes to the verified e-mail address of the user, if
    there is one: one a minute and five an hour, and thirty an hour for one address of clients.
    """
    mailing.outbox()
    later = BackgroundTask(mailing.send_reset, fields.username.strip())
    return JSONResponse({"expires_in": recovery.TTL}, 202, background=later)


@router.post("/reset-password", status_code=204, responses=RESET_ERRORS)
async def reset_password(fields: schemas.PasswordReset, accounts: AppAccounts) -> None:
    """Set a new password with a reset token. All your sessions and personal tokens end."""
    await accounts.reset_password(fields)


@router.get("", response_model=schemas.UserPage, responses=PAGE)
async def list_users(db: AdminDb, query: Annotated[schemas.UserQuery, Query()], request: Request) -> Response:
    """List users by username. For administrators."""
    page = await db.read(service.list_users, query)
    return page.response(request, query)


@router.get("/{user_id}", response_model=schemas.UserRead, responses=describe(errors.UserNotFound))
async def read_user(user_id: PathId, db: AdminDb) -> RowMapping:
    """Read a user. For administrators."""
    return await db.read(service.get_user, user_id)


@router.patch("/{user_id}", response_model=schemas.UserRead, responses=CHANGE_ERRORS)
async def change_user(user_id: PathId, changes: schemas.UserChange, administration: AppAdministration) -> RowMapping:
    """Disable or enable a user, or grant or withdraw administrator rights. For administrators.

    Disabling ends all sessions and personal tokens of the user. Withdrawing rights ends those that have the scope
    `admin`. Enabling also forgets failed logins, as `unlock` does.
    """
    return await administration.change(user_id, changes)


@router.delete("/{user_id}", status_code=204, responses=CHANGE_ERRORS)
async def delete_user(user_id: PathId, administration: AppAdministration) -> None:
    """Delete a user, with their tasks and sessions. For administrators."""
    await administration.delete(user_id)


@router.delete("/{user_id}/sessions", status_code=204, responses=describe(errors.UserNotFound))
async def end_user_sessions(user_id: PathId, administration: AppAdministration) -> None:
    """End all sessions and personal tokens of a user. For administrators."""
    await administration.end_sessions(user_id)


@router.delete("/{user_id}/totp", status_code=204, responses=describe(errors.UserNotFound))
async def remove_user_totp(user_id: PathId, administration: AppAdministration) -> None:
    """Remove the second factor of a user who has lost it. For administrators."""
    await administration.remove_totp(user_id)


@router.post("/{user_id}/unlock", status_code=204, responses=describe(errors.UserNotFound))
async def unlock_user(user_id: PathId, administration: AppAdministration) -> None:
    """Forget the failed logins of a user. For administrators.

    Addresses that have failed with too many accounts must still wait.
    """
    await administration.unlock(user_id)


@router.post("/{user_id}/reset-token", status_code=201, response_model=schemas.ResetToken, responses=TOKEN_ANSWERS)
async def issue_reset_token(user_id: PathId, administration: AppAdministration) -> Response:
    """Make a token with which a user sets a new password, once, within an hour. For administrators.

    It voids the token before. If the service sends mail and the user has a verified address, the token goes there, and
    the answer is 202 without it: administrators do not choose passwords.
    """
    token = await administration.issue_reset(user_id)
    if token is None:
        return JSONResponse({"expires_in": recovery.TTL}, 202)
    return JSONResponse({"expires_in": recovery.TTL, "reset_token": token}, 201)
