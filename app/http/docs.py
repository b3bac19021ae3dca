"""/docs and /redoc from packaged files: they work without internet, and under a policy that runs nothing inline.

Every address is relative to the page, so that both work behind a prefix.
"""

from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app import NAME

DESCRIPTION: Final = """Tasks behind OAuth2's password flow.

- **Log in**: make an account with `POST /users`, then press *Authorize*. Programs send `username` and `password` as a
  form to `POST /auth/token`, and then `Authorization: Bearer` with the access token.
- **Second factor**: a login without its code answers `mfa_required`. Send the code as `otp`, here as `client_secret`.
- **Scripts** use a token of `POST /auth/tokens`. A mail of `POST /users/forgot-password` resets a forgotten password.
- **Stay logged in**: an access token is valid for `expires_in` seconds. Before that, or after a 401, send the refresh
  token to the same URL with `grant_type=refresh_token`. The answer has new tokens.
- **Scopes**: the lock of an operation names the scope that it needs. Without it the answer is 403.
- **Pages**: a list has `items` and a `next_cursor`. Send it as `cursor` to get the next page. On the last it is null.
- **Errors**: each has a `detail` for people and a `code` for programs. 422 names each fault and its place.
- **Try again later**: 429 and 503 have `Retry-After`, in seconds, unless waiting does not help.
"""
PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{NAME}</title>
<link rel="icon" href="docs/files/favicon.png">
"""
SWAGGER_UI = f"""{PAGE}<link rel="stylesheet" href="docs/files/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/files/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
# A reload forgets the login: persistAuthorization would keep the tokens in localStorage, for any script to read.
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the default sends the document's address to swagger.io
});
"""
REDOC = f"""{PAGE}<body marginwidth="0" marginheight="0">
<redoc spec-url="openapi.json"></redoc>
<script src="docs/files/redoc.standalone.js"></script>
"""
# ReDoc adds a style element that it fills from script, and another for its scroll bars. It searches in a worker.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
SCROLL_BAR_STYLE = "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
REVALIDATE = {"Cache-Control": "no-cache"}

router = APIRouter(include_in_schema=False)


class Files(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def install(app: FastAPI) -> None:
    """Serve the pages, and their files from the fastapi-offline wheel."""
    app.include_router(router)
    app.mount("/docs/files", Files(packages=[("fastapi_offline", "static")]))


@router.get("/")
async def redirect_to_docs(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")


@router.get("/docs")
async def swagger_ui() -> Response:
    return page(SWAGGER_UI, "style-src 'self'")


@router.get("/docs/start.js")
async def start_swagger_ui() -> Response:
    return Response(START, media_type="text/javascript", headers=REVALIDATE)


@router.get("/redoc")
async def redoc() -> Response:
    return page(REDOC, f"style-src {EMPTY_STYLE} {SCROLL_BAR_STYLE}; worker-src blob:")


def page(html: str, own_policy: str) -> Response:
    policy = (
        "default-src 'none'; script-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors 'none'; {own_policy}"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})
