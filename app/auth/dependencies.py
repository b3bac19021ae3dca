"""Who calls, and with what: the bearer schemes, and what the endpoints are handed."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Annotated, Any, ParamSpec, TypeVar, cast

from fastapi import Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection

from app.auth import callers
from app.auth.access import AdminDatabase, CallerDatabase, CallerDb, OptionalCallerDb
from app.auth.claims import AccessClaims
from app.auth.errors import InsufficientScope, InvalidToken, NotAuthenticated, RepeatedCredentials
from app.auth.login_service import LoginService
from app.auth.logins import LoginOrigin
from app.auth.passwords import Passwords
from app.auth.refresh import Uses
from app.auth.schemas import SCOPES
from app.auth.throttle import Limiter
from app.auth.tokens import BadToken, ExpiredToken, Tokens
from app.clock import Now
from app.config import AppSettings
from app.db.database import Db
from app.errors import UnsupportedMediaType
from app.http.json_body import JSONRoute
from app.observe.events import bind_caller

P = ParamSpec("P")
T = TypeVar("T")


class Bearer(OAuth2PasswordBearer):
    """FastAPI's scheme with a realm in the challenge. `tokenUrl` is relative, so that /docs logs in behind a prefix."""

    def __init__(self, *, auto_error: bool) -> None:
        super().__init__("auth/token", "OAuth2PasswordBearer", SCOPES, refreshUrl="auth/token", auto_error=False)
        self.is_required = auto_error

    async def __call__(self, request: HTTPConnection) -> str | None:
        """The token; several Authorization headers are a malformed request (RFC 6750 §3.1).

        FastAPI strips more than RFC 9110's white space from it, so what is not ASCII stays whole: no token is.
        """
        [header, *others] = request.headers.getlist("authorization") or [""]
        if others:
            raise RepeatedCredentials
        token = await super().__call__(request)
        if token is None and self.is_required:
            raise NotAuthenticated
        return header if token and not header.isascii() else token


async def get_tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


async def get_uses(request: Request) -> Uses:
    uses: Uses = request.app.state.uses
    return uses


async def get_passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


async def get_limiter(request: Request) -> Limiter:
    limiter: Limiter = request.app.state.limiter
    return limiter


AppTokens = Annotated[Tokens, Depends(get_tokens)]
AppUses = Annotated[Uses, Depends(get_uses)]
AppPasswords = Annotated[Passwords, Depends(get_passwords)]
AppLimiter = Annotated[Limiter, Depends(get_limiter)]
BearerToken = Annotated[str, Depends(Bearer(auto_error=True))]
OptionalBearerToken = Annotated[str | None, Depends(Bearer(auto_error=False))]


async def get_caller_database(
    request: Request, scopes: SecurityScopes, token: BearerToken, tokens: AppTokens, db: Db, now: Now
) -> CallerDb:
    try:
        claims = tokens.verify(AccessClaims, token, now)
    except ExpiredToken as error:
        raise InvalidToken("The access token has expired") from error
    except BadToken as error:
        raise InvalidToken from error
    uses = await get_uses(request)  # called here: to be handed it costs more
    await uses.note(db, claims)
    bind_caller(claims.sub, claims.sid)
    caller_db: CallerDb = CallerDatabase(db, claims, scopes.scopes, now)
    request.state.check_caller = caller_db.current_user
    return caller_db


async def get_optional_caller_database(
    request: Request, scopes: SecurityScopes, token: OptionalBearerToken, tokens: AppTokens, db: Db, now: Now
) -> OptionalCallerDb:
    """A bad token is refused, so that a client whose token ran out does not see less and wonder."""
    if token is None:
        return CallerDatabase(db, None, scopes.scopes, now)
    return cast("OptionalCallerDb", await get_caller_database(request, scopes, token, tokens, db, now))


async def get_fresh_caller_database(
    request: Request, db: Annotated[CallerDb, Security(get_caller_database)], settings: AppSettings
) -> CallerDb:
    """For what could take the account over: it takes a login of a moment ago (RFC 9470)."""
    fresh: CallerDb = replace(db, max_age=settings.fresh_login)
    request.state.check_caller = fresh.current_user
    return fresh


async def get_admin_database(db: Annotated[CallerDb, Security(get_caller_database)]) -> AdminDatabase:
    return AdminDatabase(db)


async def get_current_user(db: Annotated[CallerDb, Security(get_caller_database)]) -> callers.CurrentUser:
    return await db.current_user()


CurrentUser = Annotated[callers.CurrentUser, Security(get_current_user)]
"""The caller, after the database was asked. To act in the same transaction, take one of those below."""

AnyCallerDb = Annotated[CallerDb, Security(get_caller_database)]
AccountDb = Annotated[CallerDb, Security(get_caller_database, scopes=["account"])]
FreshAccountDb = Annotated[CallerDb, Security(get_fresh_caller_database, scopes=["account"])]
AdminDb = Annotated[AdminDatabase, Security(get_admin_database, scopes=["admin"])]


class UserRoute(JSONRoute):
    """A route that tells nobody what is wrong with a request but who may make it; but for a body that is no JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_users(request: Request) -> Response:
            try:
                return await handle(request)
            except (RequestValidationError, UnsupportedMediaType):
                if check := getattr(request.state, "check_caller", None):
                    await check()
                raise

        return handle_for_users


BEARER_ERRORS = (RepeatedCredentials, NotAuthenticated, InvalidToken, InsufficientScope)


async def get_login_origin(request: Request) -> LoginOrigin:
    user_agent = "".join(filter(str.isprintable, request.headers.get("user-agent", "")))
    return LoginOrigin(user_agent[:255], request.client.host[:45] if request.client else "")


RequestOrigin = Annotated[LoginOrigin, Depends(get_login_origin)]


async def get_login_service(
    settings: AppSettings,
    db: Db,
    passwords: AppPasswords,
    tokens: AppTokens,
    limiter: AppLimiter,
    client: RequestOrigin,
    now: Now,
) -> LoginService:
    return LoginService(settings, db, passwords, tokens, limiter, client, now)


AppLoginService = Annotated[LoginService, Depends(get_login_service)]
