"""The rules of accounts. Each method does one thing, and logs its event."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping

from app.auth import second_factor
from app.auth.access import AdminDatabase, CallerDatabase
from app.auth.errors import StaleLogin
from app.auth.issuing import issue_tokens
from app.auth.liveness import Moment
from app.auth.login_service import LoginService
from app.auth.networks import LoginOrigin
from app.auth.notices import notify
from app.auth.schemas import TokenResponse
from app.auth.scopes import format_scope
from app.auth.services import Services
from app.auth.sessions import ENDS, Kind, end_own_session, end_tokens_of
from app.db.database import Database
from app.mail.templates import Notice, notice
from app.observe.events import log_event
from app.users import recovery, service
from app.users.errors import RegistrationClosed
from app.users.mailing import mail_reset, mail_verification
from app.users.schemas import (
    NewUser,
    PasswordChange,
    PasswordReset,
    PasswordSet,
    TOTPActivation,
    UserChange,
    UserCreate,
    UserUpdate,
)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everybody's actions on their own accounts."""

    services: Services
    origin: LoginOrigin
    now: datetime

    async def register(self, fields: UserCreate) -> RowMapping:
        """Make an account, as `add` does. Raises RegistrationClosed, TooManyAttempts too."""
        if self.services.settings.registration == "closed":
            raise RegistrationClosed
        if limit := self.services.limiter.registration(self.origin.network):
            await self.services.limiter.count(self.services.database, self.now, limit)
        administration = Administration(self.services, self.services.database, self.now)
        return await administration.add(fields, self.origin.network)

    async def change_profile(self, db: CallerDatabase, changes: UserUpdate) -> RowMapping:
        """Change the caller's profile. Raises StaleLogin: the login is too old for another e-mail address."""
        fresh_login, mail = self.services.settings.fresh_login, self.services.mail
        profile, before = await db.write(service.update_profile, changes, self.now, fresh_login, self.origin)
        if profile["email"] != before["email"]:
            log_event("email_changed")
            if mail and before["email_verified"]:
                mail.send(notice(before["email"], before["username"], Notice.EMAIL_CHANGED))
        return profile

    async def change_password(self, db: CallerDatabase, fields: PasswordChange) -> TokenResponse:
        """Set the caller's password, and end every login of theirs. Return the tokens of the session that goes on.

        Raises StaleLogin, WrongPassword, TooManyAttempts, WeakPassword, HashingQueueFull.
        """
        user = await db.current_user()
        if user.logged_in_at is None:
            raise StaleLogin(self.services.settings.fresh_login)
        logins = LoginService(self.services, self.origin, self.now)
        account = await logins.confirm_password(user, fields.current_password)
        passwords, network = self.services.passwords, self.origin.network
        new_hash = await passwords.hash(fields.new_password, user.username, account.email, network)
        values = account.password_hash, new_hash, db.moment, self.origin
        session = await db.write(service.change_password, *values)
        log_event("password_changed")
        notify(self.services, user.user_id, Notice.PASSWORD_CHANGED)
        return issue_tokens(self.services, session, format_scope(user.scopes), db.moment)

    async def reset_password(self, fields: PasswordReset) -> None:
        """Set a new password with a reset token. Raises InvalidResetToken, WeakPassword, HashingQueueFull."""
        db, passwords, network = self.services.database, self.services.passwords, self.origin.network
        claims = recovery.read_reset_token(self.services.tokens, fields.reset_token, self.now)
        account = await db.read(recovery.require_unchanged, claims)
        new_hash = await passwords.hash(fields.new_password, account.username, account.email, network)
        counters = self.services.limiter.account(account.id)
        moment = Moment.at(self.now, self.services.settings)
        await db.write(recovery.reset_password, claims, new_hash, counters, moment, self.origin)
        log_event("password_reset", user_id=account.id)
        notify(self.services, account.id, Notice.PASSWORD_CHANGED)

    async def activate_totp(self, db: CallerDatabase, fields: TOTPActivation) -> list[str]:
        """Turn the second factor on. Return the recovery codes. Raises TOTPActive, TOTPNotSetUp, WrongCode."""
        codes = self.services.one_time_codes
        recovery_codes = await db.write(second_factor.activate, codes, fields.code, self.now, self.origin)
        log_event("totp_enabled")
        notify(self.services, db.claims.sub, Notice.TOTP_ENABLED)
        return recovery_codes

    async def remove_totp(self, db: CallerDatabase) -> None:
        """Turn the caller's second factor off. No error if there is none."""
        values = self.now, self.origin, db.claims.sid
        if await db.write(lambda connection, user: second_factor.remove(connection, user.user_id, *values)):
            log_event("totp_disabled")
            notify(self.services, db.claims.sub, Notice.TOTP_DISABLED)

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

    @property
    def _moment(self) -> Moment:
        return Moment.at(self.now, self.services.settings)

    async def add(self, fields: NewUser, network: str = "", *, is_admin: bool = False) -> RowMapping:
        """Make an account, even if registration is closed. Raises WeakPassword, HashingQueueFull, UsernameTaken."""
        password_hash = await self.services.passwords.hash(fields.password, fields.username, fields.email, network)
        user = await self.db.write(service.create_user, fields, password_hash, self.now, is_admin=is_admin)
        log_event("user_registered", user_id=user["id"])
        mail_verification(self.services, user, self.now)
        return user

    async def change(self, user_id: str, changes: UserChange) -> RowMapping:
        """Disable, enable, promote or demote a user. Raises UserNotFound, LastAdministrator."""
        counters = self.services.limiter.account(user_id)
        user = await self.db.write(service.change_user, user_id, changes, self._moment, counters)
        if changes:
            reason = ", ".join(f"{name}={value}" for name, value in changes.items())
            log_event("user_changed", target_id=user_id, reason=reason)
        return user

    async def set_password(self, user: RowMapping, fields: PasswordSet) -> None:
        """Set a user's password, and end every session of theirs. Raises WeakPassword, UserNotFound."""
        new_hash = await self.services.passwords.hash(fields.new_password, user["username"], user["email"], network="")
        counters = self.services.limiter.account(user["id"])
        await self.db.write(service.set_password, user["id"], new_hash, counters, self._moment)
        log_event("password_changed", target_id=user["id"])
        notify(self.services, user["id"], Notice.PASSWORD_CHANGED)

    async def issue_reset(self, user_id: str) -> str | None:
        """Make a reset token. Return it, unless it goes to its user by mail. Raises UserNotFound, UserDisabled."""
        reset = await self.db.write(recovery.issue_reset, self.services.tokens, user_id, self.now)
        log_event("reset_token_issued", target_id=user_id)
        return None if mail_reset(self.services, reset) else reset.token

    async def unlock(self, user_id: str) -> None:
        """Forget the failed logins of a user. Raises UserNotFound."""
        await self.db.write(service.unlock, user_id, self.services.limiter.account(user_id))
        log_event("user_unlocked", target_id=user_id)

    async def remove_totp(self, user_id: str) -> None:
        """Turn the second factor of a user off. Raises UserNotFound."""
        if await self.db.write(service.remove_totp, user_id, self.now):
            log_event("totp_disabled", target_id=user_id)
            notify(self.services, user_id, Notice.TOTP_DISABLED)

    async def end_session(self, user_id: str, session_id: str, kind: Kind = "login") -> None:
        """End one login or personal token of a user. Raises SessionNotFound, TokenNotFound."""
        await self.db.write(end_own_session, user_id, kind, session_id, self._moment)
        log_event(ENDS[kind], target_id=user_id, session_id=session_id)

    async def end_tokens(self, user_id: str) -> None:
        """End every personal token of a user."""
        await self.db.write(end_tokens_of, user_id, self._moment)
        log_event("token_revoked", target_id=user_id, reason="all of them")

    async def end_sessions(self, user_id: str) -> None:
        """End every session of a user. Raises UserNotFound."""
        await self.db.write(service.end_sessions, user_id, self._moment)
        log_event("session_revoked", target_id=user_id, reason="all")

    async def delete(self, user_id: str) -> None:
        """Delete a user. The rows are deleted in the background. Raises UserNotFound, LastAdministrator."""
        has_rows = await self.db.write(service.delete_user, user_id, self.now)
        log_event("user_deleted", target_id=user_id)
        if has_rows:
            self.services.deletions.wake()
