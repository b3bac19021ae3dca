"""Scopes: what a user may have, what a session has, and what is granted of them (RFC 6749 §3.3)."""

from collections.abc import Iterable
from typing import Final

from app.auth.errors import InvalidScope
from app.auth.schemas import SCOPES
from app.db.database import AnyRow

ADMIN: Final = frozenset({"admin"})
"""The scopes for administrators only. A session has one only if its user was an administrator at the login."""


def allowed_scopes(*, is_admin: bool) -> frozenset[str]:
    return frozenset(SCOPES) if is_admin else frozenset(SCOPES) - ADMIN


def session_scopes(session: AnyRow) -> frozenset[str]:
    """Return a session's scopes. Everything includes scopes that this version knows and the login did not."""
    named = frozenset(session.scope.split())
    return named | allowed_scopes(is_admin=False) if session.has_every_scope else named


def grant_scope(requested: Iterable[str], allowed: frozenset[str]) -> str:
    """Return the requested scopes, or everything allowed if none is requested.

    Raises InvalidScope if a requested scope is not allowed, or if there is nothing to grant.
    """
    granted = frozenset(requested) or allowed
    if not granted or not granted <= allowed:
        raise InvalidScope
    return format_scope(granted)


def format_scope(scopes: frozenset[str]) -> str:
    return " ".join(scope for scope in SCOPES if scope in scopes)
