"""The bearer schemes, the caller of a request, and the databases and services that endpoints get."""

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection

from app.auth import callers
from app.auth.access import AdminDatabase, CallerDatabase
from app.auth.claims import AccessClaims
from app.auth.errors import InsufficientScope, InvalidToken, NotAuthenticated, RepeatedCredentials
from app.auth.liveness import Moment
from app.auth.login_service import LoginService
from app.auth.networks import LoginOrigin
from app.auth.schemas import SCOPES
from app.auth.services import Services
from app.auth.token_format import PREFIX
from app.auth.tokens import BadToken, ExpiredToken
from app.clock import Now
from app.config import Settings
from app.observe.events import bind_caller

AUTHORIZE: Final = (
    "Fill in username and password. If the account has a second factor, put the one-time code into `client_secret`. "
    "The other fields may stay empty."
)
PERSONAL_TOKEN: Final = {"type": "http", "scheme": "bearer", "description": "A token of `POST /auth/tokens`: `bt_…`"}
"""A scheme of the document alone, for /docs. `Bearer` reads these tokens too."""


class Bearer(OAuth2PasswordBearer):
    """FastAPI's scheme with a realm in the challenge. `tokenUrl` is relative, so that /docs logs in behind a prefix."""

    def __init__(self, *, auto_error: bool) -> None:
        options: dict[str, Any] = {"refreshUrl": "auth/token", "description": AUTHORIZE, "auto_error": auto_error}
        super().__init__("auth/token", "OAuth2PasswordBearer", SCOPES, **options)

    async def __call__(self, request: HTTPConnection) -> str | None:
        """Read the token. Several Authorization headers are a malformed request (RFC 6750 §3.1)."""
        headers = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(headers) > 1:
            raise RepeatedCredentials
        scheme, _, token = headers[0].partition(b" ") if headers else (b"", b"", b"")
        if scheme.lower() == b"bearer":
            return token.strip(b" ").decode("latin-1")
        if self.auto_error:
            raise NotAuthenticated
        return None


async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def get_settings(request: Request) -> Settings:
    return (await get_services(request)).settings


AppServices = Annotated[Services, Depends(get_services)]
AppSettings = Annotated[Settings, Depends(get_settings)]
BearerToken = Annotated[str, Depends(Bearer(auto_error=True))]
OptionalBearerToken = Annotated[str | None, Depends(Bearer(auto_error=False))]


async def get_caller_database(request: Request, scopes: SecurityScopes, token: BearerToken, now: Now) -> CallerDatabase:
    services = await get_services(request)  # called here: as a dependency it would cost more
    try:
        if token.startswith(PREFIX):
            claims = await services.personal_tokens.verify(services.database, token, now)
            await services.personal_tokens.note_use(services.database, claims, now)
        else:
            claims = services.tokens.verify(AccessClaims, token, now)
            await services.uses.note(services.database, claims)
    except ExpiredToken as error:
        raise InvalidToken("The access token has expired") from error
    except BadToken as error:
        raise InvalidToken from error
    bind_caller(claims.sub, claims.sid)
    caller_db = CallerDatabase(services.database, claims, scopes.scopes, Moment.at(now, services.settings))
    request.state.check_caller = caller_db.current_user
    return caller_db


async def get_optional_caller_database(
    request: Request, scopes: SecurityScopes, token: OptionalBearerToken, now: Now
) -> CallerDatabase | None:
    """None without a token. A bad token is refused: a client whose token has expired must not get the public view."""
    return None if token is None else await get_caller_database(request, scopes, token, now)


CallerDb = Annotated[CallerDatabase, Security(get_caller_database)]
OptionalCallerDb = Annotated[CallerDatabase | None, Security(get_optional_caller_database)]


async def get_fresh_caller_database(request: Request, db: CallerDb, settings: AppSettings) -> CallerDatabase:
    """For requests that could take the account over: they need a recent login (RFC 9470)."""
    fresh_db = replace(db, max_age=settings.fresh_login)
    request.state.check_caller = fresh_db.current_user
    return fresh_db


async def get_admin_database(db: CallerDb) -> AdminDatabase:
    return AdminDatabase(db)


async def get_current_user(db: CallerDb) -> callers.CurrentUser:
    return await db.current_user()


async def get_optional_user(db: OptionalCallerDb) -> callers.CurrentUser | None:
    return await db.current_user() if db else None


CurrentUser = Annotated[callers.CurrentUser, Security(get_current_user)]
"""The caller, after the database was asked. To act in the same transaction, take a database from below."""

OptionalUser = Annotated[callers.CurrentUser | None, Security(get_optional_user)]
"""The same, or None without a token."""

AccountDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["account"])]
FreshAccountDb = Annotated[CallerDatabase, Security(get_fresh_caller_database, scopes=["account"])]
AdminDb = Annotated[AdminDatabase, Security(get_admin_database, scopes=["admin"])]

BEARER_ERRORS = (RepeatedCredentials, NotAuthenticated, InvalidToken, InsufficientScope)


async def get_login_origin(request: Request) -> LoginOrigin:
    user_agent = "".join(filter(str.isprintable, request.headers.get("user-agent", "")))
    return LoginOrigin(user_agent[:255], request.client.host[:45] if request.client else "")


RequestOrigin = Annotated[LoginOrigin, Depends(get_login_origin)]


async def get_login_service(services: AppServices, origin: RequestOrigin, now: Now) -> LoginService:
    return LoginService(services, origin, now)


AppLoginService = Annotated[LoginService, Depends(get_login_service)]
