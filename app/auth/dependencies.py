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
from app.auth.schemas import SCOPES
from app.auth.services import Services
from app.auth.tokens import BadToken, ExpiredToken
from app.clock import Now
from app.config import AppSettings
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


async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


AppServices = Annotated[Services, Depends(get_services)]
BearerToken = Annotated[str, Depends(Bearer(auto_error=True))]
OptionalBearerToken = Annotated[str | None, Depends(Bearer(auto_error=False))]


async def get_caller_database(request: Request, scopes: SecurityScopes, token: BearerToken, now: Now) -> CallerDb:
    services = await get_services(request)  # called here: as a dependency it would cost more
    try:
        claims = services.tokens.verify(AccessClaims, token, now)
    except ExpiredToken as error:
        raise InvalidToken("The access token has expired") from error
    except BadToken as error:
        raise InvalidToken from error
    await services.uses.note(services.database, claims)
    bind_caller(claims.sub, claims.sid)
    db: CallerDb = CallerDatabase(services.database, claims, scopes.scopes, now)
    request.state.check_caller = db.current_user
    return db


async def get_optional_caller_database(
    request: Request, scopes: SecurityScopes, token: OptionalBearerToken, now: Now
) -> OptionalCallerDb:
    """A bad token is refused, so that a client whose token ran out does not see less and wonder."""
    if token is None:
        return CallerDatabase((await get_services(request)).database, None, scopes.scopes, now)
    return cast("OptionalCallerDb", await get_caller_database(request, scopes, token, now))


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


async def get_login_service(services: AppServices, origin: RequestOrigin, now: Now) -> LoginService:
    return LoginService(services, origin, now)


AppLoginService = Annotated[LoginService, Depends(get_login_service)]
