"""/auth: tokens and sessions."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.auth.dependencies import AccountDb, AppLoginService, AppServices, CallerDb, UserRoute
from app.auth.errors import (
    ClockBehind,
    FieldRequired,
    HashingQueueFull,
    InvalidCredentials,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    SessionNotFound,
    TokenReused,
    TooManyAttempts,
    UnsupportedGrantType,
)
from app.auth.forms import FormFields, FormToken, TokenField, TokenFields, TokenForm, form_of
from app.auth.refresh import introspect
from app.auth.schemas import SCOPES, Introspection, KeySet, Metadata, Revocation, SessionPage, TokenResponse
from app.auth.service import end_other_sessions, end_own_session, end_session, list_sessions
from app.auth.tokens import BadToken
from app.clock import Now
from app.db.types import PathId
from app.http.error_responses import NO_STORE
from app.http.openapi import describe
from app.http.query import StrictRoute
from app.observe.events import log_event
from app.pagination.page import PAGE, PageQuery

FORM_PATHS = frozenset({"/auth/token", "/auth/revoke", "/auth/introspect"})

KEYS_MAX_AGE = 300  # seconds

FORM_ERRORS = (InvalidRequest, FieldRequired)
GRANT_ERRORS = (
    *(InvalidScope, UnsupportedGrantType, InvalidGrant, TokenReused),
    *(InvalidCredentials, TooManyAttempts, HashingQueueFull, ClockBehind),
)

forms = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute, responses=describe(*FORM_ERRORS))
router = APIRouter(prefix="/auth", tags=["auth"], route_class=UserRoute)
well_known = APIRouter(prefix="/.well-known", tags=["auth"], route_class=StrictRoute)


@forms.post(
    "/token",
    response_model=TokenResponse,
    responses=describe(*FORM_ERRORS, *GRANT_ERRORS),
    openapi_extra=form_of(TokenFields),
)
async def issue_token(form: TokenForm, grants: AppLoginService) -> Response:
    """Log in with username and password, or refresh with a refresh token (RFC 6749 §4.3, §6).

    Each refresh token is good once. A repeat gets the same successor again: within ten seconds, or later as long as
    nobody has used that. Any other repeat ends the session. 503 means that the token is still good: try again later.
    """
    match form.grant_type:
        case "" | "password":
            return _unstored(await grants.log_in(form.username, form.password, form.scopes))
        case "refresh_token":
            return _unstored(await grants.refresh(form.refresh_token, form.scopes))
        case _:
            raise UnsupportedGrantType


@forms.post("/revoke", response_model=Revocation, openapi_extra=form_of(TokenField))
async def revoke_token(token: FormToken, services: AppServices, now: Now) -> Response:
    """Log out: end the session of an access or refresh token, of any age. An unknown one is 200 too (RFC 7009 §2.2)."""
    with suppress(BadToken):
        claims = services.tokens.verify_session_token(token)
        if await services.database.write(end_session, claims, "revoked", now):
            log_event("session_revoked", user_id=claims.sub, session_id=claims.sid)
    return _unstored(Revocation())


@forms.post(
    "/introspect",
    response_model=Introspection,
    openapi_extra=form_of(TokenField),
)
async def introspect_token(_: FormFields, db: CallerDb, token: FormToken, services: AppServices, now: Now) -> Response:
    """Ask whether a token of yours, or for administrators anyone's, is live, and what it is good for (RFC 7662).

    To ask about a token is to use it: somebody has it.
    """
    try:
        claims = services.tokens.verify_session_token(token, now)
    except BadToken:
        await db.current_user()
        return _unstored(Introspection(active=False))
    answer = await db.read(introspect, claims, now)
    if answer.active:
        await services.uses.note(services.database, claims)
    return _unstored(answer)


@router.get("/sessions", response_model=SessionPage, responses=PAGE)
@router.get("/sessions/", include_in_schema=False)
async def list_own_sessions(
    db: AccountDb, query: Annotated[PageQuery, Query()], now: Now, request: Request
) -> Response:
    """List your live sessions, the latest login first."""
    page = await db.read(list_sessions, query, now)
    return page.response(request, query)


@router.delete("/sessions/{session_id}", status_code=204, responses=describe(SessionNotFound))
async def delete_session(session_id: PathId, db: AccountDb, now: Now) -> None:
    """End one of your sessions; its tokens stop working at once."""
    await db.write(lambda connection, user: end_own_session(connection, user.user_id, session_id, now))
    log_event("session_revoked", session_id=session_id)


@router.delete("/sessions", status_code=204)
@router.delete("/sessions/", status_code=204, include_in_schema=False)
async def delete_other_sessions(db: AccountDb, now: Now) -> None:
    """End all of your sessions but this one."""
    await db.write(end_other_sessions, "revoked", now)
    log_event("session_revoked", reason="all but this one")


@well_known.get("/oauth-authorization-server", response_model_exclude_none=True)
async def read_metadata(services: AppServices) -> Metadata:
    """Everything that an OAuth client needs to know (RFC 8414)."""
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
    """The public keys that access tokens can be verified with; none while they are signed with a secret."""
    response.headers["Cache-Control"] = f"public, max-age={KEYS_MAX_AGE}"
    return KeySet(keys=services.tokens.public_keys)


def _unstored(answer: BaseModel) -> Response:
    """An answer that nobody may keep (RFC 6749 §5.1)."""
    return Response(answer.model_dump_json(exclude_none=True), headers=NO_STORE, media_type="application/json")
