"""python -m app: what goes wrong is one line and an exit code."""

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from app.__main__ import cli
from tests.accounts import PASSWORD, log_in
from tests.conftest import SECRET


def run(*words: str, stdin: str = "", **settings: str) -> Result:
    return CliRunner().invoke(cli, words, input=stdin, env={name.upper(): value for name, value in settings.items()})


def test_the_first_administrator_is_made_here(client: TestClient, database_url: str) -> None:
    added = run("users", "add", "root", "--admin", stdin=f"{PASSWORD}\n", database_url=database_url, secret_key=SECRET)

    assert (added.exit_code, added.stdout) == (0, "Added root.\n")
    assert log_in(client, "root").scope == "tasks:read tasks:write account admin"


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [
        ("ADA", PASSWORD, "The username is taken"),
        ("eve", "password123", "The password is on the list of common passwords"),
        ("eve", "short", "password: String should have at least 8 characters"),
        ("x", PASSWORD, "username: String should have at least 3 characters"),
    ],
    ids=["taken", "common", "short", "name"],
)
def test_a_user_who_cannot_be_added_is_refused(sqlite_url: str, name: str, password: str, message: str) -> None:
    run("users", "add", "ada", stdin=PASSWORD, database_url=sqlite_url)

    refused = run("users", "add", name, stdin=f"{password}\n", database_url=sqlite_url)

    assert (refused.exit_code, refused.stderr) == (1, f"error: {message}\n")


def test_a_database_that_cannot_be_opened_is_one_line() -> None:
    refused = run("serve", database_url="sqlite:///no/such/folder/tasks.db")

    assert (refused.exit_code, refused.stderr) == (1, "error: The database is not available\n")


def test_a_bad_setting_is_one_line() -> None:
    refused = run("serve", database_url="postgresql://localhost/tasks")

    line = "error: SECRET_KEY must be given with PostgreSQL, the same to every process\n"
    assert (refused.exit_code, refused.stderr) == (2, line)
