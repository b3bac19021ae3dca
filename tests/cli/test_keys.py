"""python -m app keys: commands rotate the keys, and no step logs anyone out."""

import json
import re
import stat
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET
from tests.support.accounts import Login, register
from tests.support.command_line import run

PEM = Path("jwt.pem")


@pytest.fixture
def settings_of_keys(sqlite_url: str) -> dict[str, str]:
    return {"database_url": sqlite_url, "secret_key": SECRET, "jwt_private_key_file": str(PEM)}


def restarted(settings: dict[str, str]) -> TestClient:
    return TestClient(create_app(Settings.model_validate(settings), password_cost=CHEAP))


def keys(settings: dict[str, str]) -> dict[str, str]:
    lines = run("keys", "list", **settings).stdout.splitlines()
    return {kid: does for kid, _, does in (line.split(maxsplit=2) for line in lines)}


def log_in(client: TestClient) -> Login:
    answer = client.post("/auth/token", data={"username": "ada", "password": "correct horse battery"}).json()
    return Login(answer["access_token"], answer["refresh_token"], answer["scope"])


def test_without_a_file_a_new_secret_is_printed(sqlite_url: str) -> None:
    first, second = (run("keys", "new", database_url=sqlite_url) for _ in range(2))

    assert first.exit_code == 0
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", first.stdout)
    assert first.stdout != second.stdout
    assert "SECRET_KEY_PREVIOUS" in first.stderr
    Settings.model_validate({"secret_key": first.stdout.strip()})


def test_the_first_key_pair_signs(settings_of_keys: dict[str, str]) -> None:
    made = run("keys", "new", **settings_of_keys)

    kid = made.stdout.strip()
    assert "Restart every process: the key signs then." in made.stderr
    assert stat.S_IMODE(PEM.stat().st_mode) == 0o600
    secret, *_ = others = keys(settings_of_keys)
    assert keys(settings_of_keys) == {
        secret: "signs refresh tokens, reset tokens, verification tokens",
        kid: "signs access tokens",
    }
    assert len(others) == 2
    with restarted(settings_of_keys) as client:
        assert [key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]] == [kid]


def test_a_rotation_logs_nobody_out(settings_of_keys: dict[str, str]) -> None:
    old = run("keys", "new", **settings_of_keys).stdout.strip()
    with restarted(settings_of_keys) as client:
        register(client)
        before = log_in(client)

    new = run("keys", "new", **settings_of_keys).stdout.strip()
    does = keys(settings_of_keys)
    assert (does[old], does[new]) == ("signs access tokens", "verifies")
    with restarted(settings_of_keys) as client:
        assert {key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]} == {old, new}
        assert client.get("/tasks/mine", headers=before.headers).status_code == 200

    used = run("keys", "use", new, **settings_of_keys)
    assert (used.exit_code, used.stdout) == (0, "")
    does = keys(settings_of_keys)
    assert (does[old], does[new]) == ("verifies", "signs access tokens")
    assert stat.S_IMODE(PEM.stat().st_mode) == 0o600
    with restarted(settings_of_keys) as client:
        assert client.get("/tasks/mine", headers=before.headers).status_code == 200
        assert client.get("/tasks/mine", headers=log_in(client).headers).status_code == 200
    assert [path.name for path in Path.cwd().glob("jwt.pem*")] == ["jwt.pem"]


def test_a_file_stays_whose_it_is(settings_of_keys: dict[str, str]) -> None:
    run("keys", "new", **settings_of_keys)
    kept = PEM.rename("kept.pem")
    kept.chmod(0o640)
    PEM.symlink_to(kept)

    run("keys", "new", **settings_of_keys)

    assert PEM.is_symlink()
    assert kept.read_text().count("BEGIN PRIVATE KEY") == 2
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


@pytest.mark.parametrize("kid", ["nothing", "-nothing", "--nothing", "-"])
def test_a_key_that_is_not_there_is_refused(settings_of_keys: dict[str, str], sqlite_url: str, kid: str) -> None:
    run("keys", "new", **settings_of_keys)
    before = PEM.read_text()

    refused = run("keys", "use", kid, **settings_of_keys)
    unset = run("keys", "use", "nothing", database_url=sqlite_url)

    assert (refused.exit_code, refused.stderr) == (1, "error: no private key in jwt.pem has that id\n")
    assert (unset.exit_code, unset.stderr) == (1, "error: JWT_PRIVATE_KEY_FILE is not set\n")
    assert PEM.read_text() == before


@pytest.mark.parametrize("words", [("new",), ("list",), ("use", "x")], ids=" ".join)
def test_a_file_that_is_open_to_everybody_is_one_line(settings_of_keys: dict[str, str], words: tuple[str, ...]) -> None:
    run("keys", "new", **settings_of_keys)
    PEM.chmod(0o644)

    refused = run("keys", *words, **settings_of_keys)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert (
        refused.stderr == "error: JWT_PRIVATE_KEY_FILE: jwt.pem is open to every user of this host: chmod o= jwt.pem\n"
    )


def test_a_file_that_cannot_be_written_is_one_line(sqlite_url: str) -> None:
    refused = run("keys", "new", database_url=sqlite_url, jwt_private_key_file="missing/jwt.pem")

    assert (refused.exit_code, refused.stdout) == (2, "")
    path = Path.cwd() / "missing/jwt.pem"
    assert refused.stderr == f"error: JWT_PRIVATE_KEY_FILE: {path} cannot be written: No such file or directory\n"


def test_keys_are_listed_as_json(settings_of_keys: dict[str, str]) -> None:
    kid = run("keys", "new", **settings_of_keys).stdout.strip()

    secret, pair = map(json.loads, run("keys", "list", "--json", **settings_of_keys).stdout.splitlines())

    assert secret["signs"] == ["refresh tokens", "reset tokens", "verification tokens"]
    assert pair == {"id": kid, "algorithm": "ES256", "signs": ["access tokens"]}
