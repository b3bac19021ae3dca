"""/health with a database that answers but is not right. test_database_away.py has none that answers."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL

from tests.conftest import Serve, Sql, execute, new_database, on_postgresql
from tests.support.databases import transaction
from tests.support.load import assert_unavailable


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the other one is everybody's
def test_ready_tells_a_schema_that_is_behind(client: TestClient, sql: Sql) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}

    sql("UPDATE alembic_version SET version_num = '0001'")

    response = client.get("/health/ready")
    assert response.status_code == 503
    assert "python -m app migrate" in response.json()["detail"]
    assert client.get("/health/live").status_code == 200


@on_postgresql
def test_ready_tells_a_read_only_database(serve: Serve, postgres_server: URL) -> None:
    with new_database(postgres_server) as url:
        execute(postgres_server, f'ALTER DATABASE "{url.database}" SET default_transaction_read_only = on')
        answer = serve(database_url=url.render_as_string(hide_password=False)).get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"detail": "The database is read-only", "code": "database_read_only"}


@on_postgresql
def test_ready_gives_up_before_a_probe_does(
    client: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it cannot connect in time, or waits for a lock."""
    with transaction(database_url) as other:
        other("LOCK TABLE alembic_version")
        for patience in 0, 0.1:
            monkeypatch.setattr("app.health.PATIENCE", patience)
            assert_unavailable(client.get("/health/ready"))
    monkeypatch.undo()

    assert client.get("/health/ready").status_code == 200
