"""The name of the violated constraint is the same on both databases."""

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.db.constraints import violated_constraint
from tests.support.databases import write

NOW = "'2026-11-23T09:00:00.000000Z'"
ADA, BOB = "'01a208ee-44d3-7a4d-9bb2-174358b45b5e'", "'01a208ee-44d3-7a4d-9bb2-174358b45b5f'"
ONE, TWO = "'01a208ee-44d3-7a4d-9bb2-174358b45b60'", "'01a208ee-44d3-7a4d-9bb2-174358b45b61'"


def user(user_id: str, name: str) -> str:
    columns = "(id, username, password_hash, created_at, updated_at)"
    return f"INSERT INTO users {columns} VALUES ({user_id}, '{name}', '', {NOW}, {NOW})"


def task(task_id: str, *, owner: str = ADA, title: str = "'a'", status: str = "todo", key: str = "k") -> str:
    columns = "(id, owner_id, title, status, created_at, updated_at, idempotency_key)"
    return f"INSERT INTO tasks {columns} VALUES ({task_id}, {owner}, {title}, '{status}', {NOW}, {NOW}, '{key}')"


def violated(url: str, statement: str) -> str | None:
    def insert(connection: Connection) -> None:
        connection.exec_driver_sql(user(ADA, "ada"))
        connection.exec_driver_sql(task(ONE))
        if "CREATE" in statement:
            connection.exec_driver_sql("CREATE TABLE unknown (id INTEGER CONSTRAINT pk_unknown PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO unknown VALUES (1)")
            connection.exec_driver_sql("INSERT INTO unknown VALUES (1)")
        connection.exec_driver_sql(statement)

    with pytest.raises(IntegrityError) as caught:
        write(url, insert)
    return violated_constraint(caught.value)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (user(ADA, "bob"), "pk_users"),
        (user(BOB, "ADA"), "uq_users_username"),
        (task(TWO), "uq_tasks_owner_id_idempotency_key"),
        (task(TWO, status="none", key="other"), "ck_tasks_status"),
    ],
)
def test_the_violated_constraint_has_its_name(database_url: str, statement: str, name: str) -> None:
    assert violated(database_url, statement) == name


def test_a_foreign_key_has_its_name_on_postgresql_alone(database_url: str) -> None:
    name = violated(database_url, task(TWO, owner=BOB))

    assert name == (None if database_url.startswith("sqlite") else "fk_tasks_owner_id_users")


def test_a_table_without_a_model_has_no_name_on_sqlite(database_url: str) -> None:
    name = violated(database_url, "CREATE")

    assert name == (None if database_url.startswith("sqlite") else "pk_unknown")
