"""How tests are named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
LONGEST = 59
RIDDLE = re.compile("test_(it|of|what(ever)?|where(ver)?|which(ever)?|who(ever|m|se)?)_")


def test_names_of_tests_are_short_and_name_their_subject() -> None:
    bad = [f"{path}: {name}" for path, name in names() if len(name) > LONGEST or RIDDLE.match(name)]

    assert not bad, (
        f"Rename these tests: at most {LONGEST} characters, and a noun first instead of it, of, what, which or who. "
        "Move the rest of the sentence into the docstring:\n" + "\n".join(bad)
    )


def names() -> Iterator[tuple[Path, str]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield path.relative_to(TESTS), node.name
