"""Who calls, and with what: the bearer schemes, and what the endpoints are handed."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from fastapi import Depends, HTTPException, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from app.auth.errors import REALM, InsufficientScope, InvalidToken, RepeatedCredentials
from app.auth.grants import Grants
from app.auth.holders import Holder, Principal, get_principal
from app.auth.passwords import Passwords
from app.auth.schemas import SCOPES
from app.auth.service import Client
from app.auth.throttle import Limiter
from app.auth.tokens import AccessClaims, BadToken, ExpiredToken, Tokens
from app.bodies import JSONRoute
from app.clock import Now
from app.config import AppSettings
from app.database import Database, Db
from app.errors import AppError, UnsupportedMediaType, describe
from app.events import identify

P = ParamSpec("P")
T = TypeVar("T")


class Bearer(OAuth2PasswordBearer):
    """FastAPI's scheme with a realm in the challenge. `tokenUrl` is relative, so that /docs logs in behind a prefix."""

    def __init__(self, *, auto_error: bool) -> None:
        super().__init__("auth/token", "OAuth2PasswordBearer", SCOPES, refreshUrl="auth/token", auto_error=auto_error)

    async def __call__(self, request: HTTPConnection) -> str | None:
        """The token; several Authorization headers are a malformed request (RFC 6750 §3.1).

        FastAPI strips more than RFC 9110's white space from it, so what is not ASCII stays whole: no token is.
        """
        [header, *others] = request.headers.getlist("authorization") or [""]
        if others:
            raise RepeatedCredentials
        token = await super().__call__(request)
        return header if token and not header.isascii() else token

    def make_not_authenticated_error(self) -> HTTPException:
        """No `error` where no token came (RFC 6750 §3.1)."""
        return HTTPException(401, "Not authenticated", {"WWW-Authenticate": f'Bearer realm="{REALM}"'})


async def get_tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


async def get_passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


async def get_limiter(request: Request) -> Limiter:
    limiter: Limiter = request.app.state.limiter
    return limiter


AppTokens = Annotated[Tokens, Depends(get_tokens)]
AppPasswords = Annotated[Passwords, Depends(get_passwords)]
AppLimiter = Annotated[Limiter, Depends(get_limiter)]
BearerToken = Annotated[str, Depends(Bearer(auto_error=True))]
OptionalBearerToken = Annotated[str | None, Depends(Bearer(auto_error=False))]


Who = TypeVar("Who", bound=Principal | None)
Held = TypeVar("Held", bound=Holder | None)


@dataclass(frozen=True, slots=True)
class UserDatabase(Generic[Who, Held]):
    """The database in the hands of who has a token: no call does anything for them unless their session is live.

    `read` and `write` look at it first, `find` and `make` with the very statement that does the work. The function is
    handed who they are; None where a token is optional and there is none.

    Raises:
        InvalidToken, InsufficientScope: as `get_principal` has it, from each call.
    """

    db: Database
    claims: AccessClaims | None
    required: Sequence[str]
    now: datetime

    async def read(self, f: Callable[Concatenate[Connection, Who, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.read_for(
            self._caller, lambda connection: f(connection, self._who(connection), *args, **kwargs)
        )

    async def write(self, f: Callable[Concatenate[Connection, Who, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.write(lambda connection: f(connection, self._who(connection), *args, **kwargs))

    async def find(self, f: Callable[Concatenate[Connection, Held, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read with a function each of whose statements has `IS_LIVE` in it, where there is a token.

        What it finds is proof that the session is live, and saves a statement; else the session is looked at by itself.
        """
        return await self.db.read_for(
            self._caller, self._find, lambda connection, held: f(connection, held, *args, **kwargs)
        )

    async def make(self, f: Callable[Concatenate[Connection, Held, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Write as `find` reads: whatever the function's statements write or find, `IS_LIVE` is in them."""
        return await self.db.write_one(self._find, lambda connection, held: f(connection, held, *args, **kwargs))

    async def who(self) -> Who:
        return await self.db.read(self._who)

    @property
    def _caller(self) -> str | None:
        return self.claims.sub if self.claims else None

    def _find(self, connection: Connection, f: Callable[[Connection, Held], T]) -> T:
        holder = Holder(self.claims.sub, self.claims.sid, self.now) if self.claims else None
        if not self._is_enough():
            self._who(connection)
        try:
            found = f(connection, cast("Held", holder))
        except AppError:
            self._who(connection)
            raise
        if not found:
            self._who(connection)
        return found

    def _is_enough(self) -> bool:
        """Whether the token's scopes are, for everybody: an administrator may be none any more."""
        return self.claims is None or (self.claims.scopes.issuperset(self.required) and "admin" not in self.required)

    def _who(self, connection: Connection) -> Who:
        who = self.claims and get_principal(connection, self.claims, self.required, self.now)
        return cast("Who", who)


UserDb = UserDatabase[Principal, Holder]
OptionalUserDb = UserDatabase[Principal | None, Holder | None]


async def get_user_database(
    request: Request, scopes: SecurityScopes, token: BearerToken, tokens: AppTokens, db: Db, now: Now
) -> UserDb:
    try:
        claims = tokens.read(AccessClaims, token, now)
    except ExpiredToken as error:
        raise InvalidToken("The access token has expired") from error
    except BadToken as error:
        raise InvalidToken from error
    identify(claims.sub, claims.sid)
    user: UserDb = UserDatabase(db, claims, scopes.scopes, now)
    request.state.user = user
    return user


async def get_optional_user_database(
    request: Request, scopes: SecurityScopes, token: OptionalBearerToken, tokens: AppTokens, db: Db, now: Now
) -> OptionalUserDb:
    """A bad token is refused, so that a client whose token ran out does not see less and wonder."""
    if token is None:
        return UserDatabase(db, None, scopes.scopes, now)
    user = await get_user_database(request, scopes, token, tokens, db, now)
    return cast("OptionalUserDb", user)


async def get_current_user(user: Annotated[UserDb, Security(get_user_database)]) -> Principal:
    return await user.who()


CurrentUser = Annotated[Principal, Security(get_current_user)]
AccountUser = Annotated[Principal, Security(get_current_user, scopes=["account"])]
AdminUser = Annotated[Principal, Security(get_current_user, scopes=["admin"])]


class UserRoute(JSONRoute):
    """A route that tells nobody what is wrong with a request but who may make it; but for a body that is no JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_users(request: Request) -> Response:
            try:
                return await handle(request)
            except (RequestValidationError, UnsupportedMediaType):
                if user := getattr(request.state, "user", None):
                    await user.who()
                raise

        return handle_for_users


BEARER_ERRORS = describe(RepeatedCredentials, InvalidToken, InsufficientScope)


async def get_client(request: Request) -> Client:
    user_agent = "".join(filter(str.isprintable, request.headers.get("user-agent", "")))
    return Client(user_agent[:255], request.client.host[:45] if request.client else "")


LoginClient = Annotated[Client, Depends(get_client)]


async def get_grants(
    settings: AppSettings,
    db: Db,
    passwords: AppPasswords,
    tokens: AppTokens,
    limiter: AppLimiter,
    client: LoginClient,
    now: Now,
) -> Grants:
    return Grants(settings, db, passwords, tokens, limiter, client, now)


TokenGrants = Annotated[Grants, Depends(get_grants)]
