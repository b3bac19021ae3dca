"""A MAIL_HOOK that keeps the mails, and what tests ask of an outbox."""

import json
from pathlib import Path
from typing import cast

from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.mail.templates import Mail
from tests.support.accounts import Login, log_in, register

HOOK = f"{__name__}:send"
TO_FILE = f"{__name__}:append"
FILE = Path("mails.jsonl")

_sent: list[Mail] = []


async def send(mail: Mail) -> None:
    """A hook, as `MAIL_HOOK` names one."""
    _sent.append(mail)


async def append(mail: Mail) -> None:
    """A hook of another process: it adds a line to a file of the working directory."""
    with FILE.open("a") as file:  # noqa: ASYNC230 - one line
        file.write(json.dumps(mail._asdict()) + "\n")


async def fail(mail: Mail) -> None:
    """A hook that cannot reach its mail server."""
    raise OSError(f"no route to host for {mail.to} with {mail.token}")


def drain(client: TestClient) -> None:
    """Wait until the service has sent what it has to send."""
    outbox = cast("FastAPI", client.app).state.services.mail
    cast("BlockingPortal", client.portal).call(outbox.drained)


def mails(client: TestClient | None = None) -> list[Mail]:
    """Take the mails that `send` has kept, those of a service included that are on their way."""
    if client:
        drain(client)
    taken = _sent.copy()
    _sent.clear()
    return taken


def appended() -> list[Mail]:
    """Read the mails that `append` has kept."""
    return [Mail(**json.loads(line)) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def verified(client: TestClient, username: str = "ada", email: str = "ada@example.com") -> Login:
    """Register, verify the address, and log in."""
    register(client, username, email=email)
    [mail] = mails(client)
    answer = client.post("/users/verify-email", json={"verification_token": mail.token})
    assert answer.status_code == 204, answer.text
    return log_in(client, username)
