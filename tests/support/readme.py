"""The sections of the READMEs and the code blocks in them, which tests paste."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.accounts import EVERYTHING
from tests.support.processes import ROOT

TIME = re.compile(r"20\d\d[\d\\:.T-]+Z")

README = ROOT / "README.md"
AUTH = ROOT / "app/auth/README.md"
DEPLOY = ROOT / "app/cli/README.md"
READMES = [README, *(file for folder in ("app", "alembic", "tests") for file in (ROOT / folder).rglob("README.md"))]


def section(heading: str, file: Path = README) -> str:
    """The text under a heading, up to the next heading of its level or above. A `#` in a code block is no heading."""
    lines: list[str] = []
    level, in_code = 0, False
    for line in file.read_text().splitlines():
        in_code ^= line.startswith("```")
        marks = 0 if in_code else len(line) - len(line.lstrip("#"))
        if level and 0 < marks <= level:
            break
        if level:
            lines.append(line)
        elif marks and line.lstrip("#") == f" {heading}":
            level = marks
    assert level, f"{file.relative_to(ROOT)} has no section {heading!r}"
    return "\n".join([*lines, ""])


def blocks(language: str, heading: str, file: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(heading, file), re.DOTALL | re.MULTILINE)


def walk(url: str, heading: str, file: Path = README, **variables: str) -> None:
    """Run the shell blocks of a section against a service, and compare what they print with its JSON blocks.

    `…` stands for any text, and so does each time. Line breaks do not count.
    """
    script = "\n".join(blocks("sh", heading, file)).replace("http://127.0.0.1:8000", url)
    script = script.replace(".venv/bin/python", sys.executable)
    environment = {**os.environ, **variables}
    shown = subprocess.run(["bash", "-ec", script], check=True, capture_output=True, env=environment, timeout=120)
    text = shown.stdout.decode().replace("\n", "")
    expected = "".join(blocks("json", heading, file)).replace("\n", "")
    expected = expected.replace("tasks:read tasks:write account", EVERYTHING)
    assert re.fullmatch(TIME.sub('[^"]+', re.escape(expected)).replace("…", ".+"), text), text


def anchors(file: Path) -> set[str]:
    """The fragments that GitHub gives to the headings of a file."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
