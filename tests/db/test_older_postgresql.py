"""The service works on an older PostgreSQL than the wheel's: on Debian's."""

import os
from pathlib import Path

import pytest

from tests.conftest import SECRET, Serve, new_database, on_postgresql
from tests.support.accounts import create_task, sign_up
from tests.support.command_line import run
from tests.support.own_server import own_server

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@on_postgresql
def test_an_older_postgresql(serve: Serve) -> None:
    if not INSTALLED:
        (pytest.fail if "CI" in os.environ else pytest.skip)("Debian's PostgreSQL is not installed")
    with own_server(programs=INSTALLED[0].parent) as server, new_database(server.url) as url:
        address = url.render_as_string(hide_password=False)
        migrated = run("migrate", database_url=address, secret_key=SECRET)
        client = serve(database_url=address)
        ready = client.get("/health/ready")
        ada = sign_up(client)
        task = create_task(client, ada, "Buy milk")
        found = client.get("/tasks/mine", params={"q": "milk"}, headers=ada.headers)

    assert migrated.exit_code == 0, migrated.output
    assert ready.status_code == 200
    assert found.json()["items"] == [task]
