"""The READMEs' lines, pasted as they are."""

import asyncio
import re
import shutil
from pathlib import Path

import httpx2
import pytest

from app.config import Settings
from app.mail.smtp import open_outbox
from app.mail.templates import verification
from tests.conftest import SECRET, on_one_database
from tests.support import races
from tests.support.command_line import run
from tests.support.mail_server import mail_server
from tests.support.processes import ROOT, services
from tests.support.readme import AUTH, DEPLOY, README, READMES, anchors, blocks, section, walk


def test_the_readme_is_short() -> None:
    """The rows of its tables do not count: a product has settings of its own."""
    lines = [line for line in README.read_text().splitlines() if not line.startswith("| `")]
    advice = "move what is not for everybody to the README of a room"

    assert len(lines) <= 175, advice
    assert len(" ".join(lines).split()) <= 1_150, advice


@pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(readme: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", readme.read_text()):
        name, _, anchor = link.partition("#")
        file = readme.parent / name if name else readme
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_that_is_named_exists(readme: Path) -> None:
    named = re.findall(r"`((?:app|alembic|tests)/[\w/]+\.\w+)`", readme.read_text())

    assert [name for name in named if "project" not in name and not (ROOT / name).exists()] == []


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_log_in_use_refresh_and_log_out(database_url: str) -> None:
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        walk(url, "Log in, use, refresh, log out")


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_personal_tokens(database_url: str) -> None:
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        walk(url, "Personal tokens", AUTH, ACCESS=races.log_in(url, races.register(url))["access_token"])


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_the_second_factor(database_url: str) -> None:
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        user = races.register(url)
        walk(url, "Second factor", AUTH, ACCESS=races.log_in(url, user)["access_token"], NAME=user["username"])


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_an_export(database_url: str) -> None:
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        user = races.register(url)
        walk(url, "Your own data", AUTH, ACCESS=races.log_in(url, user)["access_token"], NAME=user["username"])


def test_the_suite_that_it_shows_passes(pytester: pytest.Pytester) -> None:
    conftest, test = blocks("python", "From a pytest suite")
    pytester.makeconftest(conftest)
    pytester.makepyfile(test)

    pytester.runpytest_inprocess("-W", "error", "-o", "strict=true").assert_outcomes(passed=1)


def test_the_settings_table_is_what_env_example_lists() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)?", section("Settings"), re.MULTILINE))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert table == example


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_addresses(database_url: str) -> None:
    user = {"username": "ada", "password": "correct horse battery", "email": "ada@example.com"}
    with mail_server() as server:
        mail = {"smtp_url": server.url(), "mail_from": "Tasks <tasks@example.com>"}
        with services(1, database_url=database_url, secret_key=SECRET, **mail) as (url,):
            httpx2.post(f"{url}/users", json=user).raise_for_status()
            [letter] = server.take()
            walk(url, "Addresses and forgotten passwords", AUTH, TOKEN=letter.token())
            [letter] = server.take()
            body = {"reset_token": letter.token(), "new_password": "another long one"}
            assert httpx2.post(f"{url}/users/reset-password", json=body).status_code == 204
            [letter] = server.take()

    assert letter.message["Subject"] == "Bearer Tasks: your account has changed"


def test_the_hook_that_it_shows_is_called_with_a_mail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hooks.py").write_text(blocks("python", "Mail", DEPLOY)[0])
    monkeypatch.syspath_prepend(Path.cwd())

    async def send() -> None:
        async with open_outbox(Settings.model_validate({"mail_hook": "hooks:send"})) as outbox:
            assert outbox
            outbox.send(verification("ada@example.com", "ada", "TOKEN", None))

    asyncio.run(send())

    said = capsys.readouterr().out
    assert said.startswith("verify_email ada@example.com ada Bearer Tasks: confirm your address Hello ada,")
    assert said.endswith(" TOKEN\n")


def test_the_line_that_tries_mail_prints_what_the_readme_says() -> None:
    [line] = blocks("sh", "Mail", DEPLOY)
    [expected] = blocks("text", "Mail", DEPLOY)
    with mail_server() as server:
        said = run(*line.split()[3:], smtp_url=server.url(), mail_from="tasks@example.com")
        [letter] = server.take()

    assert said.stdout == expected
    assert letter.recipients == ["ada@example.com"]
