"""Sessions: one row for each login. This module lists, describes (RFC 7662), ends and deletes them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, literal, or_, select, update

from app.auth.account_events import record
from app.auth.callers import CurrentUser
from app.auth.claims import RefreshClaims, SessionClaims
from app.auth.errors import SessionNotFound, TokenNotFound
from app.auth.liveness import IS_LIVE_SESSION, IS_LOGIN, Moment
from app.auth.models import END, LoginSession, User
from app.auth.networks import LoginOrigin
from app.auth.schemas import Introspection, SessionQuery
from app.auth.scopes import allowed_scopes, format_scope, session_scopes
from app.clock import EPOCH
from app.db.batches import Purge
from app.db.database import AnyRow
from app.observe.events import Event
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery

Kind = Literal["login", "personal"]

COLUMNS = LoginSession.__table__.c
TOKEN_COLUMNS = [
    *COLUMNS["id", "user_id", "generation", "scope", "has_every_scope"],
    *COLUMNS["kind", "created_at", "rotated_at", "expires_at"],
]
"""The columns that tokens are made from."""

IS_OF_OWNER = (LoginSession.id == bindparam("session_id"), LoginSession.user_id == bindparam("owner_id"))
SELECT_SESSION = (
    select(*TOKEN_COLUMNS, LoginSession.unused_generation, LoginSession.ended_at, LoginSession.end_reason)
    .add_columns(User.username, User.is_admin)
    .join(User)
    .where(*IS_OF_OWNER, User.is_active)
)
IS_LIVE_OF_USER = (LoginSession.user_id == bindparam("user_id"), IS_LOGIN, IS_LIVE_SESSION)
SHOWN_COLUMNS = [*COLUMNS["id", "kind", "created_at", "rotated_at", "expires_at", "user_agent", "ip"]]
SELECT_LIVE_SESSIONS = select(*SHOWN_COLUMNS).where(*IS_LIVE_OF_USER)
HAS_EXPIRED = func.coalesce(LoginSession.end_reason, "expired") == "expired"
# If a session has expired, each way to expire must be that recent.
SELECT_ENDED_SESSIONS = select(*SHOWN_COLUMNS, LoginSession.ended_at, LoginSession.end_reason).where(
    *(LoginSession.user_id == bindparam("user_id"), IS_LOGIN, ~IS_LIVE_SESSION),
    or_(
        ~HAS_EXPIRED & (LoginSession.ended_at > bindparam("since")),
        HAS_EXPIRED
        & (LoginSession.expires_at > bindparam("since"))
        & (LoginSession.created_at > bindparam("created_since"))
        & (LoginSession.rotated_at > bindparam("used_since")),
    ),
)
END_SESSIONS = (
    update(LoginSession)
    .where(LoginSession.ended_at.is_(None))
    .values(ended_at=bindparam("now"), end_reason=case((IS_LIVE_SESSION, bindparam("reason")), else_="expired"))
    .returning(*TOKEN_COLUMNS)
)
ENDS: Final[dict[Kind, Event]] = {"login": "session_revoked", "personal": "token_revoked"}
BY_LOGIN = SortOrder(LoginSession.id, descending=True)

SHOWN_FOR: Final = timedelta(days=30)
INACTIVE: Final = Introspection(active=False)


class ShownSession(NamedTuple):
    """A session as lists show it. `expires_at` is the end by the settings of today."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    ip: str
    current: bool


