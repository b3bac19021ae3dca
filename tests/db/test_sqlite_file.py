"""SQLite's file is deleted, moved, replaced, damaged or read-only under the service: it says so, and loses nothing."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Connection, make_url

from app.config import Settings
from app.db.database import Database
from app.db.errors import DatabaseDiskFull, DatabaseUnavailable
from app.testing import MakeApp
from tests.conftest import SECRET, Serve, Sql, execute, on_sqlite
from tests.support import databases
from tests.support.accounts import PASSWORD, Login, create_task, sign_up
from tests.support.command_line import run
from tests.support.disks import files_no_longer_than, mounted, remount
from tests.support.load import ADA, assert_unavailable
from tests.support.processes import free_port

pytestmark = on_sqlite

FILE, WAL, SHM = Path("tasks.db"), Path("tasks.db-wal"), Path("tasks.db-shm")
GONE, REPLACED = "database_file_gone", "database_file_replaced"
PAGE = 4096


@pytest.fixture(autouse=True)
def _looks_at_each_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.sqlite.FILE_PERIOD", 0)


@contextmanager
def restarted(make_app: MakeApp, settings: Settings) -> Iterator[TestClient]:
    with TestClient(make_app(settings)) as client:
        yield client


def assert_refused(response: Response, code: str) -> None:
    """It does not say that waiting helps."""
    assert (response.status_code, response.json()["code"]) == (503, code), response.text
    assert "Retry-After" not in response.headers


def assert_all_refused(client: TestClient, login: Login, code: str) -> None:
    assert_refused(client.post("/tasks/", json={"title": "Refused"}, headers=login.headers), code)
    assert_refused(client.get("/tasks/mine", headers=login.headers), code)
    assert_refused(client.get("/health/ready"), code)
    assert client.get("/health/live").status_code == 200


def titles(file: Path) -> list[str]:
    found = [title for (title,) in execute(make_url(f"sqlite:///{file}"), "SELECT title FROM tasks ORDER BY title")]
    assert execute(make_url(f"sqlite:///{file}"), "PRAGMA integrity_check") == [("ok",)]
    return found


def test_a_file_that_is_deleted_takes_no_more_writes(client: TestClient, make_app: MakeApp, settings: Settings) -> None:
    ada = sign_up(client)
    assert client.get("/health/ready").status_code == 200
    for file in FILE, WAL, SHM:
        file.unlink()

    assert_all_refused(client, ada, GONE)
    assert not FILE.exists()

    with restarted(make_app, settings) as later:
        sign_up(later)


def test_a_file_that_is_moved_away_is_served_when_it_is_back(client: TestClient, sql: Sql) -> None:
    ada = sign_up(client)
    create_task(client, ada, "Before")
    away = FILE.rename("away.db")

    assert_all_refused(client, ada, GONE)
    assert WAL.stat().st_size == 0
    shutil.copy(away, "copy.db")
    assert titles(Path("copy.db")) == ["Before"]

    away.rename(FILE)
    create_task(client, ada, "After")
    assert client.get("/health/ready").status_code == 200
    assert titles(FILE) == ["After", "Before"]


def test_a_folder_that_is_moved_away_is_told(client: TestClient) -> None:
    ada = sign_up(client)
    away = Path.cwd().rename(f"{Path.cwd()}.away")

    assert_all_refused(client, ada, GONE)

    away.rename(str(away).removesuffix(".away"))
    create_task(client, ada)


def test_a_file_that_is_moved_away_before_a_stop_is_whole(
    client: TestClient, make_app: MakeApp, settings: Settings
) -> None:
    with restarted(make_app, settings) as stopped:
        create_task(stopped, sign_up(stopped), "Before")
        for connected in client, stopped:
            assert connected.get("/tasks/").status_code == 200
        away = FILE.rename("away.db")

    shutil.copy(away, "copy.db")
    assert titles(Path("copy.db")) == ["Before"]


def test_a_file_that_is_replaced_is_served_after_a_restart(
    client: TestClient, make_app: MakeApp, settings: Settings
) -> None:
    """Writes of the service to the old file do not get into the other one."""
    ada = sign_up(client)
    create_task(client, ada, "Before")
    with closing(sqlite3.connect(FILE)) as source, closing(sqlite3.connect("copy.db")) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    create_task(client, ada, "After the copy")
    Path("copy.db").rename(FILE)

    assert_all_refused(client, ada, REPLACED)

    client.__exit__(None, None, None)
    with restarted(make_app, settings) as later:
        assert [task["title"] for task in later.get("/tasks/mine", headers=ada.headers).json()["items"]] == ["Before"]
        create_task(later, ada, "Later")
    assert titles(FILE) == ["Before", "Later"]


@pytest.mark.parametrize("where", [FILE, Path("disk", FILE)])
def test_a_wal_that_is_deleted_loses_nothing(make_app: MakeApp, settings: Settings, where: Path) -> None:
    """It is beside the file that a link leads to."""
    if where != FILE:
        where.parent.mkdir()
        FILE.rename(where)
        FILE.symlink_to(where)
    with restarted(make_app, settings) as client:
        ada = sign_up(client)
        create_task(client, ada, "Before")
        for suffix in "-wal", "-shm":
            Path(f"{where}{suffix}").unlink()

        assert_refused(client.post("/tasks/", json={"title": "Refused"}, headers=ada.headers), REPLACED)
        assert_refused(client.get("/health/ready"), REPLACED)

        shutil.copy(FILE, "copy.db")
        assert titles(Path("copy.db")) == ["Before"]


def test_a_wal_without_its_file_is_not_thrown_away(database_url: str) -> None:
    WAL.write_bytes(b"the last writes")
    FILE.unlink()

    refused = run("serve", "--port", str(free_port()), database_url=database_url)

    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: The database's file is gone, and the -wal file beside it has its last")
    assert not FILE.exists()
    assert WAL.exists()


def test_a_secret_without_its_file_is_told(database_url: str) -> None:
    run("keys", "list", database_url=database_url)
    FILE.unlink()

    [what, _] = run("check", database_url=database_url).stdout.splitlines()
    assert what.endswith("tasks.db is gone, though its secret is there.")
    Path("tasks.db.secret").write_text("")  # so that nothing is served
    started = run("serve", database_url=database_url)
    assert "tasks.db is gone, though its secret is there: an empty database takes its place" in started.stderr


def damage(table: str) -> None:
    """Overwrite the first page of a table."""
    with closing(sqlite3.connect(FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(page,)] = connection.execute(f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'").fetchall()
    with FILE.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)


def test_a_damaged_file_is_told(serve: Serve, make_app: MakeApp, settings: Settings) -> None:
    with restarted(make_app, settings) as before:
        create_task(before, sign_up(before), is_public=True)
    damage("tasks")
    client = serve()
    assert client.get("/health/ready").status_code == 200

    assert_refused(client.get("/tasks/"), "database_damaged")
    assert_refused(client.get("/health/ready"), "database_damaged")
    checked = run("check", database_url=settings.database_url, secret_key=SECRET)
    assert "The database's file is damaged" in checked.stdout


def test_a_damaged_file_is_told_at_the_start(database_url: str) -> None:
    damage("alembic_version")

    for words in ("serve", "--port", str(free_port())), ("users", "list"):
        refused = run(*words, database_url=database_url)
        assert (refused.exit_code, refused.stderr) == (1, "error: The database's file is damaged: restore a backup\n")


def test_a_read_only_file_is_told(serve: Serve, database_url: str) -> None:
    with FILE.open("r+b") as file:
        file.seek(18)  # https://www.sqlite.org/fileformat.html §1.3.3: a version to write that nobody knows yet
        file.write(b"\x03")
    client = serve()

    answer = client.get("/health/ready")

    assert (answer.status_code, answer.json()["code"]) == (503, "database_file_read_only")
    assert_unavailable(client.post("/users", json=ADA))
    assert client.get("/tasks/").status_code == 200
    [what, _] = run("check", database_url=database_url, secret_key=SECRET).stdout.splitlines()
    assert what == "- The database's file, its folder or their file system is read-only."
    added = run("users", "add", "ada", stdin=PASSWORD, database_url=database_url, secret_key=SECRET)
    assert added.stderr == "error: The database's file, its folder or their file system is read-only\n"


def test_ready_tells_a_full_disk_until_there_is_room(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = sign_up(client)
    assert client.get("/health/ready").status_code == 200

    with files_no_longer_than(WAL.stat().st_size):
        assert client.get("/health/ready").status_code == 200, "no write has failed yet"
        assert_unavailable(client.post("/tasks/", json={"title": "Refused"}, headers=ada.headers))
        assert_unavailable(client.get("/health/ready"))
        monkeypatch.setattr("app.db.sqlite_file.SPARE_BYTES", 2**60)
        full = client.get("/health/ready")

    assert (full.status_code, full.json()["code"]) == (503, "database_disk_full")
    assert client.get("/health/ready").status_code == 200
    create_task(client, ada)


def test_a_full_disk_is_told_until_there_is_room(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small write would succeed where the others fail, so ready does not go by one."""

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1").scalar_one()  # SQLite keeps the pages that there are
        connection.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(100000)")

    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.write(fill)
        monkeypatch.setattr("app.db.sqlite_file.SPARE_BYTES", 2**60)
        with pytest.raises(DatabaseDiskFull):
            await database.check_writable()
        monkeypatch.setattr("app.db.sqlite_file.SPARE_BYTES", 0)
        await database.check_writable()

    databases.run(database_url, check)


