"""The application: the only file that knows every room."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from fastapi import FastAPI

from app import __version__, docs, health
from app.auth import router as auth
from app.auth.keys import load_tokens
from app.auth.passwords import Cost, Passwords
from app.clock import Clock, utc_now
from app.config import Settings, load_settings
from app.database import DatabaseUnavailable, connect
from app.errors import AppError, BodyTooLarge, ErrorHandlers, describe
from app.middleware import BodyLimit, Head, Prefix
from app.migrations import is_current, upgrade
from app.tasks import router as tasks
from app.users import router as users


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the requests work with. SQLite is brought up to date by itself, PostgreSQL never."""
    settings: Settings = app.state.settings
    async with connect(settings.database) as database:
        if database.dialect == "sqlite" and not await database.read(is_current):
            await database.write(upgrade)
        with closing(Passwords(app.state.password_cost)) as passwords:
            app.state.database = database
            app.state.tokens = load_tokens(settings)
            app.state.passwords = passwords
            yield


def create_app(settings: Settings, *, clock: Clock = utc_now, password_cost: Cost = Cost()) -> FastAPI:  # noqa: B008
    """Make the service. Nothing is opened, and no file touched, before it starts."""
    app = FastAPI(
        title="Bearer Tasks",
        version=__version__,
        description="Tasks behind OAuth2's password flow, with login done right.",
        lifespan=lifespan,
        redirect_slashes=False,
        responses=describe(BodyTooLarge, AppError, DatabaseUnavailable),
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.clock = clock
    app.state.password_cost = password_cost
    for room in tasks.router, auth.forms, auth.router, auth.well_known, users.router, health.router:
        app.include_router(room)
    docs.install(app)
    ErrorHandlers(app, auth.FORM_PATHS | {settings.root_path + path for path in auth.FORM_PATHS})
    app.add_middleware(BodyLimit)
    app.add_middleware(Head)
    if settings.root_path:
        app.add_middleware(Prefix, prefix=settings.root_path)
    return app


def __getattr__(name: str) -> FastAPI:
    """`app`, for `uvicorn app.main:app`: made when asked for, so that importing this module reads no settings."""
    if name != "app":
        raise AttributeError(name)
    return create_app(load_settings())
