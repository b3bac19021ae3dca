"""/auth: tokens and sessions."""

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from app.auth import errors
from app.auth.dependencies import AccountDb, AppLoginService, AppServices, CallerDb, FreshAccountDb
from app.auth.forms import FormFields, FormToken, TokenField, TokenFields, TokenForm, form_of
from app.auth.personal_tokens import list_tokens
from app.auth.schemas import (
    SCOPES,
    Introspection,
    KeySet,
    Metadata,
    PersonalTokenCreated,
    PersonalTokenPage,
    Revocation,
    SessionPage,
    SessionQuery,
    TokenCreate,
    TokenResponse,
)
from app.auth.sessions import list_sessions
from app.http.error_responses import NO_STORE
from app.http.fields import PathId
from app.http.openapi import describe
from app.http.planned_route import PlannedRoute
from app.http.router import Router
from app.pagination.page import PAGE, PageQuery

FORM_PATHS = frozenset({"/auth/token", "/auth/revoke", "/auth/introspect"})

FORM_ERRORS = (errors.InvalidRequest, errors.FieldRequired)
GRANT_ERRORS = (
    *(errors.InvalidScope, errors.UnsupportedGrantType, errors.InvalidGrant, errors.TokenReused),
    *(errors.InvalidCredentials, errors.MFARequired, errors.InvalidOneTimeCode, errors.TooManyAttempts),
    *(errors.HashingQueueFull, errors.ClockBehind),
)
TOKEN_ERRORS = describe(errors.StaleLogin, errors.TooManyTokens)

oauth_router = Router(prefix="/auth", tags=["auth"], route_class=PlannedRoute, responses=describe(*FORM_ERRORS))
router = Router(prefix="/auth", tags=["auth"], route_class=PlannedRoute)
well_known = Router(prefix="/.well-known", tags=["auth"])


@oauth_router.post(
    "/token",
    response_model=TokenResponse,
    responses=describe(*FORM_ERRORS, *GRANT_ERRORS),
    openapi_extra=form_of(TokenFields),
)
async def issue_token(form: TokenForm, logins: AppLoginService) -> Response:
    """Log in with username and password, or refresh with a refresh token (RFC 6749 §4.3, §6).

    A refresh token works once. A repeat gets the same successor again, shortly after or as long as nobody has used the
    successor, unless `REFRESH_GRACE` is 0. Any other repeat ends the session. 503 means that the token is still good:
    try again later.
    """
    match form.grant_type:
        case "" | "password":
            return _unstored(await logins.log_in(form.username, form.password, form.otp, form.scopes))
        case "refresh_token":
            return _unstored(await logins.refresh(form.refresh_token, form.scopes))
        case _:
            raise errors.UnsupportedGrantType


@oauth_router.post("/revoke", response_model=Revocation, openapi_extra=form_of(TokenField))
async def revoke_token(token: FormToken, logins: AppLoginService) -> Response:
    """Log out: end the session of an access or refresh token, of any age. An unknown token is 200 too (RFC 7009)."""
    await logins.revoke(token)
    return _unstored(Revocation())


@oauth_router.post("/introspect", response_model=Introspection, openapi_extra=form_of(TokenField))
async def introspect_token(_: FormFields, db: CallerDb, token: FormToken, logins: AppLoginService) -> Response:
    """Ask whether a token of yours is live, and what it is good for (RFC 7662). Administrators may ask about any.

    The service takes a token that is asked about as used.
    """
    return _unstored(await logins.introspect(db, token))


@router.get("/sessions", response_model=SessionPage, responses=PAGE)
async def list_own_sessions(db: AccountDb, query: Annotated[SessionQuery, Query()], request: Request) -> Response:
    """List your live sessions, the latest login first, or those that ended within 30 days, and why."""
    page = await db.read(
        lambda connection, user: list_sessions(connection, user.user_id, query, db.moment, user.session_id)
    )
    return page.response(request, query)


@router.delete("/sessions/{session_id}", status_code=204, responses=describe(errors.SessionNotFound))
async def delete_session(session_id: PathId, db: AccountDb, logins: AppLoginService) -> None:
    """End one of your sessions. Its tokens stop working at once."""
    await logins.end_session(db, session_id)


@router.delete("/sessions", status_code=204)
async def delete_other_sessions(db: AccountDb, logins: AppLoginService) -> None:
    """End all of your sessions but this one."""
    await logins.end_other_sessions(db)


@router.post("/tokens", status_code=201, responses=TOKEN_ERRORS)
async def create_personal_token(
    fields: TokenCreate, db: FreshAccountDb, logins: AppLoginService, response: Response
) -> PersonalTokenCreated:
    """Make a personal token, for a script. It goes where an access token goes. This needs a fresh login (RFC 9470).

    The answer is the only place that shows the token. It has no refresh token, and works until it expires or you
    delete it. A personal token cannot make another one.
    """
    response.headers.update(NO_STORE)
    return await logins.create_token(db, fields)


@router.get("/tokens", response_model=PersonalTokenPage, responses=PAGE)
async def list_personal_tokens(db: AccountDb, query: Annotated[PageQuery, Query()], request: Request) -> Response:
    """List your live personal tokens, the latest first."""
    page = await db.read(lambda connection, user: list_tokens(connection, user.user_id, query, db.moment))
    return page.response(request, query)


@router.delete("/tokens/{token_id}", status_code=204, responses=describe(errors.TokenNotFound))
async def delete_personal_token(token_id: PathId, db: AccountDb, logins: AppLoginService) -> None:
    """Delete one of your personal tokens. It stops working at once."""
    await logins.end_session(db, token_id, "personal")


@well_known.get("/oauth-authorization-server", response_model_exclude_none=True)
async def read_metadata(services: AppServices) -> Metadata:
    """The metadata that OAuth clients read (RFC 8414)."""
    url = services.settings.public_url
    return Metadata(
        issuer=url,
        token_endpoint=f"{url}/auth/token",
        revocation_endpoint=f"{url}/auth/revoke",
        introspection_endpoint=f"{url}/auth/introspect",
        jwks_uri=f"{url}/.well-known/jwks.json" if services.tokens.public_keys else None,
        service_documentation=f"{url}/docs",
        scopes_supported=list(SCOPES),
        response_types_supported=[],
        grant_types_supported=["password", "refresh_token"],
        token_endpoint_auth_methods_supported=["none"],
        revocation_endpoint_auth_methods_supported=["none"],
        introspection_endpoint_auth_methods_supported=["Bearer"],
    )


@well_known.get("/jwks.json")
async def read_keys(services: AppServices, response: Response) -> KeySet:
    """The public keys that verify access tokens. The list is empty while a secret signs them."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return KeySet(keys=services.tokens.public_keys)


def _unstored(answer: BaseModel) -> Response:
    """An answer that no cache may keep (RFC 6749 §5.1)."""
    return Response(answer.model_dump_json(exclude_none=True), headers=NO_STORE, media_type="application/json")
