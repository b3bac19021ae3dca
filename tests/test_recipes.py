"""The recipes of app/README.md work as they are printed: in a copy of the project, whose own tests then pass."""

from pathlib import Path

import pytest

from tests.support.recipes import copy_project, follow, run

STYLE = ".venv/bin/ruff check --no-cache . && .venv/bin/ruff format --no-cache --check ."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_project(tmp_path)
    return tmp_path


def of_app(files: set[Path], project: Path) -> list[str]:
    """The files of a recipe but for the tests."""
    return sorted(str(file.relative_to(project)) for file in files if not file.is_relative_to(project / "tests"))


def test_recipe_of_a_resource_works(project: Path) -> None:
    files = of_app(follow("A resource", project), project)

    assert len(files) <= 7, files
    run(STYLE, project)


@pytest.mark.long
def test_recipes_leave_the_projects_tests_green(project: Path) -> None:
    follow("A resource", project)

    run(".venv/bin/pytest", project)