@pytest.mark.long
@pytest.mark.parametrize("file", ["disk/tasks.db", "link.db"])
def test_a_disk_is_filled_grows_and_becomes_read_only(make_app: MakeApp, settings: Settings, file: str) -> None:
    folder = Path("disk").absolute()
    url = f"sqlite:///{file}"
    with mounted(folder, "size=3m"):
        Path(folder, FILE).touch(mode=0o600)
        Path("link.db").symlink_to(folder / FILE)
        with restarted(make_app, settings.model_copy(update={"database_url": url})) as client:
            ada = sign_up(client)
            task = {"title": "Fill", "description": "x" * 10_000}
            created = 0
            while (answer := client.post("/tasks/", json=task, headers=ada.headers)).status_code == 201:
                created += 1
            assert_unavailable(answer)
            assert client.get("/health/ready").json()["code"] == "database_disk_full"
            assert client.get("/tasks/mine", headers=ada.headers).status_code == 200

            remount(folder, "size=12m")
            assert client.get("/health/ready").status_code == 200
            create_task(client, ada)
        assert len(titles(folder / "tasks.db")) == created + 1

        remount(folder, "ro")
        words = "The database's file, its folder or their file system is read-only"
        started = run("serve", "--port", str(free_port()), database_url=url, secret_key=SECRET)
        assert (started.exit_code, started.stderr) == (1, f"error: {words}\n")
        assert run("check", database_url=url, secret_key=SECRET).stdout.startswith(f"- {words}.")


def test_a_lock_held_too_long_is_not_taken_for_a_full_disk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.sqlite_file.SPARE_BYTES", 2**60)

    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.check_writable()
        assert refused.type is DatabaseUnavailable

    with closing(sqlite3.connect(FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        databases.run(database_url, check, wait=0.1)


def test_a_disk_with_little_space_is_asked_before_a_write_fails(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/health/ready").status_code == 200
    monkeypatch.setattr("app.db.sqlite_file.SPARE_BYTES", 2**60)
    assert client.get("/health/ready").status_code == 200

    with files_no_longer_than(WAL.stat().st_size):
        assert client.get("/health/ready").json()["code"] == "database_disk_full"
