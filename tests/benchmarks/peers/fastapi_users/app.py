"""Tasks on fastapi-users: JWTStrategy, BearerTransport and SQLAlchemyUserDatabase, over asyncpg.

In this folder, with DATABASE_URL set, after seed.py:

    uvicorn app:app --port PORT --no-access-log --loop uvloop --http httptools
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, ForeignKey, Index, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

KEY = "the key of a benchmark, which guards nothing"
DAY = 24 * 60 * 60
PAGE = 20


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012


class User(SQLAlchemyBaseUserTableUUID, Base):
    __tablename__ = "users"

    username: Mapped[str] = mapped_column(String(32), unique=True)


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(String(8), default="todo")
    due_at: Mapped[datetime | None]
    is_public: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    user: Mapped[User] = relationship(lazy="raise_on_sql")  # authentication has put it into the session

    @property
    def owner(self) -> str:
        return self.user.username


Index(None, Task.owner_id, Task.created_at)


class TaskRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    description: str | None
    status: str
    due_at: datetime | None
    is_public: bool
    owner: str
    created_at: datetime
    updated_at: datetime


engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+asyncpg:", 1), pool_size=10, max_overflow=0
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


class UserManager(UUIDIDMixin, BaseUserManager[User, UUID]):
    reset_password_token_secret = KEY
    verification_token_secret = KEY


async def get_user_manager(session: Session) -> UserManager:
    return UserManager(SQLAlchemyUserDatabase(session, User))


def get_strategy() -> JWTStrategy[User, UUID]:
    return JWTStrategy(KEY, lifetime_seconds=DAY)


backend = AuthenticationBackend("jwt", BearerTransport("auth/jwt/login"), get_strategy)
users = FastAPIUsers[User, UUID](get_user_manager, [backend])
app = FastAPI()


@app.get("/tasks/", response_model=list[TaskRead])
async def list_tasks(user: Annotated[User, Depends(users.current_user(active=True))], session: Session) -> object:
    """The latest tasks of the user."""
    tasks = select(Task).where(Task.owner_id == user.id).order_by(Task.created_at.desc()).limit(PAGE)
    return (await session.scalars(tasks)).all()
