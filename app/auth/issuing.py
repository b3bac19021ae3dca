"""The tokens of a session."""

import secrets

from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.liveness import Moment
from app.auth.schemas import TokenResponse
from app.auth.services import Services
from app.db.database import AnyRow


def issue_tokens(services: Services, session: AnyRow, scope: str, moment: Moment) -> TokenResponse:
    """Make a pair of tokens. The refresh token says only what the row says: one generation is always the same bytes."""
    issued_at, ends_at = int(moment.now.timestamp()), int(moment.end_of(session).timestamp())
    expires_in = min(services.settings.access_token_ttl, ends_at - issued_at)
    tokens, generation = services.tokens, session.generation
    common = {"iss": tokens.issuer, "aud": tokens.issuer, "sub": session.user_id, "sid": session.id}
    access_id, refresh_id = f"{secrets.token_urlsafe(16)}.{generation}", f"{session.id}.{generation}"
    access = AccessClaims(**common, jti=access_id, iat=issued_at, exp=issued_at + expires_in, scope=scope)
    rotated_at = int(session.rotated_at.timestamp())
    refresh = RefreshClaims(**common, jti=refresh_id, iat=rotated_at, exp=ends_at, scope=session.scope, gen=generation)
    return TokenResponse(
        access_token=tokens.sign(access), refresh_token=tokens.sign(refresh), expires_in=expires_in, scope=scope
    )
