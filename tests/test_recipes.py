"""The recipes of app/README.md work as they are printed: in a copy of the project, whose own tests then pass."""

from pathlib import Path

import pytest

from tests.support.recipes import copy_project, follow, run

CHECKS = """
.venv/bin/ruff check . && .venv/bin/ruff format --check .
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_project(tmp_path)
    return tmp_path


def of_app(files: set[Path], project: Path) -> list[str]:
    return sorted(str(file.relative_to(project)) for file in files if not file.is_relative_to(project / "tests"))


def test_recipes_of_a_field_and_a_resource_work(project: Path) -> None:
    field = follow("A field of tasks", project)
    resource = follow("A resource", project)

    assert len(of_app(field, project)) <= 4, "a field takes models, schemas, service and a migration"
    assert len(of_app(resource, project)) <= 7
    run("-q".join(CHECKS), project)
