"""The migrations that a team adds, by hand or with Alembic's command."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.command import downgrade
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import URL

from app.cli.serve import describe_schema
from app.db import migrations
from app.testing import Serve
from tests.conftest import SECRET, new_database, on_one_database
from tests.db.conftest import Add
from tests.support.accounts import create_task, sign_up
from tests.support.command_line import Run
from tests.support.databases import run as with_database
from tests.support.databases import write
from tests.support.processes import ROOT, environment
from tests.support.readme import blocks
from tests.support.recipes import UNFINISHED

GUIDE = ROOT / "alembic" / "README.md"

COLUMNS = """
    weight: Mapped[str] = mapped_column(Text(8), server_default="normal")
    shelf_id: Mapped[str | None] = mapped_column(Id, ForeignKey("shelves.id", ondelete="SET NULL"), index=True)
"""
MODELS = """

class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[str] = mapped_column(Id, ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text(100))
    created_at: Mapped[datetime]
"""
IMPORTS = """
import sqlalchemy as sa
from alembic import op

from app.db.ddl import add_column, rebuild_table
from app.db.types import Id

revision = "example"
down_revision = "{newest}"

"""
READY = """
from alembic.config import main
from fastapi.testclient import TestClient
from app.main import app

with TestClient(app) as client:
    assert client.get("/health/ready").status_code == 200
main(["downgrade", "-2"])
"""


@pytest.fixture
def postgres_url(postgres_server: URL, spare_template: URL) -> Iterator[str]:
    """A database that these tests may spoil."""
    with new_database(postgres_server, f'TEMPLATE "{spare_template.database}"') as url:
        yield url.render_as_string(hide_password=False)


@pytest.mark.parametrize(("quote", "kind"), [("'", ""), ('"', ": str | None"), ("'", ": Sequence[str] | None")])
def test_every_spelling_of_a_revision_counts(add: Add, command: Run, serve: Serve, quote: str, kind: str) -> None:
    add("weight", 'op.execute("CREATE INDEX ix_new ON tasks (title)")', quote, kind.replace("Sequence", "list"))

    assert command("migrate").exit_code == 0

    assert serve().get("/health/ready").status_code == 200


def test_a_batch_migration_cannot_break_the_search(
    add: Add, command: Run, client: TestClient, database_url: str
) -> None:
    """On SQLite, Alembic's batch mode would copy the table of tasks without the triggers of the search."""
    ada = sign_up(client)
    task = create_task(client, ada, "Before")
    check = 'batch.create_check_constraint("title", "length(title) > 0")'
    add("batch", f'with op.batch_alter_table("tasks") as batch:\n        {check}')

    result = command("migrate")
    client.patch(f"/tasks/{task['id']}", json={"title": "After"}, headers=ada.headers)

    if database_url.startswith("sqlite"):
        advice = "use rebuild_table('tasks') in place of op.batch_alter_table"
        place = "(2099_01_01_batch.py, line 9)"
        assert (result.exit_code, result.stderr) == (1, f"error: batch: NotImplementedError: {advice} {place}\n")
    else:
        assert result.exit_code == 0
    for q, number in {"before": 0, "after": 1}.items():
        found = client.get("/tasks/mine", params={"q": q}, headers=ada.headers).json()["items"]
        assert len(found) == number


def test_migrate_shows_the_fault_of_a_statement(add: Add, command: Run) -> None:
    add("weight", 'op.execute("CREATE INDEX ix_new ON tasks (wieght)")')

    result = command("migrate")

    assert result.exit_code == 1
    cause = result.stderr.removeprefix("error: weight: ").removesuffix(" (2099_01_01_weight.py, line 9)\n")
    assert cause in {"no such column: wieght", 'column "wieght" does not exist'}


def test_migrate_shows_the_fault_of_python(add: Add, command: Run) -> None:
    add("weight", 'op.add_column("tasks", sa.Column("weight", sa.Integer))')

    result = command("migrate")

    assert result.exit_code == 1
    expected = "error: weight: NameError: name 'sa' is not defined (2099_01_01_weight.py, line 9)\n"
    assert result.stderr == expected


