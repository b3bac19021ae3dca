"""A role without privileges, a database that is not UTF-8, too few connections, a pooler: each is told in words."""

import re
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from functools import cache, partial

import pytest
from sqlalchemy import URL, text

from app.db.database import Database
from app.db.errors import POSTGRESQL_ERRORS, DatabaseForbidden, DatabaseNotUTF8, PoolerForgets, PoolerRefuses
from app.errors import Unavailable
from tests.conftest import SECRET, Serve, execute, new_database, on_postgresql
from tests.support import databases
from tests.support.accounts import PASSWORD, create_task, sign_up
from tests.support.command_line import Run, run
from tests.support.own_server import Server
from tests.support.pooler import PROGRAM, Pooler
from tests.support.readme import DEPLOY, blocks

GOOD = {"secret_key": SECRET, "public_url": "http://127.0.0.1:8000", "trusted_proxies": "127.0.0.1"}
ADA = {"username": "ada", "password": PASSWORD}
ALL = "SELECT, INSERT, UPDATE, DELETE"


def text_of(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def commands(url: URL) -> Run:
    return partial(run, database_url=text_of(url), **GOOD)


@contextmanager
def role(server: Server, name: str, options: str = "") -> Iterator[str]:
    execute(server.url, f"CREATE ROLE {name} LOGIN {options}")
    try:
        yield name
    finally:
        execute(server.url, f"DROP ROLE {name}")


@on_postgresql
@pytest.mark.parametrize(
    ("grants", "reason"),
    [
        (["SELECT ON ALL TABLES IN SCHEMA public"], "account_events, recovery_codes, sessions, tasks, throttle, users"),
        ([f"{ALL} ON users, tasks", "SELECT ON alembic_version"], "account_events, recovery_codes, sessions, throttle"),
        ([f"{ALL} ON account_events, recovery_codes, sessions, tasks, throttle, users"], "alembic_version"),
    ],
)
def test_a_role_without_privileges(serve: Serve, server: Server, url: URL, grants: list[str], reason: str) -> None:
    with role(server, "service") as name:
        theirs = url.set(username=name)
        try:
            for grant in grants:
                execute(url, f"GRANT {grant} TO {name}")
            client = serve(database_url=text_of(theirs))
            ready, registration = client.get("/health/ready"), client.post("/users", json=ADA)
            check = commands(theirs)("check")
            execute(url, f"GRANT {ALL} ON ALL TABLES IN SCHEMA public TO {name}")

            assert client.get("/health/ready").status_code == 200
        finally:
            execute(url, f"DROP OWNED BY {name}")

    expected = {"detail": DatabaseForbidden.detail, "code": "database_forbidden"}
    assert (ready.status_code, ready.json()) == (503, expected)
    assert registration.status_code in {201, 503}
    assert check.exit_code == 1
    assert check.stdout.splitlines()[0] == f"- {DatabaseForbidden.detail}: {reason}."


@on_postgresql
def test_a_role_that_may_not_use_the_schema(serve: Serve, server: Server, url: URL) -> None:
    with role(server, "outsider") as name:
        execute(url, "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        try:
            ready = serve(database_url=text_of(url.set(username=name))).get("/health/ready")
            lines = commands(url.set(username=name))("check").stdout.splitlines()
        finally:
            execute(url, "GRANT USAGE ON SCHEMA public TO PUBLIC")

    assert ready.json()["code"] == "database_forbidden"
    assert lines[0] == f"- {DatabaseForbidden.detail}: no schema of the search_path."


@on_postgresql
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_utf8(serve: Serve, server: Server, encoding: str) -> None:
    """`migrate` and the start refuse it in one line."""
    with new_database(server.url, f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0") as url:
        ready = serve(database_url=text_of(url)).get("/health/ready")
        refusals = [commands(url)(name) for name in ("migrate", "serve")]
        check = commands(url)("check")

    assert (ready.status_code, ready.json()["code"]) == (503, "database_not_utf8")
    for refusal in refusals:
        assert (refusal.exit_code, refusal.output) == (1, f"error: {DatabaseNotUTF8.detail}\n")
    assert check.stdout.splitlines()[0] == f"- {DatabaseNotUTF8.detail}."


@pytest.mark.parametrize(("code", "error"), POSTGRESQL_ERRORS.items())
def test_sqlstates_become_errors(postgres_url: str, code: str, error: type[Unavailable]) -> None:
    async def check(database: Database) -> None:
        for verb in database.read, database.write, database.autocommit:
            with pytest.raises(error):
                await verb(
                    lambda connection: connection.execute(
                        text(f"DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$")
                    )
                )

    databases.run(postgres_url, check)


def test_check_compares_the_connections(server: Server, url: URL) -> None:
    """Those that PostgreSQL allows, with those that all processes may open."""
    with role(server, "several", "SUPERUSER CONNECTION LIMIT 25") as name:
        check = commands(url.set(username=name))
        enough, few = check("check", "--processes", "2"), check("check", "--processes", "3")
        least = check("check", "--processes", "5", pool_size="5")
    many = commands(url)("check", "--processes", "21")
    whole = "- PostgreSQL allows 200 connections, by max_connections, and 21 x POOL_SIZE is 210."

    assert "POOL_SIZE" not in enough.stdout + least.stdout
    allowed = "- PostgreSQL allows 25 connections, by the CONNECTION LIMIT of the role several, and"
    assert few.stdout.splitlines()[0] == f"{allowed} 3 x POOL_SIZE is 30."
    assert many.stdout.splitlines()[0] == whole


@cache
def knows_prepared_statements() -> bool:
    """Whether the installed PgBouncer is 1.21 or newer."""
    found = re.match(r"PgBouncer (\d+)\.(\d+)", subprocess.check_output([str(PROGRAM), "--version"], text=True))
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


def documented(*names: str) -> str:
    """Lines of the README's configuration."""
    [block] = blocks("ini", "PgBouncer", DEPLOY)
    read = ConfigParser()
    read.read_string(block)
    return "\n".join(f"{name} = {read['pgbouncer'][name]}" for name in names)


def behind(pooler: Pooler, url: URL) -> URL:
    return URL.create("postgresql", "postgres", host="127.0.0.1", port=pooler.port, database=url.database)


@on_postgresql
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_pgbouncer_works_as_documented(serve: Serve, server: Server, url: URL, mode: str) -> None:
    """In transaction mode from 1.21 on."""
    lines = ["ignore_startup_parameters", "max_client_conn"]
    if mode == "transaction" and PROGRAM:
        if not knows_prepared_statements():
            pytest.skip("this PgBouncer is older than 1.21")
        lines.append("max_prepared_statements")
    statements = "".join(blocks("sql", "PgBouncer", DEPLOY)).replace("ROLE tasks", "ROLE postgres").split(";\n")[:2]

    with Pooler(server, mode, documented(*lines)).running() as pooler:
        client = serve(database_url=text_of(behind(pooler, url)))
        assert client.get("/health/ready").status_code == 200
        ada = sign_up(client, f"ada-{mode}")
        task = create_task(client, ada)
        assert client.get("/tasks/mine", headers=ada.headers).json()["items"] == [task]
        faults = commands(behind(pooler, url))("check").stdout.splitlines()
    assert [fault.split()[1] for fault in faults[:4:2]] == ["statement_timeout", "idle_in_transaction_session_timeout"]
    assert [remedy.strip() for remedy in faults[1:4:2]] == statements
    try:
        for statement in statements:
            execute(server.url, statement)
        with Pooler(server, mode, documented(*lines)).running() as pooler:
            assert "_timeout" not in commands(behind(pooler, url))("check").stdout
    finally:
        execute(server.url, "ALTER ROLE postgres RESET ALL")


def test_a_pooler_that_loses_prepared_statements(server: Server, url: URL) -> None:
    """It is refused in one line."""
    lines = documented("ignore_startup_parameters")
    if PROGRAM and knows_prepared_statements():
        lines += "\nmax_prepared_statements = 0"
    with Pooler(server, "transaction", lines).running() as pooler:
        start, check = (commands(behind(pooler, url))(name) for name in ("serve", "check"))

    assert start.exit_code == check.exit_code == 1
    assert re.fullmatch(rf"error: {re.escape(PoolerForgets.detail)}[^\n]*\n", start.output)
    assert check.stdout.startswith(f"- {PoolerForgets.detail}")


@on_postgresql
def test_a_pooler_that_refuses_the_time_limits(serve: Serve, server: Server, url: URL) -> None:
    with Pooler(server, "session", "").running() as pooler:
        ready = serve(database_url=text_of(behind(pooler, url))).get("/health/ready")
        outputs = [commands(behind(pooler, url))(name).output for name in ("serve", "check")]

    assert (ready.status_code, ready.json()) == (503, {"detail": PoolerRefuses.detail, "code": "pooler_refuses"})
    start, check = outputs
    assert re.fullmatch(rf"error: {re.escape(PoolerRefuses.detail)}[^\n]*\n", start)
    assert check.startswith(f"- {PoolerRefuses.detail}")
