"""The rules of logins and sessions. Each method does one thing, and logs its events."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from app.auth.access import CallerDatabase
from app.auth.account_events import record
from app.auth.callers import CurrentUser
from app.auth.claims import RefreshClaims, SessionClaims
from app.auth.errors import (
    ClockBehind,
    InvalidCredentials,
    InvalidGrant,
    InvalidOneTimeCode,
    InvalidScope,
    MFARequired,
    TokenReused,
    WrongPassword,
)
from app.auth.issuing import issue_tokens
from app.auth.liveness import Moment
from app.auth.logins import Started, find_account, start_session, why_failed
from app.auth.models import normalize_username
from app.auth.networks import LoginOrigin
from app.auth.notices import notify
from app.auth.passwords import Verdict
from app.auth.personal_tokens import create_token
from app.auth.refresh import refresh_session
from app.auth.schemas import Introspection, PersonalTokenCreated, TokenCreate, TokenResponse
from app.auth.services import Services
from app.auth.sessions import ENDS, INACTIVE, Kind, end_other_sessions, end_own_session, end_session, introspect
from app.auth.throttle import Attempt, check_attempt, clear, forgive, reserve
from app.auth.token_format import PREFIX, new_token
from app.auth.tokens import BadToken, EarlyToken, ExpiredToken
from app.db.database import AnyRow, Database
from app.db.errors import DatabaseUnavailable
from app.db.types import NO_ID
from app.errors import Unavailable
from app.mail.templates import Notice
from app.observe.events import Event, log_event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoginService:
    services: Services
    origin: LoginOrigin
    now: datetime

    @property
    def _db(self) -> Database:
        return self.services.database

    @property
    def _moment(self) -> Moment:
        return Moment.at(self.now, self.services.settings)

    @property
    def _client(self) -> tuple[Moment, LoginOrigin]:
        """When and from where, for functions that end sessions."""
        return self._moment, self.origin

    async def log_in(self, username: str, password: str, code: str, scopes: Sequence[str]) -> TokenResponse:
        """Exchange credentials for the tokens of a new session (RFC 6749 §4.3).

        No database connection is held while the password is hashed. Only a right password gets to hear of a second
        factor, or that a scope is not allowed.

        Raises InvalidCredentials, MFARequired, InvalidOneTimeCode, InvalidScope, TooManyAttempts, HashingQueueFull.
        """
        limiter = self.services.limiter
        limited = self._reserved(username, lambda user_id: limiter.login(username, self.origin.network, user_id))
        async with limited as (found, attempt):
            account = found
            while True:
                verdict = await self._verify(account, password)
                if account is None or not verdict.is_right:
                    await self._record("login_failed", account, why_failed(account, verdict))
                    raise InvalidCredentials
                start = (account, verdict.new_hash, self.services.one_time_codes, code, scopes)
                try:
                    started = await self._db.write(start_session, *start, self.origin, self._moment, attempt)
                except InvalidOneTimeCode:
                    await self._record("login_failed", account, "wrong one-time code")
                    raise
                except (InvalidScope, MFARequired) as refusal:
                    reason = "scope" if isinstance(refusal, InvalidScope) else "no one-time code"
                    await self._record("login_refused", account, reason)
                    raise
                if started:
                    self._log_start(started)
                    return issue_tokens(self.services, started.session, started.session.scope, self._moment)
                # The account has changed. For example, another login has replaced the hash by a stronger one.
                account = await self._db.read(find_account, username)

    async def refresh(self, refresh_token: str, scopes: Sequence[str]) -> TokenResponse:
        """Exchange a refresh token for its successor (RFC 6749 §6). A refused scope does not use the token up.

        Raises:
            InvalidGrant, InvalidScope, TooManyAttempts
            ClockBehind: the token is good. Nothing is counted, and the client keeps it.
        """
        try:
            claims = self.services.tokens.verify(RefreshClaims, refresh_token, self.now)
        except EarlyToken as error:
            logger.warning("this host's clock is behind: a refresh token that we have signed is not issued yet")
            raise ClockBehind from error
        except ExpiredToken:
            await self._refuse(InvalidGrant("The refresh token has expired"))
        except BadToken:
            await self._refuse(InvalidGrant())
        grace = timedelta(seconds=self.services.settings.refresh_grace)
        outcome = await self._db.autocommit(refresh_session, claims, scopes, self._moment, grace)
        if isinstance(outcome, TokenReused) and await self._db.write(end_session, claims, "reuse", *self._client):
            notify(self.services, claims.sub, Notice.TOKEN_REUSED)
        if isinstance(outcome, InvalidGrant):
            await self._refuse(outcome, user_id=claims.sub, session_id=claims.sid)
        log_event("token_refreshed", user_id=claims.sub, session_id=claims.sid)
        return issue_tokens(self.services, *outcome, self._moment)

    async def confirm_password(self, user: CurrentUser, password: str) -> AnyRow:
        """Check the current password of the caller. Return the account: its hash and e-mail address.

        Raises WrongPassword, TooManyAttempts, HashingQueueFull.
        """
        attempt = self.services.limiter.confirmation(user.user_id, user.session_id, self.origin.network)
        async with self._reserved(user.username, lambda _: attempt) as (account, _):
            verdict = await self._verify(account, password)
            if account is None or not verdict.is_right:
                await self._record("password_change_failed", account, why_failed(account, verdict), user.session_id)
                raise WrongPassword
            await self._db.write(clear, attempt, self.now)
            return account

    async def revoke(self, token: str) -> None:
        """End the session of a token, whatever its age. An unknown token is no error (RFC 7009 §2.2)."""
        with suppress(BadToken):
            claims = await self._claims(token)
            if await self._db.write(end_session, claims, "revoked", *self._client):
                event: Event = "token_revoked" if token.startswith(PREFIX) else "session_revoked"
                log_event(event, user_id=claims.sub, session_id=claims.sid)

    async def introspect(self, db: CallerDatabase, token: str) -> Introspection:
        """Say what a token is good for. Its generation counts as used, because somebody has the token."""
        try:
            claims = await self._claims(token, self.now)
        except BadToken:
            await db.current_user()
            return INACTIVE
        answer = await db.read(introspect, claims, self._moment)
        if answer.active:
            await self.services.uses.note(self._db, claims)
        return answer

    async def end_session(self, db: CallerDatabase, session_id: str, kind: Kind = "login") -> None:
        """End one of the caller's logins or personal tokens. Raises SessionNotFound, TokenNotFound."""
        await db.write(
            lambda connection, user: end_own_session(connection, user.user_id, kind, session_id, *self._client)
        )
        log_event(ENDS[kind], session_id=session_id)

    async def end_other_sessions(self, db: CallerDatabase) -> None:
        """End every session of the caller but the one of the request."""
        await db.write(end_other_sessions, "revoked", *self._client)
        log_event("session_revoked", reason="all but this one")

    async def create_token(self, db: CallerDatabase, fields: TokenCreate) -> PersonalTokenCreated:
        """Make a personal token. Raises InsufficientScope, TooManyTokens."""
        token = new_token()
        row = await db.write(create_token, fields, token, self.origin, self.now)
        log_event("token_created", reason=row["scope"])
        notify(self.services, db.claims.sub, Notice.TOKEN_CREATED)
        return PersonalTokenCreated(**row, token=token)

    async def _claims(self, token: str, now: datetime | None = None) -> SessionClaims:
        """Verify a token of any kind that has a session. Raises BadToken."""
        if token.startswith(PREFIX):
            return await self.services.personal_tokens.verify(self._db, token, now)
        return self.services.tokens.verify_session_token(token, now)

    @asynccontextmanager
    async def _reserved(
        self, username: str, attempt_of: Callable[[str | None], Attempt]
    ) -> AsyncIterator[tuple[AnyRow | None, Attempt]]:
        """Find the account of a login name, and count the attempt as a failure from the start.

        If something other than the password is wrong, it is no failure.
        """

        network, local = self.origin.network, self.services.limiter.local
        key = self.services.limiter.address(network).key
        with local.once_a_second(key, self.now):
            account = await self._db.read(find_account, username)
        attempt = attempt_of(account.id if account else None)
        async with local.turn(account.id if account else normalize_username(username), network):
            with local.once_a_second(key, self.now):
                await self._db.read(check_attempt, attempt, self.now)
                await self._db.write(reserve, attempt, self.now)
            try:
                yield account, attempt
            except (Unavailable, InvalidScope, MFARequired):
                with suppress(DatabaseUnavailable):
                    await self._db.write(forgive, attempt, self.now)
                raise

    async def _verify(self, account: AnyRow | None, password: str) -> Verdict:
        """Unknown and disabled users fail, after the same work as a wrong password."""
        stored = account.password_hash if account and account.is_active else None
        return await self.services.passwords.verify(password, stored, self.origin.network)

    async def _refuse(self, refusal: InvalidGrant, **ids: str) -> NoReturn:
        """Log and count a refused refresh token. Too many from one address have to wait."""
        is_reused = isinstance(refusal, TokenReused)
        log_event("token_reused" if is_reused else "refresh_refused", reason=refusal.detail, **ids)
        limiter = self.services.limiter
        await limiter.count(self._db, self.now, limiter.refused_refresh(self.origin.network))
        raise refusal

    async def _record(self, event: Event, account: AnyRow | None, reason: str, session_id: str | None = None) -> None:
        """Log a failure, and add it to the account's record. It costs the same without an account.

        A database that does not take it makes no other answer of the failure.
        """
        log_event(event, user_id=account.id if account else None, reason=reason)
        user_id = account.id if account else NO_ID
        with suppress(DatabaseUnavailable):
            await self._db.write(record, user_id, event, self.now, self.origin, session_id, reason=reason)

    def _log_start(self, started: Started) -> None:
        ids = {"user_id": started.session.user_id, "session_id": started.session.id}
        log_event("login_succeeded", **ids)
        if started.used_recovery_code:
            log_event("recovery_code_used", **ids)
            notify(self.services, ids["user_id"], Notice.RECOVERY_CODE_USED)
        for ended in started.ended:
            log_event("session_revoked", user_id=ids["user_id"], session_id=ended, reason="too many sessions")
