"""/auth: tokens and sessions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from app.auth.dependencies import AccountUser, AppTokens, LoginClient, TokenGrants
from app.auth.errors import UnsupportedGrantType
from app.auth.forms import FormRoute, TokenForm
from app.auth.schemas import SessionPage, TokenResponse
from app.auth.service import end_other_sessions, end_own_session, end_session, list_sessions
from app.auth.tokens import BadToken
from app.clock import Now
from app.columns import PathId
from app.database import Db
from app.pagination import PageQuery

FORM_PATHS = frozenset({"/auth/token", "/auth/revoke"})

forms = APIRouter(prefix="/auth", tags=["auth"], route_class=FormRoute)
router = APIRouter(prefix="/auth", tags=["auth"])


@forms.post("/token")
async def issue_token(form: Annotated[TokenForm, Depends()], client: LoginClient, grants: TokenGrants) -> TokenResponse:
    """Log in with username and password, or refresh with a refresh token (RFC 6749 §4.3, §6).

    Each refresh token is good once; a repeat within ten seconds gets the same successor again.
    """
    match form.grant_type:
        case None | "password":
            form.require("username", "password")
            return await grants.log_in(form.username, form.password, form.scopes, client)
        case "refresh_token":
            form.require("refresh_token")
            return await grants.refresh(form.refresh_token, form.scopes)
        case _:
            raise UnsupportedGrantType


@forms.post("/revoke", response_class=Response)
async def revoke_token(token: Annotated[str, Form()], tokens: AppTokens, db: Db, now: Now) -> None:
    """Log out: end the session of an access or refresh token, of any age. An unknown one is 200 too (RFC 7009 §2.2)."""
    try:
        session_id = tokens.read_any(token).sid
    except BadToken:
        return
    await db.write(end_session, session_id, "revoked", now)


@router.get("/sessions/", response_model=SessionPage)
@router.get("/sessions", include_in_schema=False)
async def list_own_sessions(
    user: AccountUser, query: Annotated[PageQuery, Query()], db: Db, now: Now, request: Request
) -> Response:
    """List your live sessions, the latest login first."""
    page = await db.read(list_sessions, user, query, now)
    return page.response(request)


@router.delete("/sessions/{session_id}", status_code=204)
async def delete_session(session_id: PathId, user: AccountUser, db: Db, now: Now) -> None:
    """End one of your sessions; its tokens stop working at once."""
    await db.write(end_own_session, user, session_id, now)


@router.delete("/sessions/", status_code=204)
@router.delete("/sessions", status_code=204, include_in_schema=False)
async def delete_other_sessions(user: AccountUser, db: Db, now: Now) -> None:
    """End all of your sessions but this one."""
    await db.write(end_other_sessions, user, "revoked", now)
