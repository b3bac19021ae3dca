"""Who calls, and with what: the bearer schemes, and what the endpoints are handed."""

from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection

from app.auth.errors import REALM, InsufficientScope, InvalidToken, RepeatedCredentials
from app.auth.grants import Grants
from app.auth.passwords import Passwords
from app.auth.schemas import SCOPES
from app.auth.service import Client, Principal, get_principal
from app.auth.tokens import AccessClaims, BadToken, ExpiredToken, Tokens
from app.clock import Now
from app.config import AppSettings
from app.database import Db
from app.errors import describe


class Bearer(OAuth2PasswordBearer):
    """FastAPI's scheme with a realm in the challenge. `tokenUrl` is relative, so that /docs logs in behind a prefix."""

    def __init__(self, *, auto_error: bool) -> None:
        super().__init__("auth/token", "OAuth2PasswordBearer", SCOPES, refreshUrl="auth/token", auto_error=auto_error)

    async def __call__(self, request: HTTPConnection) -> str | None:
        """The token; several Authorization headers are a malformed request (RFC 6750 §3.1)."""
        if len(request.headers.getlist("authorization")) > 1:
            raise RepeatedCredentials
        return await super().__call__(request)

    def make_not_authenticated_error(self) -> HTTPException:
        """No `error` where no token came (RFC 6750 §3.1)."""
        return HTTPException(401, "Not authenticated", {"WWW-Authenticate": f'Bearer realm="{REALM}"'})


async def get_tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


async def get_passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


AppTokens = Annotated[Tokens, Depends(get_tokens)]
AppPasswords = Annotated[Passwords, Depends(get_passwords)]
BearerToken = Annotated[str, Depends(Bearer(auto_error=True))]
OptionalBearerToken = Annotated[str | None, Depends(Bearer(auto_error=False))]


async def get_current_user(
    scopes: SecurityScopes, token: BearerToken, tokens: AppTokens, db: Db, now: Now
) -> Principal:
    try:
        claims = tokens.read(AccessClaims, token, now)
    except ExpiredToken as error:
        raise InvalidToken("The access token has expired") from error
    except BadToken as error:
        raise InvalidToken from error
    user = await db.read(get_principal, claims, now)
    if not user.scopes.issuperset(scopes.scopes):
        raise InsufficientScope(scopes.scope_str)
    return user


async def get_optional_user(
    scopes: SecurityScopes, token: OptionalBearerToken, tokens: AppTokens, db: Db, now: Now
) -> Principal | None:
    """None without a token; a bad one is refused, so that a client whose token ran out does not see less and wonder."""
    return None if token is None else await get_current_user(scopes, token, tokens, db, now)


CurrentUser = Annotated[Principal, Security(get_current_user)]
OptionalUser = Annotated[Principal | None, Security(get_optional_user)]
AccountUser = Annotated[Principal, Security(get_current_user, scopes=["account"])]


BEARER_ERRORS = describe(RepeatedCredentials, InvalidToken, InsufficientScope)


async def get_client(request: Request) -> Client:
    user_agent = "".join(filter(str.isprintable, request.headers.get("user-agent", "")))
    return Client(user_agent[:255], request.client.host if request.client else "")


async def get_grants(settings: AppSettings, db: Db, passwords: AppPasswords, tokens: AppTokens, now: Now) -> Grants:
    return Grants(settings, db, passwords, tokens, now)


LoginClient = Annotated[Client, Depends(get_client)]
TokenGrants = Annotated[Grants, Depends(get_grants)]
