"""/users: registration, one's own account, everyone's for administrators, and recovery."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import RowMapping

from app.auth.dependencies import (
    AccountDb,
    AdminDb,
    AppLoginService,
    AppServices,
    FreshAccountDb,
    RequestOrigin,
    UserRoute,
)
from app.auth.errors import (
    HashingQueueFull,
    InvalidResetToken,
    StaleLogin,
    TooManyAttempts,
    WeakPassword,
    WrongPassword,
)
from app.clock import Now
from app.config import AppSettings
from app.db.types import PathId
from app.http.openapi import describe
from app.observe.events import log_event
from app.pagination.page import PAGE
from app.users import service
from app.users.dependencies import ProfileDb
from app.users.errors import (
    LastAdministrator,
    RegistrationClosed,
    ResetNotSent,
    UserDisabled,
    UsernameTaken,
    UserNotFound,
)
from app.users.recovery import TTL, check_account, issue_reset, read_reset_token, send
from app.users.schemas import (
    PasswordChange,
    PasswordReset,
    ResetSent,
    ResetToken,
    UserChange,
    UserCreate,
    UserPage,
    UserQuery,
    UserRead,
    UserUpdate,
)

router = APIRouter(prefix="/users", tags=["users"], route_class=UserRoute)

REGISTER_ERRORS = describe(UsernameTaken, RegistrationClosed, WeakPassword, TooManyAttempts, HashingQueueFull)
PASSWORD_ERRORS = describe(WrongPassword, WeakPassword, TooManyAttempts, HashingQueueFull)
RESET_ERRORS = describe(InvalidResetToken, WeakPassword, HashingQueueFull)
SENT: dict[int | str, dict[str, Any]] = {
    202: {"model": ResetSent, "description": "The token has been sent to the user"}
}


@router.post("", status_code=201, response_model=UserRead, responses=REGISTER_ERRORS)
@router.post("/", status_code=201, response_model=UserRead, include_in_schema=False)
async def register(fields: UserCreate, services: AppServices, client: RequestOrigin, now: Now) -> RowMapping:
    """Make an account, while registration is open."""
    if services.settings.registration == "closed":
        raise RegistrationClosed
    if limit := services.limiter.registration(client.network):
        await services.limiter.count(services.database, limit, now)
    password_hash = await services.passwords.hash(fields.password, fields.username, fields.email, client.network)
    user = await services.database.write(service.create_user, fields.username, password_hash, now, email=fields.email)
    log_event("user_registered", user_id=user["id"])
    return user


@router.get("/me", response_model=UserRead)
async def read_profile(db: AccountDb) -> RowMapping:
    """Read your profile."""
    return await db.read(service.get_profile)


@router.patch("/me", response_model=UserRead, responses=describe(StaleLogin))
async def change_profile(changes: UserUpdate, db: ProfileDb, settings: AppSettings, now: Now) -> RowMapping:
    """Change the fields that are given; null clears. To change the e-mail address takes a fresh login (RFC 9470)."""
    profile, is_another_address = await db.write(service.update_profile, changes, now, settings.fresh_login)
    if is_another_address:
        log_event("email_changed")
    return profile


@router.put("/me/password", status_code=204, responses=PASSWORD_ERRORS)
async def set_password(
    fields: PasswordChange,
    db: AccountDb,
    grants: AppLoginService,
    client: RequestOrigin,
    services: AppServices,
    now: Now,
) -> None:
    """Change your password. Every other session of yours ends."""
    user = await db.current_user()
    account = await grants.confirm_password(user, fields.current_password)
    new_hash = await services.passwords.hash(fields.new_password, user.username, account.email, client.network)
    await db.write(service.change_password, account.password_hash, new_hash, now)
    log_event("password_changed")


@router.delete("/me", status_code=204, responses=describe(StaleLogin, LastAdministrator))
async def delete_account(db: FreshAccountDb, services: AppServices, now: Now) -> None:
    """Delete your account, with your tasks and sessions. It takes a fresh login (RFC 9470).

    The account is gone at once. To delete its rows may take some time after that.
    """
    has_rows = await db.write(service.delete_profile, now)
    log_event("user_deleted")
    if has_rows:
        services.deletions.wake()


@router.post("/reset-password", status_code=204, responses=RESET_ERRORS)
async def reset_password(fields: PasswordReset, services: AppServices, client: RequestOrigin, now: Now) -> None:
    """Set a new password with a reset token. Every session of yours ends."""
    claims = read_reset_token(services.tokens, fields.reset_token, now)
    account = await services.database.read(service.get_account, claims.sub, InvalidResetToken)
    check_account(account, claims)
    new_hash = await services.passwords.hash(fields.new_password, account.username, account.email, client.network)
    await services.database.write(
        service.replace_password, account, new_hash, services.limiter.account(account.id), now
    )
    log_event("password_reset", user_id=account.id)


@router.get("", response_model=UserPage, responses=PAGE)
@router.get("/", response_model=UserPage, include_in_schema=False)
async def list_users(db: AdminDb, query: Annotated[UserQuery, Query()], request: Request) -> Response:
    """List everyone, or those whose usernames begin so, by username. For administrators."""
    page = await db.read(service.list_users, query)
    return page.response(request, query)


@router.get("/{user_id}", response_model=UserRead, responses=describe(UserNotFound))
async def read_user(user_id: PathId, db: AdminDb) -> RowMapping:
    """Read a user. For administrators."""
    return await db.read(service.get_user, user_id)


@router.patch("/{user_id}", response_model=UserRead, responses=describe(UserNotFound, LastAdministrator))
async def change_user(user_id: PathId, changes: UserChange, db: AdminDb, services: AppServices, now: Now) -> RowMapping:
    """Disable, promote, or the opposite. For administrators.

    Disabling ends every session of theirs, and demoting those that have the scope `admin`. Enabling also forgets failed
    logins, as `unlock` does.
    """
    user = await db.write(service.change_user, user_id, changes, now, services.limiter.account(user_id))
    if changes:
        reason = ", ".join(f"{name}={value}" for name, value in changes.items())
        log_event("user_changed", target_id=user_id, reason=reason)
    return user


@router.delete("/{user_id}", status_code=204, responses=describe(UserNotFound, LastAdministrator))
async def delete_user(user_id: PathId, db: AdminDb, services: AppServices, now: Now) -> None:
    """Delete a user, with their tasks and sessions. For administrators."""
    has_rows = await db.write(service.delete_user, user_id, now)
    log_event("user_deleted", target_id=user_id)
    if has_rows:
        services.deletions.wake()


@router.delete("/{user_id}/sessions", status_code=204, responses=describe(UserNotFound))
async def end_user_sessions(user_id: PathId, db: AdminDb, now: Now) -> None:
    """End every session of a user. For administrators."""
    await db.write(service.end_sessions, user_id, now)
    log_event("session_revoked", target_id=user_id, reason="all")


@router.post("/{user_id}/unlock", status_code=204, responses=describe(UserNotFound))
async def unlock_user(user_id: PathId, db: AdminDb, services: AppServices) -> None:
    """Forget the failed logins of a user. Addresses that have failed with too many accounts must still wait.

    For administrators.
    """
    await db.write(service.unlock, user_id, services.limiter.account(user_id))
    log_event("user_unlocked", target_id=user_id)


@router.post(
    "/{user_id}/reset-token",
    status_code=201,
    response_model=ResetToken,
    responses=describe(UserNotFound, UserDisabled, ResetNotSent) | SENT,
)
async def issue_reset_token(user_id: PathId, db: AdminDb, services: AppServices, now: Now) -> Response:
    """Make a token with which a user sets a new password, once, within an hour. For administrators.

    It voids the token before. Where `RESET_HOOK` is set, it sends the token to the user, and the answer is 202 without
    it: administrators do not choose passwords.
    """
    reset = await db.write(issue_reset, services.tokens, user_id, now)
    log_event("reset_token_issued", target_id=user_id)
    expires_in = int(TTL.total_seconds())
    if services.settings.reset_hook:
        await send(services.settings.reset_hook, reset)
        return JSONResponse(ResetSent(expires_in=expires_in).model_dump(), 202)
    return JSONResponse(ResetToken(reset_token=reset.reset_token, expires_in=expires_in).model_dump(), 201)
