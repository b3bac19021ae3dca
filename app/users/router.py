"""/users: registration, one's own account, everyone's for administrators, and recovery."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import RowMapping

from app.auth.dependencies import (
    BEARER_ERRORS,
    AccountUser,
    AdminUser,
    AppLimiter,
    AppPasswords,
    AppTokens,
    LoginClient,
    TokenGrants,
)
from app.auth.errors import HashingQueueFull, InsufficientScope, InvalidResetToken, TooManyAttempts, WrongPassword
from app.auth.throttle import count
from app.bodies import JSONRoute
from app.clock import Now
from app.columns import PathId
from app.config import AppSettings
from app.database import DatabaseUnavailable, Db
from app.errors import describe
from app.events import record
from app.pagination import NEXT
from app.users import service
from app.users.dependencies import AppDeletions
from app.users.errors import (
    LastAdministrator,
    RegistrationClosed,
    ResetNotSent,
    UserDisabled,
    UsernameTaken,
    UserNotFound,
)
from app.users.recovery import TTL, check_account, make_reset, read_reset_token, send
from app.users.schemas import (
    PasswordChange,
    PasswordReset,
    ResetToken,
    UserChange,
    UserCreate,
    UserPage,
    UserQuery,
    UserRead,
    UserUpdate,
)

router = APIRouter(prefix="/users", tags=["users"], route_class=JSONRoute)

BUSY = (TooManyAttempts, HashingQueueFull, DatabaseUnavailable)
REGISTER_ERRORS = describe(UsernameTaken, RegistrationClosed, *BUSY)
PASSWORD_ERRORS = BEARER_ERRORS | describe(InsufficientScope, WrongPassword, *BUSY)
RESET_ERRORS = describe(InvalidResetToken, HashingQueueFull, DatabaseUnavailable)
DELETE_ERRORS = BEARER_ERRORS | describe(LastAdministrator)
ADMIN_ERRORS = BEARER_ERRORS | describe(UserNotFound)


@router.post("/", status_code=201, response_model=UserRead, responses=REGISTER_ERRORS)
@router.post("", status_code=201, response_model=UserRead, include_in_schema=False)
async def register(
    fields: UserCreate,
    settings: AppSettings,
    limiter: AppLimiter,
    client: LoginClient,
    passwords: AppPasswords,
    db: Db,
    now: Now,
) -> RowMapping:
    """Make an account, while registration is open."""
    if settings.registration == "closed":
        raise RegistrationClosed
    if limit := limiter.registration(client.ip):
        with limiter.once_a_second(limit, now):
            await db.write(count, limit, now)
    password_hash = await passwords.hash(fields.password, fields.username)
    user = await db.write(service.create_user, fields.username, password_hash, now, email=fields.email)
    record("user_registered", user_id=user["id"])
    return user


@router.get("/me", response_model=UserRead, responses=BEARER_ERRORS)
async def read_profile(user: AccountUser, db: Db) -> RowMapping:
    """Read your profile."""
    return await db.read(service.get_profile, user)


@router.patch("/me", response_model=UserRead, responses=BEARER_ERRORS)
async def change_profile(changes: UserUpdate, user: AccountUser, db: Db, now: Now) -> RowMapping:
    """Change the fields that are given; null clears."""
    return await db.write(service.update_profile, user, changes, now)


@router.put("/me/password", status_code=204, responses=PASSWORD_ERRORS)
async def set_password(
    fields: PasswordChange, user: AccountUser, grants: TokenGrants, passwords: AppPasswords, db: Db, now: Now
) -> None:
    """Change your password. Every other session of yours ends."""
    old_hash = await grants.confirm_password(user, fields.current_password)
    new_hash = await passwords.hash(fields.new_password, user.username)
    await db.write(service.change_password, user, old_hash, new_hash, now)
    record("password_changed")


@router.delete("/me", status_code=204, responses=DELETE_ERRORS)
async def delete_account(user: AccountUser, db: Db, deletions: AppDeletions, now: Now) -> None:
    """Delete your account, with your tasks and sessions. It is gone at once; many rows take some time after that."""
    has_rows = await db.write(service.delete_profile, user, now)
    record("user_deleted")
    if has_rows:
        deletions.start()


@router.post("/reset-password", status_code=204, responses=RESET_ERRORS)
async def reset_password(
    fields: PasswordReset,
    tokens: AppTokens,
    passwords: AppPasswords,
    limiter: AppLimiter,
    client: LoginClient,
    db: Db,
    now: Now,
) -> None:
    """Set a new password with a reset token. Every session of yours ends."""
    claims = read_reset_token(tokens, fields.reset_token, now)
    account = check_account(await db.read(service.find_account, claims.sub), claims)
    new_hash = await passwords.hash(fields.new_password, account.username)
    await db.write(service.replace_password, account, new_hash, limiter.login(account.username, client.ip), now)
    record("password_reset", user_id=account.id)


@router.get("/", response_model=UserPage, responses={200: NEXT, **BEARER_ERRORS})
@router.get("", response_model=UserPage, include_in_schema=False)
async def list_users(_: AdminUser, query: Annotated[UserQuery, Query()], db: Db, request: Request) -> Response:
    """List everyone, or those whose usernames begin so, by username. For administrators."""
    page = await db.read(service.list_users, query)
    return page.response(request, query)


@router.get("/{user_id}", response_model=UserRead, responses=ADMIN_ERRORS)
async def read_user(user_id: PathId, _: AdminUser, db: Db) -> RowMapping:
    """Read a user. For administrators."""
    return await db.read(service.get_user, user_id)


@router.patch("/{user_id}", response_model=UserRead, responses=ADMIN_ERRORS | describe(LastAdministrator))
async def change_user(user_id: PathId, changes: UserChange, _: AdminUser, db: Db, now: Now) -> RowMapping:
    """Disable, promote, or the opposite. Disabling ends every session of theirs. For administrators."""
    user = await db.write(service.change_user, user_id, changes, now)
    if changes:
        reason = ", ".join(f"{name}={value}" for name, value in changes.items())
        record("user_changed", target_id=user_id, reason=reason)
    return user


@router.delete("/{user_id}", status_code=204, responses=ADMIN_ERRORS | describe(LastAdministrator))
async def delete_user(user_id: PathId, _: AdminUser, db: Db, deletions: AppDeletions, now: Now) -> None:
    """Delete a user, with their tasks and sessions. For administrators."""
    has_rows = await db.write(service.delete_user, user_id, now)
    record("user_deleted", target_id=user_id)
    if has_rows:
        deletions.start()


@router.delete("/{user_id}/sessions", status_code=204, responses=ADMIN_ERRORS)
async def end_user_sessions(user_id: PathId, _: AdminUser, db: Db, now: Now) -> None:
    """End every session of a user. For administrators."""
    await db.write(service.end_sessions, user_id, now)
    record("session_revoked", target_id=user_id, reason="all")


@router.post("/{user_id}/reset-token", status_code=201, responses=ADMIN_ERRORS | describe(UserDisabled, ResetNotSent))
async def issue_reset_token(
    user_id: PathId, _: AdminUser, settings: AppSettings, tokens: AppTokens, db: Db, now: Now
) -> ResetToken:
    """Make a token with which a user sets a new password, once, within an hour. For administrators."""
    account = await db.read(service.get_account, user_id)
    reset = make_reset(tokens, account, now)
    record("reset_token_issued", target_id=user_id)
    if settings.reset_hook:
        await send(settings.reset_hook, reset)
    return ResetToken(reset_token=reset.reset_token, expires_in=int(TTL.total_seconds()))
