"""The README's lines, pasted as they stand."""

import re
import shutil
import subprocess

import pytest

from tests.conftest import SECRET, on_one_database
from tests.processes import ROOT, services

README = (ROOT / "README.md").read_text()


def blocks(language: str, heading: str) -> str:
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL))


@on_one_database
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_log_in_use_refresh_and_log_out(database_url: str) -> None:
    script = blocks("sh", "Log in, use, refresh, log out")
    with services(1, database_url=database_url, secret_key=SECRET) as (url,):
        pasted = script.replace("http://127.0.0.1:8000", url)
        shown = subprocess.run(["bash", "-ec", pasted], check=True, capture_output=True, text=True, timeout=120).stdout

    assert '"username":"ada"' in shown
    assert shown.count('"title":"Water the plants"') == 3
    assert '"refresh_token":' in shown
    assert "HTTP/1.1 200 OK" in shown
    assert shown.endswith('{"detail":"The session was signed out"}')


def test_the_suite_that_it_shows_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(blocks("python", "From a pytest suite"))

    pytester.runpytest_inprocess("-W", "error").assert_outcomes(passed=1)


def test_the_settings_table_is_what_env_example_lists() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)?", blocks_of_table(), re.MULTILINE))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert table == example


def blocks_of_table() -> str:
    return README.partition("## Settings\n")[2].partition("\n## ")[0]
