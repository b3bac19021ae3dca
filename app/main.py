"""The application: the only file that knows every room."""

import gc
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from ipaddress import IPv4Network, ip_network
from typing import Final

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import NAME, __version__, health
from app.auth import router as auth
from app.auth.account_events import list_events
from app.auth.dependencies import BEARER_ERRORS, PERSONAL_TOKEN
from app.auth.keys import load_tokens
from app.auth.passwords import Cost
from app.auth.personal_tokens import list_tokens
from app.auth.services import open_services
from app.auth.sessions import list_sessions
from app.clock import Clock, utc_now
from app.config import Settings, read_settings
from app.db.batches import Background
from app.db.connect import connect
from app.db.migrations import bring_up_to_date
from app.db.replica import open_replica
from app.db.url import dropped_parameters
from app.errors import BadSettings
from app.http import docs
from app.http.cors import CORS
from app.http.error_responses import ErrorHandlers
from app.http.limits import RequestLimits
from app.http.middleware import HSTS, SECURITY_HEADERS, HeadAsGet, PathPrefix, RequestIdAndHeaders
from app.http.openapi import UNEXPECTED, complete
from app.http.request_log import RequestLog
from app.http.router import add_routes
from app.observe.logs import configure_logging
from app.observe.metrics import Metrics, add_metrics_route
from app.server.drain import Drain
from app.server.open_files import raise_limit
from app.tasks import router as tasks
from app.tasks.search import BACKFILL
from app.tasks.service import list_of_owner
from app.users import export
from app.users import router as users
from app.users.deletion import delete_ended
from app.users.service import list_profile

logger = logging.getLogger(__name__)

ROUTERS: Final = (
    tasks.router,
    auth.oauth_router,
    auth.router,
    auth.well_known,
    users.router,
    export.router,
    health.router,
)
EXPORTS: Final[export.Exports] = (
    ("profile", list_profile),
    ("session", list_sessions),
    ("token", list_tokens),
    ("event", list_events),
    ("task", list_of_owner),
)
"""The lists that an export of an account has, in this order. A resource of users adds its own."""

TAGS: Final = {
    "auth": "Log in, refresh and revoke tokens, make personal ones, and see where you are logged in.",
    "users": "Make, protect and change your account. Administrators manage all accounts here.",
    "tasks": "Create and change your tasks, and read everyone's public tasks.",
    "health": "Check that the service works.",
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the services while the app runs. SQLite gets its migrations here, PostgreSQL does not."""
    settings: Settings = app.state.settings
    for name, url in ("DATABASE_URL", settings.database), ("DATABASE_REPLICA_URL", settings.database_replica):
        for message in dropped_parameters(name, url) if url else ():
            logger.warning(message)
    async with (
        connect(settings.database, pool_size=settings.pool_size) as database,
        open_replica(settings.database_replica, database, settings.pool_size) as public_reads,
    ):
        if database.dialect == "sqlite":
            await bring_up_to_date(database, settings.database, BACKFILL)
        deletions = Background(partial(delete_ended, database), "rows of deleted accounts are left")
        opening = open_services(settings, app.state.clock, database, deletions, app.state.password_cost, public_reads)
        async with opening as services:
            app.state.services = services
            usages = {"hashing_queue": services.passwords.usage, "database_connections": database.usage}
            if settings.metrics:
                database.observe = app.state.metrics.time_call
            sampling = app.state.metrics.sampling(**usages) if settings.metrics else nullcontext()
            with app.state.drain.before_stop(settings.drain_seconds):
                async with sampling, services.deletions.running():
                    yield


def create_app(settings: Settings, *, clock: Clock = utc_now, password_cost: Cost = Cost()) -> FastAPI:  # noqa: B008
    """Make the service. It opens no file and no connection before it starts."""
    app = FastAPI(
        title=NAME,
        version=__version__,
        description=docs.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        responses={"default": UNEXPECTED},
        servers=[{"url": settings.root_path or "/"}],
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=[{"name": name, "description": words} for name, words in TAGS.items()],
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.clock, app.state.password_cost = settings, clock, password_cost
    app.state.drain, app.state.exports = Drain(), EXPORTS
    for router in ROUTERS:
        add_routes(app, router)
    complete(app, auth.FORM_PATHS, BEARER_ERRORS, {"PersonalToken": PERSONAL_TOKEN})
    docs.install(app)
    app.state.metrics = Metrics() if settings.metrics else None
    if settings.metrics:
        add_metrics_route(app, app.state.metrics)
    errors = ErrorHandlers(app, frozenset(settings.root_path + path for path in auth.FORM_PATHS))
    _wrap(app, settings, errors)
    return app


def _wrap(app: FastAPI, settings: Settings, errors: ErrorHandlers) -> None:
    """Add the middleware, from the inside out."""
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestLimits, error_handlers=errors, hosts=settings.allowed_hosts)
    if settings.root_path:
        app.add_middleware(PathPrefix, prefix=settings.root_path)
    if settings.cors_origins:
        app.add_middleware(CORS, origins=settings.cors_origins)
    is_https = settings.public_url.startswith("https://")
    headers = SECURITY_HEADERS | (HSTS if is_https else {})
    app.add_middleware(RequestIdAndHeaders, error_handlers=errors, headers=headers)
    if settings.log_requests or settings.metrics:
        app.add_middleware(RequestLog, metrics=app.state.metrics, logs=settings.log_requests)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=_with_ipv4_mapped(settings.trusted_proxies))


def _with_ipv4_mapped(networks: Sequence[str]) -> list[str]:
    """Add the names that an IPv6 socket has for IPv4 networks (RFC 4291 §2.5.5.2). uvicorn does not know them."""
    ipv4 = [network for network in map(ip_network, networks) if isinstance(network, IPv4Network)]
    mapped = [f"::ffff:{network.network_address}/{96 + network.prefixlen}" for network in ipv4]
    return [*networks, *mapped]


def __getattr__(name: str) -> FastAPI:
    """Make `app` for `uvicorn app.main:app`. To import this module reads no settings.

    Bad settings or keys end the process with a line for each fault and exit code 2. After the start, the garbage
    collector leaves alone all that exists.
    """
    if name != "app":
        raise AttributeError(name)
    try:
        settings = read_settings()
        load_tokens(settings)
    except BadSettings as error:
        for message in error.args:
            print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from error
    configure_logging(settings.log_format)
    raise_limit()
    globals()[name] = app = create_app(settings)  # uvicorn asks twice
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    return app