class EndedSession(NamedTuple):
    """A session that is over. If it has expired, `ended_at` says when."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    ip: str
    current: bool
    ended_at: datetime
    end_reason: str


def list_sessions(
    connection: Connection, user_id: str, query: PageQuery, moment: Moment, session_id: str | None = None
) -> Page:
    """Read a page of a user's sessions, the latest login first: the live ones, or those that ended within 30 days.

    `current` marks the session of the request, by its id.
    """
    is_ended = isinstance(query, SessionQuery) and query.ended
    values = {"user_id": user_id, **moment._asdict()}
    if is_ended:
        created_since, used_since = moment.created_after - SHOWN_FOR, moment.used_after - SHOWN_FOR
        values |= {"since": moment.now - SHOWN_FOR, "created_since": created_since, "used_since": used_since}
    statement = SELECT_ENDED_SESSIONS if is_ended else SELECT_LIVE_SESSIONS
    page = BY_LOGIN.page(connection, statement, query, "sessions", values)
    return page._replace(rows=[_shown(row, session_id, moment, is_ended=is_ended) for row in page.rows])


def _shown(row: AnyRow, session_id: str | None, moment: Moment, *, is_ended: bool) -> ShownSession | EndedSession:
    times = row.created_at, row.rotated_at, moment.end_of(row)
    shown = ShownSession(row.id, *times, row.user_agent, row.ip, row.id == session_id)
    if not is_ended:
        return shown
    expiry, reason = moment.expiry(row), row.end_reason or "expired"
    ended_at = row.ended_at or expiry
    return EndedSession(*shown, min(ended_at, expiry) if reason == "expired" else ended_at, reason)


def introspect(connection: Connection, user: CurrentUser, claims: SessionClaims, moment: Moment) -> Introspection:
    """Describe a token of ours that has not expired. Only its owner and administrators learn more than `active`."""
    session = connection.execute(SELECT_SESSION, {"session_id": claims.sid, "owner_id": claims.sub}).one_or_none()
    may_ask = claims.sub == user.user_id or "admin" in user.scopes
    if session is None or not may_ask or moment.why_over(session):
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
        exp=min(claims.exp, int(moment.end_of(session).timestamp())),
        **claims.model_dump(include={"sub", "iss", "aud", "jti", "iat"}),
    )


def end_session(
    connection: Connection, claims: SessionClaims, reason: str, moment: Moment, origin: LoginOrigin
) -> bool:
    """End the session of a token. Return whether it had not been ended before."""
    own = [LoginSession.id == claims.sid, LoginSession.user_id == claims.sub]
    return end_where(connection, own, reason, moment, origin)


def end_own_session(
    connection: Connection, user_id: str, kind: Kind, session_id: str, moment: Moment, origin: LoginOrigin | None = None
) -> None:
    """Raises SessionNotFound, TokenNotFound: the user has no live login, or no live personal token, of that id."""
    own = [LoginSession.id == session_id, LoginSession.user_id == user_id, LoginSession.kind == kind, IS_LIVE_SESSION]
    if not end_where(connection, own, "revoked", moment, origin):
        raise SessionNotFound if kind == "login" else TokenNotFound


def end_tokens_of(connection: Connection, user_id: str, moment: Moment) -> None:
    """End every personal token of a user."""
    end_where(connection, [LoginSession.user_id == user_id, ~IS_LOGIN], "revoked", moment)


def end_sessions_of(
    connection: Connection, user_id: str, reason: str, moment: Moment, origin: LoginOrigin | None = None
) -> None:
    """End every login and every personal token of a user."""
    end_where(connection, [LoginSession.user_id == user_id], reason, moment, origin)


def end_sessions_with(connection: Connection, user_id: str, scope: str, reason: str, moment: Moment) -> None:
    """End the logins and personal tokens of a user that name a scope."""
    names_scope = (literal(" ") + LoginSession.scope + " ").contains(f" {scope} ")
    end_where(connection, [LoginSession.user_id == user_id, names_scope], reason, moment)


def end_other_sessions(
    connection: Connection, user: CurrentUser, reason: str, moment: Moment, origin: LoginOrigin
) -> None:
    """End the caller's logins but the one of the request. Personal tokens stay."""
    others = [LoginSession.user_id == user.user_id, LoginSession.id != user.session_id, IS_LOGIN]
    end_where(connection, others, reason, moment, origin)


def purge_sessions(before: datetime) -> Purge:
    """The purge of the sessions that were over before a moment."""
    return Purge(LoginSession.id, END, EPOCH, before)


def has_sessions(connection: Connection) -> bool:
    return connection.execute(select(LoginSession.id).limit(1)).one_or_none() is not None


def end_where(
    connection: Connection,
    which: Sequence[ColumnElement[bool]],
    reason: str,
    moment: Moment,
    origin: LoginOrigin | None = None,
) -> bool:
    """End the sessions of a user that are not ended yet, and record those that were live. Return whether any ended.

    `origin` is the client, if it is the owner's or may be.
    """
    ended = connection.execute(END_SESSIONS.where(*which), {"reason": reason, **moment._asdict()}).all()
    live = [session for session in ended if moment.expiry(session) > moment.now]
    for kind, event in ENDS.items():
        ids = [session.id for session in live if session.kind == kind]
        if ids:
            of_kind: Event = "token_reused" if reason == "reuse" else event
            record(connection, ended[0].user_id, of_kind, moment.now, origin, *ids, reason=reason)
    return bool(ended)
