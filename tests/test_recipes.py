"""The recipes of app/README.md work as they are printed: in a copy of the project, whose own tests then pass."""

from pathlib import Path

import pytest

from app.auth.schemas import SCOPES
from app.tasks.models import Task
from tests.support.recipes import copy_project, follow, run

STYLE = ".venv/bin/ruff check --no-cache . && .venv/bin/ruff format --no-cache --check ."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_project(tmp_path)
    return tmp_path


def of_app(files: set[Path], project: Path) -> list[str]:
    """The files of a recipe but for the tests."""
    return sorted(str(file.relative_to(project)) for file in files if not file.is_relative_to(project / "tests"))


@pytest.mark.skipif(hasattr(Task, "priority") or "projects" in SCOPES, reason="this project has followed them")
def test_recipes_for_a_field_and_a_resource_work(project: Path) -> None:
    field = of_app(follow("A field of tasks", project), project)
    resource = of_app(follow("A resource", project), project)

    assert len(field) <= 4, field
    assert len(resource) <= 7, resource
    run(STYLE, project)
