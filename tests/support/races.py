"""Many requests at once."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx2
import jwt

from tests.support.accounts import PASSWORD

AT_ONCE = 50

Request = tuple[str, str, dict[str, Any]]
"""A method, a path, and what httpx takes besides."""


def all_at_once(urls: list[str], method: str, path: str, count: int = AT_ONCE, **request: Any) -> list[httpx2.Response]:
    """Send the same request `count` times, to each of the services in turn."""
    return each_at_once(urls, method, path, [request] * count)


def each_at_once(urls: list[str], method: str, path: str, requests: Sequence[dict[str, Any]]) -> list[httpx2.Response]:
    """Send all of the requests, to each of the services in turn."""
    return mixed_at_once(urls, [(method, path, request) for request in requests])


def mixed_at_once(urls: list[str], requests: Sequence[Request]) -> list[httpx2.Response]:
    """Send requests of several kinds, to each of the services in turn."""

    async def send() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=len(requests))
        async with httpx2.AsyncClient(limits=limits, timeout=30) as client:
            sent = (
                client.request(method, f"{urls[n % len(urls)]}{path}", **request)
                for n, (method, path, request) in enumerate(requests)
            )
            return await asyncio.gather(*sent)

    return asyncio.run(send())


def somebody() -> dict[str, str]:
    return {"username": f"ada-{uuid4().hex}", "password": PASSWORD}


def register(url: str) -> dict[str, str]:
    """A new user, by name and password."""
    user = somebody()
    httpx2.post(f"{url}/users", json=user).raise_for_status()
    return user


def log_in(url: str, user: dict[str, str]) -> dict[str, str]:
    tokens: dict[str, str] = httpx2.post(f"{url}/auth/token", data=user).raise_for_status().json()
    return tokens


def session_of(tokens: dict[str, str]) -> str:
    session: str = jwt.decode(tokens["access_token"], options={"verify_signature": False})["sid"]
    return session
