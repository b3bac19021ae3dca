"""The READMEs' lines, pasted as they are."""

import asyncio
import re
import shutil
import socketserver
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from app.config import Settings
from app.users.errors import ResetNotSent
from app.users.recovery import Reset, send
from tests.conftest import SECRET, on_one_database
from tests.support import races
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


def test_the_suite_that_it_shows_passes(pytester: pytest.Pytester) -> None:
    conftest, test = blocks("python", "From a pytest suite")
    pytester.makeconftest(conftest)
    pytester.makepyfile(test)

    pytester.runpytest_inprocess("-W", "error", "-o", "strict=true").assert_outcomes(passed=1)


def test_the_settings_table_is_what_env_example_lists() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)?", section("Settings"), re.MULTILINE))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert table == example


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as one message takes."""

    messages: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 mail\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            self.wfile.write(
                b"354 go on\r\n" if verb == b"DATA" else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
            )
            if verb == b"DATA":
                self.messages.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                self.wfile.write(b"250 ok\r\n")


def test_the_hook_that_it_shows_sends_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f'"127.0.0.1", {server.server_address[1]}'
        Path("hooks.py").write_text(blocks("python", "Administration", DEPLOY)[0].replace('"localhost"', here))
        monkeypatch.syspath_prepend(Path.cwd())
        hook = Settings.model_validate({"reset_hook": "hooks:send"}).reset_hook

        assert hook
        asyncio.run(send(hook, Reset("ada", "ada@example.com", "TOKEN")))
        with pytest.raises(ResetNotSent):
            asyncio.run(send(hook, Reset("bob", None, "TOKEN")))
        server.shutdown()

    [message] = Mailbox.messages
    assert "To: ada@example.com" in message
    assert "#TOKEN" in message
