"""How tests are named, and what they may share."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
LONGEST = 59
COMPOUND = ast.stmt | ast.ExceptHandler | ast.match_case
RIDDLE = re.compile("test_(it|of|what(ever)?|where(ver)?|which(ever)?|who(ever|m|se)?)_")


def test_names_of_tests_are_short_and_name_their_subject() -> None:
    bad = [f"{path}: {name}" for path, name in _names() if len(name) > LONGEST or RIDDLE.match(name)]

    assert not bad, (
        f"Rename these tests: at most {LONGEST} characters, and a noun first instead of it, of, what, which or who. "
        "Move the rest of the sentence into the docstring:\n" + "\n".join(bad)
    )


def test_no_module_of_tests_imports_from_another() -> None:
    bad = [
        f"{path} imports from {module}"
        for path, node in _statements("*.py")
        for module in _imported(node)
        if re.search(r"\btest_\w+(\.|$)", module)
    ]

    assert not bad, "Move the shared parts to tests/support/:\n" + "\n".join(bad)


def _names() -> Iterator[tuple[Path, str]]:
    for path, node in _statements("test_*.py"):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield path, node.name


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _statements(pattern: str) -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(TESTS.rglob(pattern)):
        for statement in _parsed(path):
            yield path.relative_to(TESTS), statement


@cache
def _parsed(path: Path) -> list[ast.AST]:
    """The statements of a module, each before those within it. Expressions are ten times as many."""
    found: list[ast.AST] = [ast.parse(path.read_text())]
    for node in found:
        found += [child for child in ast.iter_child_nodes(node) if isinstance(child, COMPOUND)]
    return found
