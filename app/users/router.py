"""/users: registration and one's own account."""

from fastapi import APIRouter
from sqlalchemy import RowMapping

from app.auth.dependencies import BEARER_ERRORS, AccountUser, AppLimiter, AppPasswords, LoginClient, TokenGrants
from app.auth.errors import HashingQueueFull, InsufficientScope, TooManyAttempts, WrongPassword
from app.auth.throttle import count
from app.bodies import JSONRoute
from app.clock import Now
from app.config import AppSettings
from app.database import DatabaseUnavailable, Db
from app.errors import describe
from app.events import record
from app.users.errors import RegistrationClosed, UsernameTaken
from app.users.schemas import PasswordChange, UserCreate, UserRead, UserUpdate
from app.users.service import (
    change_password,
    create_user,
    delete_user,
    get_profile,
    update_profile,
)

router = APIRouter(prefix="/users", tags=["users"], route_class=JSONRoute)

BUSY = (TooManyAttempts, HashingQueueFull, DatabaseUnavailable)
REGISTER_ERRORS = describe(UsernameTaken, RegistrationClosed, *BUSY)
PASSWORD_ERRORS = BEARER_ERRORS | describe(InsufficientScope, WrongPassword, *BUSY)


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
    user = await db.write(create_user, fields.username, password_hash, now, email=fields.email)
    record("user_registered", user_id=user["id"])
    return user


@router.get("/me", response_model=UserRead, responses=BEARER_ERRORS)
async def read_profile(user: AccountUser, db: Db) -> RowMapping:
    """Read your profile."""
    return await db.read(get_profile, user)


@router.patch("/me", response_model=UserRead, responses=BEARER_ERRORS)
async def change_profile(changes: UserUpdate, user: AccountUser, db: Db, now: Now) -> RowMapping:
    """Change the fields that are given; null clears."""
    return await db.write(update_profile, user, changes, now)


@router.put("/me/password", status_code=204, responses=PASSWORD_ERRORS)
async def set_password(
    fields: PasswordChange, user: AccountUser, grants: TokenGrants, passwords: AppPasswords, db: Db, now: Now
) -> None:
    """Change your password. Every other session of yours ends."""
    old_hash = await grants.confirm_password(user, fields.current_password)
    new_hash = await passwords.hash(fields.new_password, user.username)
    await db.write(change_password, user, old_hash, new_hash, now)
    record("password_changed")


@router.delete("/me", status_code=204, responses=BEARER_ERRORS)
async def delete_account(user: AccountUser, db: Db) -> None:
    """Delete your account, with your tasks and sessions."""
    await db.write(delete_user, user.user_id)
    record("user_deleted")
