"""python -m app backup and restore: what cannot be done is one line, and nothing is overwritten or left half done."""

import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.support.accounts import PASSWORD
from tests.support.command_line import Run, run
from tests.support.disks import files_no_longer_than

FILES = ["tasks.db", "tasks.db.secret"]
COPIES = ["backup.db", "backup.db.secret"]


@pytest.fixture
def app(sqlite_url: str) -> Run:
    """A database with a user and a generated secret."""
    sqlite = partial(run, database_url=sqlite_url)
    assert sqlite("users", "add", "ada", stdin=PASSWORD).exit_code == 0
    return sqlite


def names() -> list[str]:
    return sorted(file.name for file in Path.cwd().iterdir())


def users(file: str) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT username FROM users ORDER BY username")]


def refusal(app: Run, *words: str) -> str:
    before = names()
    refused = app(*words)
    assert (refused.exit_code, refused.stdout, names()) == (1, "", before)
    assert refused.stderr.count("\n") == 1
    return refused.stderr.removeprefix("error: ").rstrip()


def test_a_backup_is_one_file_and_a_secret_for_their_owner(app: Run) -> None:
    done = app("backup", "backup.db")

    assert (done.exit_code, done.output) == (0, "Copied 0.2 MB to backup.db.\n")
    assert names() == sorted([*FILES, *COPIES])
    assert {stat.S_IMODE(Path(name).stat().st_mode) for name in COPIES} == {0o600}
    assert Path("backup.db.secret").read_text() == Path("tasks.db.secret").read_text()
    assert users("backup.db") == ["ada"]
    assert names() == sorted([*FILES, *COPIES]), "to read it makes no other file"


def test_a_backup_says_what_it_lacks(app: Run) -> None:
    assert "SECRET_KEY is not in it" in app("backup", "one.db", secret_key=SECRET).stdout
    Path("tasks.db.secret").unlink()
    assert "tasks.db.secret is not there, so the copy has no secret" in app("backup", "two.db").stdout
    assert names() == ["one.db", "tasks.db", "two.db"]


def test_an_older_backup_is_replaced_only_if_that_is_asked_for(app: Run) -> None:
    app("backup", "backup.db")
    app("users", "add", "bob", stdin=PASSWORD)

    assert refusal(app, "backup", "backup.db").startswith("backup.db exists: name another file")
    assert users("backup.db") == ["ada"]
    assert app("backup", "backup.db", "--replace").exit_code == 0
    assert users("backup.db") == ["ada", "bob"]
    Path("backup.db").unlink()
    assert refusal(app, "backup", "backup.db").startswith("backup.db.secret exists")
    for own in FILES:
        assert refusal(app, "backup", own, "--replace") == f"{own} belongs to the database itself"


def test_a_backup_that_cannot_be_made_leaves_nothing(app: Run, sqlite_url: str) -> None:
    assert refusal(app, "backup", "nowhere/backup.db").endswith(": No such file or directory")
    with files_no_longer_than(64 * 1024):
        assert refusal(partial(app, secret_key=SECRET), "backup", "backup.db") == "SQLite: disk I/O error"
    nothing = partial(run, database_url="sqlite:///nothing.db")
    assert refusal(nothing, "backup", "backup.db") == "nothing.db: No such file or directory"
    for words, program in (("backup", "backup.db"), "pg_dump"), (("restore", "backup.db"), "pg_restore"):
        postgresql = partial(run, database_url="postgresql://ada:l0velace@127.0.0.1:1/tasks", secret_key=SECRET)
        assert refusal(postgresql, *words) == f"this command is for SQLite: use {program} for PostgreSQL"


