"""A standby is behind its primary, and cannot be written: the service does not work on one."""

from tests.conftest import SECRET, Serve, execute, on_postgresql
from tests.support.accounts import sign_up
from tests.support.cluster import cluster, database_at
from tests.support.command_line import run


@on_postgresql
def test_a_process_that_reaches_only_a_standby(serve: Serve) -> None:
    """It is not ready, `check` says why, and a session that has ended on the primary never works there."""
    with cluster() as (primary, standby):
        client, other = (serve(database_url=database_at(server)) for server in (primary, standby))
        ada = sign_up(client)
        ready = other.get("/health/ready")
        checked = run("check", database_url=database_at(standby), secret_key=SECRET)
        execute(standby.url, "SELECT pg_wal_replay_pause()")
        assert client.post("/auth/revoke", data={"token": ada.refresh_token}).status_code == 200
        after = [each.get("/users/me", headers=ada.headers).status_code for each in (client, other)]

    assert (ready.status_code, ready.json()["code"]) == (503, "database_is_standby"), ready.text
    assert "standby" in checked.stdout
    assert after == [401, 503]
