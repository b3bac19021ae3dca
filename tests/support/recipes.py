"""Follows the recipes of app/README.md, as they are printed, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.readme import section

RECIPES = ROOT / "app/README.md"
UNFINISHED = shutil.ignore_patterns("*.pyc.*")  # other workers are writing them now
BLOCK = re.compile(r"^```(python|diff|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def copy_project(folder: Path) -> None:
    for name in ("app", "alembic", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=UNFINISHED)
    for name in ("alembic.ini", "pyproject.toml", "README.md", ".env.example"):
        shutil.copy(ROOT / name, folder / name)


def follow(recipe: str, folder: Path) -> set[Path]:
    """Follow the blocks of a recipe from the top down, and return the files that it made and changed.

    A block of Python is a new file, and a diff is for a file that exists. Their first line names the file. A block of
    sh is run.
    """
    before = _modules(folder)
    for language, block in BLOCK.findall(section(recipe, RECIPES)):
        name, _, code = block.partition("\n")
        if language == "sh":
            run(block, folder)
        elif language == "python":
            (folder / name.removeprefix("# ")).write_text(code.removeprefix("\n"))
        else:
            file = folder / name.removeprefix("--- ")
            file.write_text(_changed(file.read_text(), code))
    return {file for file, text in _modules(folder).items() if before.get(file) != text}


def run(script: str, folder: Path) -> None:
    """Run the lines of a recipe, tests on SQLite in one process. Neither this coverage nor this pytest reaches them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    environment["PYTEST_ADDOPTS"] = "-n0 -q -k 'not postgresql' -p no:cacheprovider"
    pasted = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    result = subprocess.run(
        ["bash", "-ec", pasted], check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"


def _changed(text: str, diff: str) -> str:
    """Apply a diff without line numbers. The lines of each part, between lines of `@@`, stand once in the text."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        old = "".join(line[1:] or line for line in lines if not line.startswith("+"))
        new = "".join(line[1:] or line for line in lines if not line.startswith("-"))
        advice = "adapt the recipe in app/README.md; a product that needs it no more deletes it, and this test"
        assert text.count(old) == 1, f"these lines stand {text.count(old)} times in the file:\n{old}\n{advice}"
        text = text.replace(old, new)
    return text


def _modules(folder: Path) -> dict[Path, str]:
    return {file: file.read_text() for file in folder.rglob("*.py")}
