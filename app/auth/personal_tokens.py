"""Personal tokens, for scripts: sessions of the kind `personal`, which do not rotate."""

from datetime import datetime, time, timedelta
from typing import Final, TypeVar

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, or_, select, update

from app.auth.account_events import record
from app.auth.callers import CurrentUser
from app.auth.claims import AccessClaims
from app.auth.errors import InsufficientScope, TooManyTokens
from app.auth.liveness import Moment
from app.auth.models import LoginSession
from app.auth.networks import LoginOrigin
from app.auth.schemas import TokenCreate
from app.auth.scopes import format_scope
from app.auth.token_format import hash_token, is_token
from app.auth.tokens import BadToken, ExpiredToken
from app.db.database import AnyRow, Database
from app.db.types import UTCDateTime, new_id
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery

T = TypeVar("T")

MAX_TOKENS: Final = 100
REMEMBERED: Final = 4096

COLUMNS = (
    *(LoginSession.id, LoginSession.name, LoginSession.scope, LoginSession.created_at),
    # Until the first use it is the time of creation. Then it is the beginning of the day.
    func.nullif(LoginSession.rotated_at, LoginSession.created_at, type_=UTCDateTime).label("last_used_at"),
    LoginSession.expires_at,
)
IS_LIVE_OF_USER = (
    *(LoginSession.user_id == bindparam("user_id"), LoginSession.kind == "personal"),
    *(LoginSession.ended_at.is_(None), LoginSession.expires_at > bindparam("now")),
)
SELECT_TOKENS = select(*COLUMNS).where(*IS_LIVE_OF_USER)
COUNT_TOKENS = select(func.count()).select_from(LoginSession).where(*IS_LIVE_OF_USER)
INSERT_TOKEN = insert(LoginSession).returning(*COLUMNS)
SELECT_BY_HASH = select(
    LoginSession.id, LoginSession.user_id, LoginSession.scope, LoginSession.created_at, LoginSession.expires_at
).where(LoginSession.token_hash == bindparam("token_hash"))
MARK_USED = (
    update(LoginSession)
    .where(LoginSession.id == bindparam("session_id"), LoginSession.ended_at.is_(None))
    .where(or_(LoginSession.rotated_at < bindparam("day"), LoginSession.rotated_at == LoginSession.created_at))
    .values(rotated_at=bindparam("day"))
)
LATEST_FIRST = SortOrder(LoginSession.id, descending=True)


def create_token(
    connection: Connection, user: CurrentUser, fields: TokenCreate, token: str, origin: LoginOrigin, now: datetime
) -> RowMapping:
    """Insert a personal token of the caller's.

    Raises:
        InsufficientScope: the caller's own token lacks a scope that is asked for.
        TooManyTokens: the account has 100 live ones.
    """
    scopes = frozenset(fields.scope.split())
    if beyond := scopes - user.scopes:
        raise InsufficientScope(format_scope(beyond))
    if connection.execute(COUNT_TOKENS, {"user_id": user.user_id, "now": now}).scalar_one() >= MAX_TOKENS:
        raise TooManyTokens
    expires_at = now + timedelta(seconds=fields.expires_in)
    row = {"id": new_id(now), "user_id": user.user_id, "kind": "personal", "name": fields.name}
    row |= {"scope": format_scope(scopes), "token_hash": hash_token(token), "network": origin.network}
    times = {"created_at": now, "rotated_at": now, "expires_at": expires_at}
    record(connection, user.user_id, "token_created", now, origin, row["id"])
    return connection.execute(INSERT_TOKEN, {**row, **times, **origin._asdict()}).mappings().one()


def list_tokens(connection: Connection, user_id: str, query: PageQuery, moment: Moment) -> Page:
    """Read a page of a user's live personal tokens, the latest first."""
    return LATEST_FIRST.page(connection, SELECT_TOKENS, query, "tokens", {"user_id": user_id, "now": moment.now})


class PersonalTokens:
    """Verifies personal tokens. The rights of a token never change, so a process reads them once and remembers them.

    The token may be over all the same. The statements of the request ask that, as for every session.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._known: dict[str, AccessClaims] = {}
        self._used: dict[str, datetime] = {}

    async def verify(self, db: Database, token: str, now: datetime | None = None) -> AccessClaims:
        """Return what a token would say if it were a JWT. Without `now` its age does not matter.

        Raises BadToken, ExpiredToken. A text with a wrong checksum is refused without the database.
        """
        if not is_token(token):
            raise BadToken("a wrong checksum")
        token_hash = hash_token(token)
        claims = self._known.get(token_hash)
        if claims is None:
            select_session = {"token_hash": token_hash}
            row = await db.read(lambda connection: connection.execute(SELECT_BY_HASH, select_session).one_or_none())
            if row is None:
                raise BadToken("an unknown token")
            claims = _remember(self._known, token_hash, self._claims(row))
        if now and claims.exp <= now.timestamp():
            raise ExpiredToken
        return claims

    async def note_use(self, db: Database, claims: AccessClaims, now: datetime) -> None:
        """Note in the database, once a day, that a token is used."""
        day = datetime.combine(now, time(), now.tzinfo)
        if self._used.get(claims.sid) != day:
            use = {"session_id": claims.sid, "day": day}
            await db.autocommit(lambda connection: connection.execute(MARK_USED, use))
            _remember(self._used, claims.sid, day)

    def _claims(self, row: AnyRow) -> AccessClaims:
        ids = {"iss": self._issuer, "aud": self._issuer, "sub": row.user_id, "sid": row.id, "jti": row.id}
        issued_at, expires_at = int(row.created_at.timestamp()), int(row.expires_at.timestamp())
        return AccessClaims(**ids, iat=issued_at, exp=expires_at, scope=row.scope)


def _remember(memory: dict[str, T], key: str, value: T) -> T:
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = value
    return value
