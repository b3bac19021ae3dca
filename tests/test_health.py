"""/health with a database that answers but is not right. test_database_away.py has none that answers."""

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Sql


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the other one is everybody's
def test_ready_tells_a_schema_that_is_behind(client: TestClient, sql: Sql) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}

    sql("UPDATE alembic_version SET version_num = '0'")

    response = client.get("/health/ready")
    assert response.status_code == 503
    assert "python -m app migrate" in response.json()["detail"]
    assert client.get("/health/live").status_code == 200
