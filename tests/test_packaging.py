"""The declarations for package managers and for the workflow."""

import ast
import itertools
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.support.processes import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KIT = sorted((ROOT / "app").rglob("testing.py"))
FILES = sorted({*(ROOT / "app").rglob("*.py"), *(ROOT / "alembic").rglob("*.py")} - {*KIT})


def declared(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(files: Iterable[Path]) -> dict[str, set[str]]:
    """The packages that files import, each with these files."""
    found = defaultdict(set)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {"app", *sys.stdlib_module_names}:
                found[name].add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(("files", "extra"), [(FILES, ""), (KIT, "testing")], ids=["service", "kit"])
def test_imported_packages_are_declared(files: list[Path], extra: str) -> None:
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, [])
    providers = packages_distributions()

    undeclared = {
        name: where
        for name, where in imported(files).items()
        if declared(requirements).isdisjoint(map(canonicalize_name, providers[name]))
    }

    assert not undeclared, f"add to the dependencies in pyproject.toml: {undeclared}"


def test_the_workflow_runs_the_commands_of_the_readme() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]

    assert len(commands) == 2
    assert [command for command in commands if command not in workflow] == []


def test_the_workflow_has_each_declared_python() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    declared_versions = re.findall(r":: (3\.\d+)", "\n".join(PROJECT["classifiers"]))

    assert re.findall(r'"(3\.\d+)"', workflow) == 2 * declared_versions


def test_the_lock_file_is_of_these_dependencies() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (own,) = [package for package in packages if package["name"] == PROJECT["name"]]
    locked = {(each["name"], SpecifierSet(each.get("specifier", ""))) for each in own["metadata"]["requires-dist"]}
    extras = PROJECT["optional-dependencies"].values()
    requirements = [Requirement(text) for text in [*PROJECT["dependencies"], *itertools.chain(*extras)]]
    wanted = {(canonicalize_name(each.name), each.specifier) for each in requirements}

    assert locked - {(PROJECT["name"], SpecifierSet())} == wanted - {(PROJECT["name"], SpecifierSet())}, "run: uv lock"