def damage(file: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'users'")
    with Path(file).open("r+b") as opened:
        opened.seek((page - 1) * 4096)
        opened.write(b"\xa5" * 4096)


def test_a_damaged_database_is_not_taken_for_a_backup(app: Run) -> None:
    app("backup", "backup.db")
    damage("tasks.db")

    damaged = partial(app, secret_key=SECRET)
    assert refusal(damaged, "backup", "backup2.db") == "The database's file is damaged: restore a backup"

    restored = app("restore", "backup.db")
    assert restored.exit_code == 0, restored.output
    assert users("tasks.db") == ["ada"]


def test_a_restore_keeps_the_database_of_before(app: Run) -> None:
    """A WAL of a process that was killed belongs to the database of before."""
    app("backup", "backup.db")
    secret = Path("backup.db.secret").read_text()
    app("users", "add", "bob", stdin=PASSWORD)
    Path("tasks.db.secret").write_text(SECRET)
    with closing(sqlite3.connect("tasks.db")) as connection:
        connection.execute("UPDATE users SET username = 'eve' WHERE username = 'bob'")
        connection.commit()
        for name in "tasks.db", "tasks.db-wal":
            Path(f"killed-{name}").write_bytes(Path(name).read_bytes())
    for name in "tasks.db", "tasks.db-wal":
        Path(f"killed-{name}").replace(name)

    done = app("restore", "backup.db")

    assert (done.exit_code, done.stderr) == (0, "")
    [kept] = [name for name in names() if name.startswith("tasks.db.before-restore-") and name.endswith("Z")]
    assert kept in done.stdout
    assert users("tasks.db") == ["ada"]
    assert users(kept) == ["ada", "eve"]
    assert (Path("tasks.db.secret").read_text(), Path(f"{kept}.secret").read_text()) == (secret, SECRET)
    assert names() == sorted([*FILES, *COPIES, kept, f"{kept}.secret"])
    assert {stat.S_IMODE(Path(name).stat().st_mode) for name in FILES} == {0o600}


def test_a_restore_where_nothing_is_left(app: Run) -> None:
    app("backup", "backup.db")
    for name in FILES:
        Path(name).unlink()

    assert app("restore", "backup.db").output == "Restored backup.db. Start the service.\n"

    assert names() == sorted([*FILES, *COPIES])
    assert app("users", "list").stdout.startswith("ada ")


def test_a_restore_leaves_a_link_to_the_database(app: Run) -> None:
    """It puts the copy where the database is, with its WAL: another disk may be meant."""
    app("backup", "backup.db")
    Path("disk").mkdir()
    Path("tasks.db").rename("disk/tasks.db")
    Path("tasks.db").symlink_to("disk/tasks.db")
    app("users", "add", "bob", stdin=PASSWORD)

    assert refusal(app, "backup", "disk/tasks.db", "--replace").endswith("belongs to the database itself")
    assert app("restore", "backup.db").exit_code == 0

    assert Path("tasks.db").is_symlink()
    assert users("disk/tasks.db") == ["ada"]
    [kept] = Path("disk").glob("tasks.db.before-restore-*Z")
    assert users(str(kept)) == ["ada", "bob"]


def test_a_restore_without_a_secret_says_so(app: Run) -> None:
    app("backup", "backup.db", secret_key=SECRET)
    for name in FILES:
        Path(name).unlink()

    assert app("restore", "backup.db").stdout.startswith("backup.db.secret is not there")
    assert names() == ["backup.db", "tasks.db"]


def test_a_restore_of_what_is_no_backup_is_refused(app: Run) -> None:
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("CREATE TABLE t (n)")
    Path("text.db").write_text("text" * 1000)
    app("backup", "damaged.db")
    damage("damaged.db")
    before = Path("tasks.db").read_bytes()

    assert refusal(app, "restore", "nothing.db") == "nothing.db: No such file or directory"
    assert refusal(app, "restore", "tasks.db") == "tasks.db is the database itself"
    assert refusal(app, "restore", "other.db") == "other.db is not a backup of this service"
    assert refusal(app, "restore", "text.db") == "SQLite: file is not a database"
    assert refusal(app, "restore", "damaged.db") == "damaged.db is damaged: use another backup"
    assert Path("tasks.db").read_bytes() == before
