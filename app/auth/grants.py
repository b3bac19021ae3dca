"""The two grants of POST /auth/token (RFC 6749 §4.3, §6), each step in the order that security rests on."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.auth.errors import InvalidCredentials, InvalidGrant
from app.auth.passwords import Passwords
from app.auth.schemas import TokenResponse
from app.auth.service import Client, allowed_scopes, find_account, grant_scope, refresh_session, start_session
from app.auth.tokens import AccessClaims, BadToken, ExpiredToken, RefreshClaims, Tokens
from app.config import Settings
from app.database import AnyRow, Database


@dataclass(frozen=True, slots=True)
class Grants:
    settings: Settings
    db: Database
    passwords: Passwords
    tokens: Tokens
    now: datetime

    async def log_in(self, username: str, password: str, scopes: Sequence[str], client: Client) -> TokenResponse:
        """Exchange credentials for the tokens of a new session. No connection is held while the password is hashed.

        Raises:
            InvalidCredentials, InvalidScope, HashingQueueFull
        """
        ttl = timedelta(seconds=self.settings.session_ttl)
        while True:  # again if the hash was replaced meanwhile: by a stronger one, or with the password
            account = await self.db.read(find_account, username)
            verdict = await self.passwords.verify(password, account.password_hash if account else None)
            if account is None or not account.is_active or not verdict.is_right:
                raise InvalidCredentials
            scope = grant_scope(scopes, allowed_scopes(is_admin=account.is_admin))
            session = await self.db.write(start_session, account, verdict.new_hash, scope, client, self.now, ttl)
            if session is not None:
                return self._response(session, scope)

    async def refresh(self, refresh_token: str, scopes: Sequence[str]) -> TokenResponse:
        """Exchange a refresh token for its successor. Asking for too much scope does not use it up.

        Raises:
            InvalidGrant, InvalidScope
        """
        try:
            claims = self.tokens.read(RefreshClaims, refresh_token, self.now)
        except ExpiredToken as error:
            raise InvalidGrant("The refresh token has expired") from error
        except BadToken as error:
            raise InvalidGrant from error
        grace = timedelta(seconds=self.settings.refresh_grace)
        outcome = await self.db.write(refresh_session, claims, scopes, self.now, grace)
        if isinstance(outcome, InvalidGrant):
            raise outcome
        return self._response(outcome.session, outcome.scope)

    def _response(self, session: AnyRow, scope: str) -> TokenResponse:
        """The refresh token says only what the session's row says: the same generation is the same bytes."""
        issued_at, ends_at = int(self.now.timestamp()), int(session.expires_at.timestamp())
        expires_at = min(issued_at + self.settings.access_token_ttl, ends_at)
        issuer = self.tokens.issuer
        common = {"iss": issuer, "aud": issuer, "sub": session.user_id, "sid": session.id}
        access = AccessClaims(**common, jti=secrets.token_urlsafe(16), iat=issued_at, exp=expires_at, scope=scope)
        refresh = RefreshClaims(
            **common,
            jti=f"{session.id}.{session.generation}",
            iat=int(session.rotated_at.timestamp()),
            exp=ends_at,
            scope=session.scope,
            gen=session.generation,
        )
        return TokenResponse(
            access_token=self.tokens.sign(access),
            refresh_token=self.tokens.sign(refresh),
            expires_in=expires_at - issued_at,
            scope=scope,
        )
