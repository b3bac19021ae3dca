"""The README's lines, pasted as they stand."""

import asyncio
import re
import shutil
import socketserver
import subprocess
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from app.config import Settings
from app.users.recovery import Reset, send
from tests.conftest import SECRET, on_one_database
from tests.support.processes import ROOT, services
from tests.support.readme import blocks, section


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_log_in_use_refresh_and_log_out(database_url: str) -> None:
    script = "\n".join(blocks("sh", "Log in, use, refresh, log out"))
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        pasted = script.replace("http://127.0.0.1:8000", url)
        shown = subprocess.run(["bash", "-ec", pasted], check=True, capture_output=True, text=True, timeout=120).stdout

    assert '"username":"ada"' in shown
    assert shown.count('"title":"Water the plants"') == 3
    assert '"refresh_token":' in shown
    assert "HTTP/1.1 200 OK" in shown
    assert shown.endswith('{"detail":"The session was signed out","code":"invalid_token"}')


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
        Path("hooks.py").write_text(blocks("python", "Administration")[0].replace('"localhost"', here))
        monkeypatch.syspath_prepend(Path.cwd())
        hook = Settings.model_validate({"reset_hook": "hooks:send"}).reset_hook

        assert hook
        asyncio.run(send(hook, Reset("ada", "ada@example.com", "TOKEN")))
        server.shutdown()

    [message] = Mailbox.messages
    assert "To: ada@example.com" in message
    assert "#TOKEN" in message
