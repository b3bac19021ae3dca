"""Introspection (RFC 7662): what a token is good for at this moment."""

from datetime import datetime

from sqlalchemy import Connection

from app.auth.callers import CurrentUser, why_over
from app.auth.claims import RefreshClaims, SessionClaims
from app.auth.refresh import SELECT_SESSION
from app.auth.schemas import Introspection
from app.auth.scopes import allowed_scopes, format_scope, session_scopes

INACTIVE = Introspection(active=False)


def introspect(connection: Connection, user: CurrentUser, claims: SessionClaims, now: datetime) -> Introspection:
    """Describe a token of ours that has not expired. Only its owner and administrators learn more than `active`."""
    session = connection.execute(SELECT_SESSION, {"session_id": claims.sid, "owner_id": claims.sub}).one_or_none()
    may_ask = claims.sub == user.user_id or "admin" in user.scopes
    if session is None or not may_ask or why_over(session, now):
        return INACTIVE
    if isinstance(claims, RefreshClaims):
        if claims.gen != session.generation:
            return INACTIVE
        scopes, token_type = session_scopes(session), None
    else:
        scopes, token_type = claims.scopes, "bearer"
    return Introspection(
        active=True,
        scope=format_scope(scopes & allowed_scopes(is_admin=session.is_admin)),
        username=session.username,
        token_type=token_type,
        **claims.model_dump(include={"sub", "iss", "aud", "jti", "iat", "exp"}),
    )
