"""The signing secret: given, or made once beside the SQLite file and the same for every process and every start."""

import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.auth.keys import secret_file, signing_secrets
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, Serve
from tests.support.accounts import log_in, refresh, sign_up

NEW_SECRET = "another-key-for-tests-9876543210-fedcba"

EIGHT_AT_ONCE = """
import multiprocessing
import sys
from app.auth.keys import signing_secrets
from app.config import Settings

def make(folder, ready, secrets):
    settings = Settings(database_url=f"sqlite:///{folder}/tasks.db")
    ready.wait()
    secrets.put(signing_secrets(settings))

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    for folder in sys.argv[1:]:
        ready, secrets = fork.Barrier(8), fork.Queue()
        processes = [fork.Process(target=make, args=(folder, ready, secrets)) for _ in range(7)]
        for process in processes:
            process.start()
        make(folder, ready, secrets)
        print(*{secret for _ in range(8) for secret in secrets.get(timeout=20)})
        for process in processes:
            process.join()
"""


@contextmanager
def serving(clock: MovableClock, settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, clock=clock, password_cost=CHEAP)) as client:
        yield client


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/tasks.db")

    [secret] = signing_secrets(settings)

    assert [path.name for path in tmp_path.iterdir()] == ["tasks.db.secret"]
    assert stat.S_IMODE(secret_file(settings).stat().st_mode) == 0o600
    assert secret_file(settings).read_text() == secret
    assert Settings(secret_key=secret).secret_key is not None
    assert signing_secrets(settings) == [secret]
    assert signing_secrets(Settings(database_url=f"sqlite:///{tmp_path}/other.db")) != [secret]


def test_eight_processes_at_once_agree_and_leave_no_draft(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", EIGHT_AT_ONCE, *folders],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert [[path.name for path in folder.iterdir()] for folder in folders] == [["tasks.db.secret"]] * 8
    assert done.stdout.splitlines() == [(folder / "tasks.db.secret").read_text() for folder in folders]


@pytest.mark.parametrize("damaged", [b"", b"\n", b"too short", b"\xff" * 43], ids=["empty", "blank", "short", "binary"])
def test_a_kept_secret_that_is_damaged_signs_nothing(tmp_path: Path, damaged: bytes) -> None:
    """A full disk or a crash leaves an empty file, and with an empty key anyone can sign."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/tasks.db")
    secret_file(settings).write_bytes(damaged)
    secret_file(settings).chmod(0o600)

    with pytest.raises(ValueError, match=f"^{re.escape(str(secret_file(settings)))} is damaged: it "):
        signing_secrets(settings)


@pytest.mark.parametrize(
    ("before", "after"), [("", "\n"), ("", "\r\n"), ("\ufeff", ""), ("\ufeff", "\r\n"), ("\n ", " \t\n"), ("", "\xa0")]
)
def test_white_space_and_a_bom_around_the_secret_do_not_count(tmp_path: Path, before: str, after: str) -> None:
    """An editor, a restore by copy and paste, or a volume adds them, and everybody would be logged out."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/tasks.db")
    [secret] = signing_secrets(settings)
    secret_file(settings).write_text(f"{before}{secret}{after}", "utf-8", newline="")

    assert signing_secrets(settings) == [secret]


def test_a_secret_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    """The line says what to do."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/tasks.db")
    secret_file(settings).mkdir(mode=0o700)

    with pytest.raises(ValueError, match="cannot be read or made") as caught:
        signing_secrets(settings)

    assert str(caught.value) == (
        f"{secret_file(settings)} cannot be read or made: Is a directory. Mend that, or set SECRET_KEY"
    )


def test_tokens_survive_a_restart(sqlite_url: str, clock: MovableClock, tmp_path: Path) -> None:
    settings = Settings(database_url=sqlite_url)
    with serving(clock, settings) as client:
        login = sign_up(client)

    with serving(clock, settings) as client:
        assert client.get("/users/me", headers=login.headers).status_code == 200
        assert refresh(client, login.refresh_token).status_code == 200
    assert (tmp_path / "tasks.db.secret").exists()


def test_nothing_is_touched_before_the_service_starts(tmp_path: Path) -> None:
    create_app(Settings(database_url=f"sqlite:///{tmp_path}/tasks.db"))

    assert list(tmp_path.iterdir()) == []


def test_a_given_secret_leaves_no_file(sqlite_url: str, clock: MovableClock, tmp_path: Path) -> None:
    with serving(clock, Settings(database_url=sqlite_url, secret_key=SECRET)) as client:
        sign_up(client)

    assert not (tmp_path / "tasks.db.secret").exists()


def test_a_given_secret_goes_before_a_kept_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tasks.db"
    [kept] = signing_secrets(Settings(database_url=url))

    assert signing_secrets(Settings(database_url=url, secret_key=SECRET)) == [SECRET]
    assert signing_secrets(Settings(database_url=url, secret_key_previous=SECRET)) == [kept, SECRET]
    assert signing_secrets(Settings(database_url=url, secret_key=SECRET, secret_key_previous=kept)) == [SECRET, kept]


def test_a_rotated_secret_logs_nobody_out_and_signs_no_more(serve: Serve) -> None:
    before = serve()
    old = sign_up(before)

    rotated = serve(secret_key=NEW_SECRET, secret_key_previous=SECRET)
    new = log_in(rotated)

    assert rotated.get("/users/me", headers=old.headers).status_code == 200
    assert rotated.get("/users/me", headers=new.headers).status_code == 200
    assert before.get("/users/me", headers=new.headers).status_code == 401
    assert refresh(before, new.refresh_token).status_code == 400
    assert refresh(rotated, old.refresh_token).status_code == 200


def test_a_secret_that_is_gone_takes_its_tokens_along(serve: Serve) -> None:
    old = sign_up(serve())

    after = serve(secret_key=NEW_SECRET)

    assert after.get("/users/me", headers=old.headers).status_code == 401
    assert refresh(after, old.refresh_token).status_code == 400


def test_two_services_with_one_secret_take_each_others_tokens(serve: Serve) -> None:
    login = sign_up(serve())

    assert serve().get("/users/me", headers=login.headers).status_code == 200
