"""A replica answers lists without a token, while it keeps up with the primary. Nothing else depends on it."""

import signal
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url, text

from app.config import Settings
from app.db import replica
from app.testing import MakeApp
from tests.conftest import SECRET, execute
from tests.support.accounts import Login, create_task, sign_up
from tests.support.cluster import cluster, database_at, follow, promote
from tests.support.command_line import run
from tests.support.own_server import Server
from tests.support.processes import wait_for

SERVES = "the replica keeps up, and serves public lists"
IS_OUT = "the replica is away or behind: the primary serves"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with cluster() as (primary, standby):
        execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = ''")
        execute(primary.url, "SELECT pg_reload_conf()")
        yield primary, standby


@pytest.fixture
def replicated(servers: tuple[Server, Server], make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A client whose service is not started yet: a test wants to hear its first words."""
    monkeypatch.setattr(replica, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(replica, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(replica, "MAX_LAG", 3600)
    settings = Settings(
        database_url=database_at(servers[0]),
        database_replica_url=at(servers[1]),
        secret_key=SecretStr(SECRET),
        registration_limit=0,
    )
    return TestClient(make_app(settings))


@pytest.fixture
def await_word(caplog: pytest.LogCaptureFixture) -> Callable[[str], None]:
    """Wait until this is the latest that the log says of the replica."""
    caplog.set_level("INFO", "app.db.replica")

    def latest() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "app.db.replica"][-1:]

    return lambda word: wait_for(lambda: latest() == [word])


def at(server: Server) -> str:
    return database_at(server).partition("&")[0]


def titles(client: TestClient, path: str = "/tasks/", login: Login | None = None) -> set[str]:
    page = client.get(path, headers=login.headers if login else None)
    assert page.status_code == 200, page.text
    return {task["title"] for task in page.json()["items"]}


def test_the_primary_answers_for_a_replica_that_is_away(
    replicated: TestClient,
    servers: tuple[Server, Server],
    monkeypatch: pytest.MonkeyPatch,
    await_word: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The second time a read finds that out: the watch does not look again before."""
    monkeypatch.setattr(replica, "LOOK_SECONDS", 3600)
    _, standby = servers
    standby.stop(signal.SIGQUIT)
    with replicated:
        wait_for(lambda: "Connection refused" in caplog.text)
        assert titles(replicated) == set()
        standby.start()
        await_word(SERVES)
        standby.stop(signal.SIGQUIT)
        assert titles(replicated) == set()
        await_word(IS_OUT)
        assert replicated.get("/health/ready").status_code == 200
    standby.start()


def test_a_replica_answers_unless_it_is_behind_or_away(
    replicated: TestClient,
    servers: tuple[Server, Server],
    monkeypatch: pytest.MonkeyPatch,
    await_word: Callable[[str], None],
) -> None:
    _, standby = servers
    with replicated:
        ada = sign_up(replicated)
        create_task(replicated, ada, "before", is_public=True)
        wait_for(lambda: execute(make_url(at(standby)), "SELECT title FROM tasks"))
        execute(standby.url, "SELECT pg_wal_replay_pause()")
        wait_for(lambda: execute(standby.url, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)])
        create_task(replicated, ada, "after", is_public=True)

        await_word(SERVES)
        assert titles(replicated) == titles(replicated, "/tasks/public") == {"before"}
        assert titles(replicated, "/tasks/public", ada) == titles(replicated, "/tasks/", ada) == {"after", "before"}
        task = create_task(replicated, ada, "after", is_public=True)
        assert replicated.get(f"/tasks/{task['id']}").status_code == 200

        monkeypatch.setattr(replica, "MAX_LAG", 0)
        await_word(IS_OUT)
        assert titles(replicated) == {"after", "before"}

        execute(standby.url, "SELECT pg_wal_replay_resume()")
        monkeypatch.setattr(replica, "MAX_LAG", 3600)
        await_word(SERVES)
        with monkeypatch.context() as fault:
            fault.setattr(replica, "SELECT_REPLAYED", text("SELECT nobody_expects_this()"))
            await_word("the replica cannot be watched")
            assert titles(replicated) == {"after", "before"}
        await_word(SERVES)
        promote(standby)
        await_word(IS_OUT)
        create_task(replicated, ada, "last", is_public=True)
        assert titles(replicated) == {"after", "before", "last"}


def test_check_says_what_is_wrong_with_a_replica(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "MAX_LAG", 1)
    monkeypatch.setattr(replica, "LOOK_SECONDS", 0.01)
    primary, standby = servers
    follow(standby, primary)
    wait_for(lambda: execute(primary.url, "SELECT 1 FROM pg_stat_replication"))

    def check(of_replica: str) -> str:
        urls = {"database_url": database_at(primary), "database_replica_url": of_replica}
        return run("check", secret_key=SECRET, **urls).stdout

    def replay(verb: str) -> None:
        execute(standby.url, f"SELECT pg_wal_replay_{verb}()")

    wait_for(lambda: "REPLICA" not in check(at(standby)))
    replay("pause")
    execute(primary.url, "CREATE TABLE more ()")
    assert "DATABASE_REPLICA_URL is more than 1 seconds behind." in check(at(standby))
    replay("resume")
    assert "DATABASE_REPLICA_URL is no standby." in check(database_at(primary))
    assert "DATABASE_REPLICA_URL is no copy of the database." in check(at(standby).removesuffix("tasks") + "postgres")
    assert "DATABASE_REPLICA_URL cannot be read: " in check("postgresql://postgres@127.0.0.1:1/tasks")


@pytest.mark.parametrize(
    ("database", "of_replica"),
    [("sqlite:///./tasks.db", "postgresql://b/tasks"), ("postgresql://a/tasks", "sqlite:///./tasks.db")],
)
def test_a_replica_is_of_postgresql(database: str, of_replica: str) -> None:
    with pytest.raises(ValidationError, match="DATABASE_REPLICA_URL needs PostgreSQL, and so does its DATABASE_URL"):
        Settings(database_url=database, database_replica_url=of_replica, secret_key=SecretStr(SECRET))
