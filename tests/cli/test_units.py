"""The units of the README: systemd takes them, and they leave little of the host open to the service."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from app.config import read_settings
from tests.conftest import SECRET, on_one_database
from tests.support import races
from tests.support.command_line import run
from tests.support.processes import command, free_port, wait_until_ready
from tests.support.readme import DEPLOY, blocks

PROGRAM = "/opt/bearer-tasks/.venv/bin/python"
SERVICES = ["bearer-tasks.service", "bearer-tasks-purge.service"]
BLOCKS = [block for block in blocks("ini", "Deployment", DEPLOY) if "\nExecStart=" in block or "[Timer]" in block]
UNITS = dict(zip([*SERVICES, "bearer-tasks-purge.timer"], BLOCKS, strict=True))
POSTGRESQL = "postgresql://tasks:password@10.0.0.10/tasks"
MAX_EXPOSURE = 20  # in tenths: 10.0 is the worst

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ, reason="systemd is not installed"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the units, for this Python."""
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace(PROGRAM, sys.executable))
    return tmp_path


def analyze(*words: object) -> "subprocess.CompletedProcess[str]":
    done = ["systemd-analyze", *map(str, words)]
    return subprocess.run(done, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)


@with_systemd
def test_systemd_takes_each_unit(folder: Path) -> None:
    done = analyze("verify", "--man=no", *(folder / name for name in UNITS))

    assert (done.returncode, done.stdout) == (0, "")


@with_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_exposes_little(folder: Path, name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", folder / name)

    assert done.returncode == 0, done.stdout


def test_the_purge_has_the_limits_of_the_service() -> None:
    service, purge = (UNITS[name].partition("StateDirectory=")[2].partition("\n\n")[0].strip() for name in SERVICES)

    assert service.count("\n") > 25
    assert purge == service


def credentials(folder: Path) -> str:
    """The lines that hand secrets to a unit, with the values of two settings in files."""
    [lines] = [block for block in blocks("ini", "Secrets from files", DEPLOY) if "LoadCredential" in block]
    [make] = blocks("sh", "Secrets from files", DEPLOY)
    values = {"database_url": POSTGRESQL, "secret_key": SECRET}
    for name, path in re.findall("^LoadCredential=(.+):(.+)$", lines, re.MULTILINE):
        (folder / name).write_text(values[name] + "\n")
        assert f"/dev/stdin {path}\n" in make
    return lines


@with_systemd
def test_systemd_takes_the_credentials(folder: Path) -> None:
    unit = folder / SERVICES[0]
    unit.write_text(unit.read_text() + credentials(folder))
    done = analyze("verify", "--man=no", unit)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_credentials_are_settings_and_win_over_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service cannot read the files that `.env` names for the commands."""
    [env_file] = [block for block in blocks("ini", "Secrets from files", DEPLOY) if "LoadCredential" not in block]
    Path(".env").write_text(env_file)
    [environment] = re.findall("^Environment=(.+)$", credentials(tmp_path), re.MULTILINE)
    for name, value in (word.split("=") for word in environment.split()):
        assert f"{name}=/etc/bearer-tasks/" in env_file
        monkeypatch.setenv(name, value.replace("%d", str(tmp_path)))

    settings = read_settings()

    assert settings.database_url == POSTGRESQL
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_runs_a_command_as_it_is_documented(name: str) -> None:
    [words] = re.findall(f"^ExecStart={PROGRAM} -m app (.+)$", UNITS[name], re.MULTILINE)

    assert run(*words.split(), "--help").exit_code == 0


@pytest.mark.long
@with_systemd
@on_one_database
def test_the_service_makes_only_calls_that_the_unit_allows(database_url: str) -> None:
    """A worker hashes passwords, and the purge runs. Another call would kill the process."""
    port = free_port()
    settings = {"database_url": database_url, "secret_key": SECRET}
    words = ["serve", "--port", str(port), "--workers", "2"]
    with command("tests.support.confined", "app", *words, **settings) as process:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        user = races.register(f"http://127.0.0.1:{port}")
        login = races.log_in(f"http://127.0.0.1:{port}", user)
        mine = {"Authorization": f"Bearer {login['access_token']}"}
        created = httpx2.post(f"http://127.0.0.1:{port}/tasks", json={"title": "Water"}, headers=mine)
    with command("tests.support.confined", "app", "purge", **settings) as purge:
        said = purge.communicate(timeout=60)[0]

    assert created.status_code == 201
    assert process.returncode == 0
    assert purge.returncode == 0, said