def test_a_newer_schema_is_worked_with(add: Add, folder: Path, command: Run, serve: Serve, database_url: str) -> None:
    """A newer version has migrated it. Old hosts serve until their turn, and after a rollback they serve again."""
    add("newer", 'op.execute("ALTER TABLE tasks ADD COLUMN weight integer")')
    assert command("migrate").exit_code == 0
    (folder / "versions" / "2099_01_01_newer.py").unlink()
    migrations.scripts.cache_clear()

    client = serve()
    assert client.get("/health/ready").json() == {"status": "ok"}
    create_task(client, sign_up(client))
    words = "The schema is newer than this version, which works with it: there is nothing to do.\n"
    migrated = command("migrate")
    assert (migrated.exit_code, migrated.stdout, migrated.stderr) == (0, words, "")
    assert "- The database's schema is newer than this version. This version works with it." in command("check").stdout
    assert with_database(database_url, describe_schema).endswith("the schema of a newer version, which is fine.")


def test_a_schema_that_lacks_something_is_not_newer(command: Run, client: TestClient, database_url: str) -> None:
    """It is much newer, or that of another program with the same database."""
    write(database_url, lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9'"))
    write(database_url, lambda connection: connection.exec_driver_sql("ALTER TABLE users DROP COLUMN totp_step"))

    response = client.get("/health/ready")
    words = "The database's schema is not known and lacks what this version needs: run the version that made it"
    assert (response.status_code, response.json()) == (503, {"detail": words, "code": "schema_unknown"})
    migrated = command("migrate")
    assert (migrated.exit_code, migrated.stderr) == (1, f"error: {words}\n")
    assert f"- {words}.\n" in command("check").stdout
    assert with_database(database_url, describe_schema) == f"{words}."


def test_two_heads_are_named(add: Add, command: Run, client: TestClient) -> None:
    """A team has merged two branches, and each of them has a migration."""
    for revision in "left", "right":
        add(revision, "pass")
    words = "2 migrations are the newest, left and right: run alembic merge heads"

    for verb in "migrate", "serve":
        result = command(verb)
        assert (result.exit_code, result.stderr) == (1, f"error: {words}\n")
    assert f"- {words}.\n" in command("check").stdout
    response = client.get("/health/ready")
    assert (response.status_code, response.json()) == (503, {"detail": words, "code": "several_heads"})


@on_one_database
def test_autogenerated_migrations_are_ready(database_url: str, tmp_path: Path) -> None:
    """A new column, one with a reference, and a new table; ruff has nothing to say about the migration."""
    copy = tmp_path / "copy"
    for name in "app", "alembic":
        shutil.copytree(ROOT / name, copy / name, ignore=UNFINISHED)
    for name in "alembic.ini", "pyproject.toml":
        shutil.copy(ROOT / name, copy)
    models = copy / "app" / "tasks" / "models.py"
    before, rest = models.read_text().split("    is_public: ", maxsplit=1)
    models.write_text(f"{before}{COLUMNS}    is_public: {rest}{MODELS}")

    def shell(script: str) -> None:
        settings = environment(database_url=database_url, secret_key=SECRET, pythonpath=copy)
        pasted = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        done = subprocess.run(["bash", "-ec", pasted], cwd=copy, env=settings, check=False, capture_output=True)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    shell(*blocks("sh", "Write one", GUIDE))
    shell(".venv/bin/alembic revision -m 'By hand'; .venv/bin/ruff check . ; .venv/bin/ruff format --check .")
    shell(f".venv/bin/python -c '{READY}'")


def test_the_example_of_the_guide_goes_up_and_down(
    folder: Path, command: Run, client: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks("python", "Change a table", GUIDE)
    (folder / "versions" / "example.py").write_text(IMPORTS.format(newest=migrations.newest()) + example)
    migrations.scripts.cache_clear()
    ada = sign_up(client)
    create_task(client, ada, "Before")

    def found(title: str) -> int:
        create_task(client, ada, title)
        return len(client.get("/tasks/mine", params={"q": title}, headers=ada.headers).json()["items"])

    assert command("migrate").exit_code == 0
    assert found("Between") == 1

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    config = Config()
    config.set_main_option("script_location", str(folder))
    downgrade(config, "-1")
    assert found("After") == 1
