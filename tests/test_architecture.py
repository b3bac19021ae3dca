"""Imports point one way: main → tasks, users → auth → ground, and within a room from the router down."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
GROUND = {
    "batches",
    "bodies",
    "clock",
    "columns",
    "config",
    "cors",
    "database",
    "database_url",
    "engines",
    "error_responses",
    "errors",
    "events",
    "logs",
    "metrics",
    "middleware",
    "migrations",
    "open_files",
    "openapi",
    "pagination",
    "postgresql",
    "protocol",
    "queries",
    "server",
    "shortcut",
    "sqlite",
    "sqlite_connections",
    "transport",
    "turns",
    "watch",
}
MAY_IMPORT = {"auth": GROUND, "users": GROUND | {"auth"}, "tasks": GROUND | {"auth"}, "health": GROUND, "docs": set()}
FLOORS = [
    {"router"},
    {"dependencies"},
    {"access", "forms", "grants", "recovery", "refresh"},
    {"changes", "logins"},
    {"service"},
    {"deletion", "holders", "quota", "search"},
    {"keys", "passwords", "throttle", "tokens"},
    {"counters", "guesses", "queue"},
    {"models", "names", "networks"},
    {"claims", "schemas"},
    {"errors"},
]
WEBLESS = {"access", "grants", "refresh", "claims", "search", *set.union(*FLOORS[3:-2])}
ONLY_IMPORTERS = {
    "httpx2": "testing.py",
    "jose": "auth/tokens.py",
    "passlib": "auth/passwords.py",
    "prometheus_client": "metrics.py",
    "pytest": "testing.py",
    "zxcvbn": "auth/passwords.py",
}
FILES = sorted(APP.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(APP)) for file in FILES])
def test_every_arrow_points_down(file: Path) -> None:
    path = file.relative_to(APP)
    rooms = [name.split(".")[1:] for name in imports(file) if name.startswith("app.")]
    here = path.parts[0].removesuffix(".py")

    if here in GROUND:
        assert {room[0] for room in rooms} <= GROUND - {here}
    elif here in MAY_IMPORT:
        assert {room[0] for room in rooms} <= MAY_IMPORT[here] | {here}
    else:
        assert here in {"__init__", "__main__", "main", "upkeep", "cli", "testing"}
    assert not any(room[0] == "testing" for room in rooms)
    if len(path.parts) == 2 and here in MAY_IMPORT:
        floor = next(n for n, names in enumerate([*FLOORS, {"__init__"}]) if path.stem in names)
        for room in rooms:
            assert room[0] != here or not FLOORS[:floor] or room[1] not in set.union(*FLOORS[:floor])
    if path.stem in WEBLESS:
        assert not any(name.startswith(("fastapi", "starlette")) for name in imports(file))


@pytest.mark.parametrize(("library", "importer"), ONLY_IMPORTERS.items())
def test_a_guarded_library_has_one_importer(library: str, importer: str) -> None:
    importers = {str(f.relative_to(APP)) for f in FILES if any(name.split(".")[0] == library for name in imports(f))}

    assert importers == {importer}
