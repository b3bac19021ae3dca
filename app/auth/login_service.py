"""What it takes to be let in, each step in the order that security rests on.

The two grants of POST /auth/token (RFC 6749 §4.3, §6), and the current password of who is signed in.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from sqlalchemy import Connection

from app.auth.callers import CurrentUser, allowed_scopes
from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.errors import (
    ClockBehind,
    InvalidCredentials,
    InvalidGrant,
    InvalidScope,
    TokenReused,
    WrongPassword,
)
from app.auth.logins import LoginOrigin, find_account, start_session
from app.auth.passwords import Verdict
from app.auth.refresh import refresh_session
from app.auth.schemas import TokenResponse
from app.auth.service import grant_scope
from app.auth.services import Services
from app.auth.throttle import Attempt, check_attempt, clear, forgive, reserve
from app.auth.tokens import BadToken, EarlyToken, ExpiredToken
from app.auth.usernames import normalize_username
from app.db.database import AnyRow, Database, DatabaseUnavailable
from app.errors import Unavailable
from app.observe.events import log_event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoginService:
    services: Services
    origin: LoginOrigin
    now: datetime

    @property
    def _db(self) -> Database:
        return self.services.database

    async def log_in(self, username: str, password: str, scopes: Sequence[str]) -> TokenResponse:
        """Exchange credentials for the tokens of a new session. No connection is held while the password is hashed.

        Raises:
            InvalidCredentials, InvalidScope, TooManyAttempts, HashingQueueFull
        """
        network, ttl = self.origin.network, timedelta(seconds=self.services.settings.session_ttl)
        limited = self._reserved(username, lambda user_id: self.services.limiter.login(username, network, user_id))
        async with limited as (found, attempt):
            account = found
            while True:
                verdict = await self._verify(account, password)
                if account is None or not verdict.is_right:
                    log_event("login_failed", user_id=account.id if account else None, reason=_reason(account, verdict))
                    raise InvalidCredentials
                try:
                    scope = grant_scope(scopes, allowed_scopes(is_admin=account.is_admin))
                except InvalidScope:
                    log_event("login_refused", user_id=account.id, reason="scope")
                    raise
                started = await self._db.write(
                    start_session, account, verdict.new_hash, scope, self.origin, self.now, ttl, attempt
                )
                if started is not None:
                    log_event("login_succeeded", user_id=account.id, session_id=started.session.id)
                    for session_id in started.ended:
                        log_event(
                            "session_revoked", user_id=account.id, session_id=session_id, reason="too many sessions"
                        )
                    return self._response(started.session, scope)
                # The account has changed since: another login has replaced the hash by a stronger one, for example.
                account = await self._db.read(find_account, username)

    async def refresh(self, refresh_token: str, scopes: Sequence[str]) -> TokenResponse:
        """Exchange a refresh token for its successor. Asking for too much scope does not use it up.

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
        # Where the scope may be refused after the move, that must be taken back: it needs a transaction.
        write = self._db.write if scopes or claims.scopes <= {"admin"} else self._db.autocommit
        outcome = await write(refresh_session, claims, scopes, self.now, grace)
        if isinstance(outcome, InvalidGrant):
            await self._refuse(outcome, user_id=claims.sub, session_id=claims.sid)
        log_event("token_refreshed", user_id=claims.sub, session_id=claims.sid)
        return self._response(outcome.session, outcome.scope)

    async def confirm_password(self, user: CurrentUser, password: str) -> AnyRow:
        """Check the current password of the caller, and return the account: its hash and e-mail address.

        Raises:
            WrongPassword, TooManyAttempts, HashingQueueFull
        """
        attempt = self.services.limiter.confirmation(user.user_id, user.session_id, self.origin.network)
        async with self._reserved(user.username, lambda _: attempt) as (account, _):
            verdict = await self._verify(account, password)
            if account is None or not verdict.is_right:
                log_event("password_change_failed", reason=_reason(account, verdict))
                raise WrongPassword
            await self._db.write(clear, attempt, self.now)
            return account

    @asynccontextmanager
    async def _reserved(
        self, username: str, attempt_at: Callable[[str | None], Attempt]
    ) -> AsyncIterator[tuple[AnyRow | None, Attempt]]:
        """Find the account of a name, and count a failure from the start.

        It is taken back where something else is wrong than the password.
        """

        def look(connection: Connection) -> tuple[AnyRow | None, Attempt]:
            account = find_account(connection, username)
            attempt = attempt_at(account.id if account else None)
            check_attempt(connection, attempt, self.now)
            return account, attempt

        network, guesses = self.origin.network, self.services.limiter.guesses
        async with guesses.turn(normalize_username(username), network):
            with guesses.once_a_second(self.services.limiter.address(network).key, self.now):
                account, attempt = await self._db.read(look)
                await self._db.write(reserve, attempt, self.now)
            try:
                yield account, attempt
            except (Unavailable, InvalidScope):
                with suppress(DatabaseUnavailable):
                    await self._db.write(forgive, attempt, self.now)
                raise

    async def _verify(self, account: AnyRow | None, password: str) -> Verdict:
        """Nobody's password, and a disabled user's, is wrong at the cost of any other."""
        stored = account.password_hash if account and account.is_active else None
        return await self.services.passwords.verify(password, stored, self.origin.network)

    async def _refuse(self, refusal: InvalidGrant, **ids: str) -> NoReturn:
        """Log a refresh token that is not good, and count it: who sends many is told to wait."""
        log_event(
            "token_reused" if isinstance(refusal, TokenReused) else "refresh_refused", reason=refusal.detail, **ids
        )
        limiter = self.services.limiter
        await limiter.count(self._db, limiter.refused_refresh(self.origin.network), self.now)
        raise refusal

    def _response(self, session: AnyRow, scope: str) -> TokenResponse:
        """The refresh token says only what the session's row says: the same generation is the same bytes."""
        issued_at, ends_at = int(self.now.timestamp()), int(session.expires_at.timestamp())
        expires_at = min(issued_at + self.services.settings.access_token_ttl, ends_at)
        issuer = self.services.tokens.issuer
        common = {"iss": issuer, "aud": issuer, "sub": session.user_id, "sid": session.id}
        access_id = f"{secrets.token_urlsafe(16)}.{session.generation}"
        access = AccessClaims(**common, jti=access_id, iat=issued_at, exp=expires_at, scope=scope)
        refresh = RefreshClaims(
            **common,
            jti=f"{session.id}.{session.generation}",
            iat=int(session.rotated_at.timestamp()),
            exp=ends_at,
            scope=session.scope,
            gen=session.generation,
        )
        return TokenResponse(
            access_token=self.services.tokens.sign(access),
            refresh_token=self.services.tokens.sign(refresh),
            expires_in=expires_at - issued_at,
            scope=scope,
        )


def _reason(account: AnyRow | None, verdict: Verdict) -> str:
    """Why a login failed, for the log alone."""
    if account is None:
        return "unknown user"
    if not account.is_active:
        return "disabled user"
    return "corrupt hash" if verdict.is_corrupt else "wrong password"
