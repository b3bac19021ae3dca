"""The rules of accounts. Each method does one thing, and logs its event."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping

from app.auth.access import AdminDatabase, CallerDatabase
from app.auth.login_service import LoginService
from app.auth.logins import LoginOrigin
from app.auth.services import Services
from app.auth.sessions import end_own_session
from app.db.database import Database
from app.observe.events import log_event
from app.users import service
from app.users.errors import RegistrationClosed
from app.users.recovery import Reset, issue_reset, read_reset_token, replace_password, require_unchanged, send
from app.users.schemas import NewUser, PasswordChange, PasswordReset, PasswordSet, UserChange, UserCreate, UserUpdate


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everybody's actions on their own accounts."""

    services: Services
    origin: LoginOrigin
    now: datetime

    async def register(self, fields: UserCreate) -> RowMapping:
        """Make an account, while registration is open.

        Raises:
            RegistrationClosed, TooManyAttempts, WeakPassword, HashingQueueFull, UsernameTaken
        """
        if self.services.settings.registration == "closed":
            raise RegistrationClosed
        if limit := self.services.limiter.registration(self.origin.network):
            await self.services.limiter.count(self.services.database, limit, self.now)
        return await _create(self.services, fields, self.now, self.origin.network)

    async def change_profile(self, db: CallerDatabase, changes: UserUpdate) -> RowMapping:
        """Change the caller's profile.

        Raises:
            StaleLogin: the e-mail address would change, and the login is too old for that.
        """
        fresh_login = self.services.settings.fresh_login
        profile, is_other_address = await db.write(service.update_profile, changes, self.now, fresh_login)
        if is_other_address:
            log_event("email_changed")
        return profile

    async def change_password(self, db: CallerDatabase, fields: PasswordChange) -> None:
        """Set the caller's password, and end every other session of theirs.

        Raises:
            WrongPassword, TooManyAttempts, WeakPassword, HashingQueueFull
        """
        user = await db.current_user()
        logins = LoginService(self.services, self.origin, self.now)
        account = await logins.confirm_password(user, fields.current_password)
        new_hash = await self.services.passwords.hash(
            fields.new_password, user.username, account.email, self.origin.network
        )
        await db.write(service.change_password, account.password_hash, new_hash, self.now)
        log_event("password_changed")

    async def reset_password(self, fields: PasswordReset) -> None:
        """Set a new password with a reset token, and end every session of the account.

        Raises:
            InvalidResetToken, WeakPassword, HashingQueueFull
        """
        db, limiter = self.services.database, self.services.limiter
        claims = read_reset_token(self.services.tokens, fields.reset_token, self.now)
        account = await db.read(require_unchanged, claims)
        new_hash = await self.services.passwords.hash(
            fields.new_password, account.username, account.email, self.origin.network
        )
        await db.write(replace_password, account, new_hash, limiter.account(account.id), self.now)
        log_event("password_reset", user_id=account.id)

    async def delete(self, db: CallerDatabase) -> None:
        """Delete the caller's account. Its rows are deleted in the background. Raises StaleLogin, LastAdministrator."""
        has_rows = await db.write(service.delete_profile, self.now)
        log_event("user_deleted")
        if has_rows:
            self.services.deletions.wake()


@dataclass(frozen=True, slots=True)
class Administration:
    """Actions on any account, by administrators and the command line.

    `db` is the database of an administrator, which checks the caller in each transaction, or that of the command line.
    """

    services: Services
    db: AdminDatabase | Database
    now: datetime

    async def add(self, fields: NewUser, *, is_admin: bool) -> None:
        """Make an account, even if registration is closed. Raises WeakPassword, UsernameTaken."""
        await _create(self.services, fields, self.now, network="", is_admin=is_admin)

    async def change(self, user_id: str, changes: UserChange) -> RowMapping:
        """Disable, enable, promote or demote a user. Raises UserNotFound, LastAdministrator."""
        counters = self.services.limiter.account(user_id)
        user = await self.db.write(service.change_user, user_id, changes, self.now, counters)
        if changes:
            reason = ", ".join(f"{name}={value}" for name, value in changes.items())
            log_event("user_changed", target_id=user_id, reason=reason)
        return user

    async def set_password(self, user: RowMapping, fields: PasswordSet) -> None:
        """Set a user's password, and end every session of theirs. Raises WeakPassword, UserNotFound."""
        new_hash = await self.services.passwords.hash(fields.new_password, user["username"], user["email"], network="")
        counters = self.services.limiter.account(user["id"])
        await self.db.write(service.set_password, user["id"], new_hash, counters, self.now)
        log_event("password_changed", target_id=user["id"])

    async def issue_reset(self, user_id: str) -> Reset:
        """Make a reset token. If `RESET_HOOK` is set, send it to the user.

        Raises:
            UserNotFound, UserDisabled, ResetNotSent
        """
        reset = await self.db.write(issue_reset, self.services.tokens, user_id, self.now)
        log_event("reset_token_issued", target_id=user_id)
        if self.services.settings.reset_hook:
            await send(self.services.settings.reset_hook, reset)
        return reset

    async def unlock(self, user_id: str) -> None:
        """Forget the failed logins of a user. Raises UserNotFound."""
        await self.db.write(service.unlock, user_id, self.services.limiter.account(user_id))
        log_event("user_unlocked", target_id=user_id)

    async def end_session(self, user_id: str, session_id: str) -> None:
        """End one session of a user. Raises SessionNotFound."""
        await self.db.write(end_own_session, user_id, session_id, self.now)
        log_event("session_revoked", target_id=user_id, session_id=session_id)

    async def end_sessions(self, user_id: str) -> None:
        """End every session of a user. Raises UserNotFound."""
        await self.db.write(service.end_sessions, user_id, self.now)
        log_event("session_revoked", target_id=user_id, reason="all")

    async def delete(self, user_id: str) -> None:
        """Delete a user. The rows of the account are deleted in the background.

        Raises:
            UserNotFound, LastAdministrator
        """
        has_rows = await self.db.write(service.delete_user, user_id, self.now)
        log_event("user_deleted", target_id=user_id)
        if has_rows:
            self.services.deletions.wake()


async def _create(
    services: Services, fields: NewUser, now: datetime, network: str, *, is_admin: bool = False
) -> RowMapping:
    password_hash = await services.passwords.hash(fields.password, fields.username, fields.email, network)
    user = await services.database.write(
        service.create_user, fields.username, password_hash, now, email=fields.email, is_admin=is_admin
    )
    log_event("user_registered", user_id=user["id"])
    return user
