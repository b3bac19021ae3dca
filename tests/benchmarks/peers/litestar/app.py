"""Tasks on Litestar: JWTAuth, and advanced-alchemy's service and pagination over asyncpg, with msgspec.

In this folder, with DATABASE_URL set, after seed.py:

    uvicorn app:app --port PORT --no-access-log --loop uvloop --http httptools
"""

import os
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
    filters,
    providers,
    repository,
    service,
)
from litestar import Controller, Litestar, Request, get
from litestar.connection import ASGIConnection
from litestar.params import Dependency
from litestar.security.jwt import JWTAuth, Token
from msgspec import Struct
from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

KEY = "the key of a benchmark, which guards nothing"
PAGE = 20


class User(base.UUIDAuditBase):
    __tablename__ = "users"

    username: Mapped[str] = mapped_column(String(32), unique=True)
    password_hash: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)


class Task(base.UUIDAuditBase):
    __tablename__ = "tasks"

    owner_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(String(8), default="todo")
    due_at: Mapped[datetime | None]
    is_public: Mapped[bool] = mapped_column(default=False)
    user: Mapped[User] = relationship(lazy="raise_on_sql")  # authentication has put it into the session

    @property
    def owner(self) -> str:
        return self.user.username


Index(None, Task.owner_id, Task.created_at)


class TaskRead(Struct):
    id: UUID
    title: str
    description: str | None
    status: str
    due_at: datetime | None
    is_public: bool
    owner: str
    created_at: datetime
    updated_at: datetime


class TaskService(service.SQLAlchemyAsyncRepositoryService[Task]):
    class Repository(repository.SQLAlchemyAsyncRepository[Task]):
        model_type = Task

    repository_type = Repository


class TaskController(Controller):
    path = "/tasks"
    dependencies = providers.create_service_dependencies(
        TaskService,
        "tasks",
        filters={
            "pagination_type": "limit_offset",
            "pagination_size": PAGE,
            "sort_field": "created_at",
            "sort_order": "desc",
        },
    )

    @get()
    async def list_tasks(
        self,
        request: Request[User, Token, Any],
        tasks: TaskService,
        filters: Annotated[list[filters.FilterTypes], Dependency(skip_validation=True)],
    ) -> service.OffsetPagination[TaskRead]:
        """The latest tasks of the user."""
        rows, total = await tasks.list_and_count(*filters, owner_id=request.user.id)
        return tasks.to_schema(rows, total, filters=filters, schema_type=TaskRead)


alchemy = SQLAlchemyAsyncConfig(
    connection_string=os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+asyncpg:", 1),
    engine_config=EngineConfig(pool_size=10, max_overflow=0),
    before_send_handler="autocommit",
    session_config=AsyncSessionConfig(expire_on_commit=False),
)


async def find_user(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> User | None:
    session = alchemy.provide_session(connection.app.state, connection.scope)
    user = await session.get(User, UUID(token.sub))
    return user if user and user.is_active else None


auth = JWTAuth[User, Token](
    token_secret=KEY, retrieve_user_handler=find_user, default_token_expiration=timedelta(days=1)
)
app = Litestar([TaskController], on_app_init=[auth.on_app_init], plugins=[SQLAlchemyPlugin(alchemy)])
