"""A service whose hashes cost next to nothing, for tests in processes that are not about hashing."""

from fastapi import FastAPI

from app.auth.passwords import Cost
from app.config import read_settings
from app.main import create_app

COST = Cost(memory=16, passes=1)  # more than that of tests in this process: a login strengthens their hashes
COMMAND = "uvicorn", "--factory", "tests.support.cheap:make_app", "--no-proxy-headers"


def make_app() -> FastAPI:
    return create_app(read_settings(), password_cost=COST)
