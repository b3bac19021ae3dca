"""The yardstick: a bare ASGI app on the driver's own queries, which gives the same answers without a framework.

It reads the same database, verifies the same tokens and answers with the same bodies. It knows no bad input, no errors,
no limits and no log. If the service beats it, the floor has a bug.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

import asyncpg
import orjson
from argon2 import PasswordHasher
from argon2.low_level import Type

from app.db.types import new_id

Row = Any
Scope = dict[str, Any]

SECRET = os.environ["SECRET_KEY"].encode()
URL = os.environ["DATABASE_URL"]
IS_POSTGRESQL = URL.startswith("postgresql")
KID = hashlib.sha256(b"kid:" + SECRET).hexdigest()[:16]
ISSUER = "http://127.0.0.1:8000"
SCOPES = "tasks:read tasks:write account"
TTL = 1800
ITEM = ("id", "title", "description", "status", "due_at", "is_public", "owner", "created_at", "updated_at")
dumps: Callable[..., bytes] = orjson.dumps  # untyped where the benchmarks' extra is not installed
JSON_HEADERS = [(b"content-type", b"application/json")]

IS_PUBLIC = "t.is_public" if IS_POSTGRESQL else "t.is_public = 1"  # in the words of the indexes
LIVE = (
    "SELECT u.id, u.username, u.is_active, u.is_admin, s.ended_at, s.expires_at"
    " FROM sessions s JOIN users u ON u.id = s.user_id"
)
COLUMNS = "t.id, t.title, t.description, t.status, t.due_at, t.is_public, {owner}, t.created_at, t.updated_at"
OWN = f"SELECT {COLUMNS.format(owner='NULL')} FROM tasks t WHERE t.owner_id = {{}} ORDER BY t.id DESC LIMIT 21"
WITH_OWNER = f"SELECT {COLUMNS.format(owner='u.username')} {{more}} FROM tasks t JOIN users u ON u.id = t.owner_id"
PUBLIC = f"{WITH_OWNER.format(more='')} WHERE {IS_PUBLIC} ORDER BY t.id DESC LIMIT 21"
ONE = f"{WITH_OWNER.format(more=', t.version')} WHERE t.id = $1 AND ({IS_PUBLIC} OR t.owner_id = $2)"
CREATE = (
    "INSERT INTO tasks (id, owner_id, title, status, created_at, updated_at) VALUES ($1, $2, $3, 'todo', $4, $4)"
    " RETURNING id"
)
MOVE = (
    "UPDATE sessions SET generation = generation + 1, rotated_at = $3 WHERE id = $1 AND generation = $2 AND"
    " ended_at IS NULL AND expires_at > $3 AND EXISTS (SELECT 1 FROM users WHERE id = user_id AND is_active)"
    " RETURNING generation, expires_at"
)
ACCOUNT = "SELECT id, password_hash FROM users WHERE lower(username) = $1 AND is_active"
LOG_IN = (
    "INSERT INTO sessions (id, user_id, scope, created_at, rotated_at, expires_at, user_agent, ip)"
    " VALUES ($1, $2, $3, $4, $4, $5, '', '127.0.0.1')"
)
# On PostgreSQL the session and the page are one statement; on SQLite two cost less.
LIVE_AND_OWN = (
    f"WITH live AS ({LIVE} WHERE s.id = $1) SELECT live.*, page.* FROM live"
    f" LEFT JOIN LATERAL ({OWN.format('live.id')}) page ON true"
)

Execute = Callable[..., Awaitable[list[Row]]]
execute: Execute
hasher = PasswordHasher(2, 19456, 1, type=Type.ID)
threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))


async def leave(_: object) -> None:
    pass


async def open_database() -> Execute:
    if IS_POSTGRESQL:
        # Without a reset of the connection after each query, which is a round trip of its own.
        pool = await asyncpg.create_pool(URL, min_size=10, max_size=10, reset=leave)

        async def fetch(query: str, *values: Any) -> list[Row]:
            rows: list[Row] = await pool.fetch(query, *values)
            return rows

        return fetch
    connection = sqlite3.connect(URL.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON":
        connection.execute(f"PRAGMA {pragma}")

    async def run(query: str, *values: Any) -> list[Row]:
        return connection.execute(query.replace("$", "?"), values).fetchall()

    return run


def in_database(moment: datetime) -> Any:
    return moment if IS_POSTGRESQL else moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def verify(token: str) -> dict[str, Any]:
    signed, _, signature = token.rpartition(".")
    expected = base64.urlsafe_b64encode(hmac.digest(SECRET, signed.encode(), "sha256")).rstrip(b"=")
    claims: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
    if not hmac.compare_digest(expected, signature.encode()) or claims["exp"] <= time.time():
        raise PermissionError
    return claims


def sign(typ: str, **claims: Any) -> str:
    parts = [dumps(part) for part in ({"alg": "HS256", "kid": KID, "typ": typ}, {"iss": ISSUER, **claims})]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, "sha256")).rstrip(b"=")
    return f"{signed.decode()}.{signature.decode()}"


def tokens_of(user_id: str, session_id: str, generation: int, ends_at: int) -> bytes:
    now = int(time.time())
    common = {"aud": ISSUER, "sub": user_id, "sid": session_id, "scope": SCOPES}
    access = sign("at+jwt", **common, jti=uuid.uuid4().hex, iat=now, exp=now + TTL)
    refresh = sign("rt+jwt", **common, jti=f"{session_id}.{generation}", iat=now, exp=ends_at, gen=generation)
    body = {"access_token": access, "refresh_token": refresh, "token_type": "bearer", "expires_in": TTL}
    return dumps(body | {"scope": SCOPES})


def page(rows: list[Row], owner: str | None = None) -> bytes:
    items = [item(row, owner) for row in rows[:20]]
    cursor = base64.urlsafe_b64encode(dumps(["0" * 16, None, items[-1]["id"]], default=str)).decode()
    return dumps({"items": items, "next_cursor": cursor if len(rows) > 20 else None}, default=str)


def item(row: Row, owner: str | None = None) -> dict[str, Any]:
    fields = dict(zip(ITEM, row, strict=False))
    if owner:
        fields["owner"] = owner
    if not IS_POSTGRESQL:
        fields["is_public"] = bool(fields["is_public"])
    return fields


async def user_of(claims: dict[str, Any]) -> tuple[str, str]:
    ((user_id, username, is_active, *_),) = await execute(f"{LIVE} WHERE s.id = $1", claims["sid"])
    if not is_active:
        raise PermissionError
    return user_id, username


async def list_own(claims: dict[str, Any]) -> bytes:
    if IS_POSTGRESQL:
        rows = await execute(LIVE_AND_OWN, claims["sid"])
        _, username, is_active, *_ = rows[0]
        if not is_active:
            raise PermissionError
        return page([row[6:] for row in rows], username)
    user_id, username = await user_of(claims)
    return page(await execute(OWN.format("$1"), user_id), username)


async def read_one(claims: dict[str, Any], task_id: str) -> bytes:
    user_id, _ = await user_of(claims)
    (row,) = await execute(ONE, task_id, user_id)
    return dumps(item(row), default=str)


async def create(claims: dict[str, Any], body: bytes) -> bytes:
    user_id, username = await user_of(claims)
    fields, now = orjson.loads(body), datetime.now(UTC)
    task_id, moment = new_id(now), in_database(now)
    await execute(CREATE, task_id, user_id, fields["title"], moment)
    row = (task_id, fields["title"], None, "todo", None, False, username, moment, moment)
    return dumps(dict(zip(ITEM, row, strict=True)))


async def refresh(form: dict[str, list[str]]) -> bytes:
    claims = verify(form["refresh_token"][0])
    now = in_database(datetime.now(UTC))
    ((generation, _),) = await execute(MOVE, claims["sid"], claims["gen"], now)
    return tokens_of(claims["sub"], claims["sid"], generation, claims["exp"])


async def log_in(form: dict[str, list[str]]) -> bytes:
    ((user_id, password_hash),) = await execute(ACCOUNT, form["username"][0])
    await asyncio.get_running_loop().run_in_executor(threads, hasher.verify, password_hash, form["password"][0])
    now = datetime.now(UTC)
    session_id, ends_at = new_id(now), now + timedelta(days=30)
    await execute(LOG_IN, session_id, user_id, SCOPES, in_database(now), in_database(ends_at))
    return tokens_of(str(user_id), session_id, 1, int(ends_at.timestamp()))


async def answer(scope: Scope, body: bytes) -> bytes:
    path = scope["path"]
    if path == "/auth/token":
        form = parse_qs(body.decode())
        return await (refresh(form) if "refresh_token" in form else log_in(form))
    header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if header is None:
        return page(await execute(PUBLIC))
    claims = verify(header.decode()[7:])
    if scope["method"] == "POST":
        return await create(claims, body)
    return await (list_own(claims) if path == "/tasks/mine" else read_one(claims, unquote(path[7:])))


async def app(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    global execute  # noqa: PLW0603 - the lifespan of a whole process
    if scope["type"] == "lifespan":
        await receive()
        execute = await open_database()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    if scope["path"] == "/health/ready":
        answered = b"{}"
    else:
        if scope["method"] == "POST":
            message = await receive()
            body = message["body"]
            while message["more_body"]:
                message = await receive()
                body += message["body"]
        answered = await answer(scope, body)
    headers = [*JSON_HEADERS, (b"content-length", str(len(answered)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answered})
