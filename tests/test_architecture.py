"""Imports point one way: main → tasks, users → auth → http → observe → db, and within a room from the router down."""

import ast
from functools import cache
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
GROUND = {"clock", "errors"}
ROOMS: dict[str, set[str]] = {
    "clock": set(),
    "errors": set(),
    "db": GROUND,
    "config": {"db", "errors"},
    "observe": {*GROUND, "config", "db"},
    "mail": {"config"},
    "server": {*GROUND, "config", "observe"},
    "http": {*GROUND, "config", "db", "observe"},
    "pagination": {*GROUND, "config", "db", "http", "observe"},
    "health": {*GROUND, "db", "http"},
    "auth": {*GROUND, "config", "db", "http", "mail", "observe", "pagination"},
}
"""The rooms that others build on, each with the rooms that it may import."""

RESOURCE = {*GROUND, "config", "db", "http", "mail", "observe", "pagination", "auth"}
"""The rooms that any other room may import: users, tasks, and those to come. They do not import each other."""

TOP = {"__init__", "__main__", "cli", "main", "testing"}
"""The rooms that may import every other one, and that none of the others imports."""

LAYERS = [
    {"export", "router"},
    {"dependencies"},
    {"accounts"},
    {"mailing"},
    {"access", "addresses", "forms", "login_service", "recovery"},
    {"issuing", "notices"},
    {"services"},
    {"changes", "logins", "personal_tokens", "refresh"},
    {"account_events", "second_factor", "service", "sessions"},
    {"callers", "deletion", "quota", "search"},
    {"liveness"},
    {"keys", "passwords", "throttle", "tokens"},
    {"counters", "hashing_queue", "local_throttle", "one_time_codes", "token_format"},
    {"models", "networks", "triggers", "words"},
    {"claims", "scopes"},
    {"schemas"},
    {"errors"},
]
"""The modules of auth and of each resource, from the top down: each imports only those of its own room below it."""

WITHOUT_HTTP = {
    "access",
    "accounts",
    "addresses",
    "login_service",
    "issuing",
    "mailing",
    "refresh",
    "services",
    "claims",
    "search",
    *set.union(*LAYERS[7:-2]),
}
ONLY_IMPORTERS = {
    "httpx2": {"testing.py"},
    "jose": {"auth/tokens.py"},
    "passlib": {"auth/passwords.py"},
    "aiosmtplib": {"mail/smtp.py"},
    "pyotp": {"auth/one_time_codes.py", "testing.py"},
    "prometheus_client": {"observe/metrics.py", "observe/processes.py"},
    "pytest": {"testing.py", "db/testing.py", "mail/testing.py"},
    "zxcvbn": {"auth/passwords.py"},
}
OF_APP_ITSELF = {"NAME", "SLUG", "__version__"}
MAX_LINES = 250
FILES = sorted(APP.rglob("*.py"))


@cache
def imports(file: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{name.name}" for name in node.names]
    return names


def room(file: Path) -> str:
    return file.relative_to(APP).parts[0].removesuffix(".py")


def has_layers(room: str) -> bool:
    return room == "auth" or room not in ROOMS.keys() | TOP


each_file = pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(APP)) for file in FILES])


@each_file
def test_a_room_imports_only_what_it_may(file: Path) -> None:
    here = room(file)
    if here in TOP:
        return
    imported = {name.split(".")[1] for name in imports(file) if name.startswith("app.")} - OF_APP_ITSELF
    beyond = imported - ROOMS.get(here, RESOURCE) - {here}
    assert not beyond, f"{file} imports {sorted(beyond)}: move the code down, or add them to ROOMS[{here!r}]"


def test_the_rooms_have_no_circle() -> None:
    left = dict(ROOMS)
    while free := [name for name, below in left.items() if not below & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these rooms import each other: {sorted(left)}"


@each_file
def test_a_module_imports_only_those_below_it(file: Path) -> None:
    here, module = room(file), file.stem
    if not has_layers(here) or module == "__init__":
        return
    layer = next((n for n, names in enumerate(LAYERS) if module in names), None)
    assert layer is not None, f"a new module, {file}: add its name to LAYERS, above what it imports"
    above = set().union(*LAYERS[:layer])
    wrong = [name for name in imports(file) if name.startswith(f"app.{here}.") and name.split(".")[2] in above]
    assert not wrong, f"{file} imports {wrong}, which LAYERS has above it: move the code that both need down"


@each_file
def test_a_router_of_a_room_is_safe(file: Path) -> None:
    if has_layers(room(file)):
        unsafe = "fastapi.APIRouter" in imports(file)
        assert not unsafe, f"{file} imports APIRouter: use Router of app.http.router, and Schema for what it takes"


@each_file
def test_services_know_nothing_of_http(file: Path) -> None:
    if has_layers(room(file)) and file.stem in WITHOUT_HTTP:
        web = [name for name in imports(file) if name.startswith(("fastapi", "starlette"))]
        assert not web, f"{file} imports {web}: a service is a plain function, and HTTP is the router's business"


@each_file
def test_a_module_fits_in_a_few_screens(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= MAX_LINES, f"{file} has {lines} lines, more than {MAX_LINES}: split it by idea"


def test_nine_files_lie_outside_the_rooms() -> None:
    names = sorted(path.name for path in APP.iterdir() if path.is_file())
    assert len(names) <= 9, f"app/ has {names}: move the new file into a room"


@pytest.mark.parametrize(("library", "allowed"), ONLY_IMPORTERS.items())
def test_a_guarded_library_has_no_other_importer(library: str, allowed: set[str]) -> None:
    importers = {str(f.relative_to(APP)) for f in FILES if any(name.split(".")[0] == library for name in imports(f))}

    assert importers == allowed, f"{library} is for {allowed} alone: use what they offer"
