"""The table of OWASP ASVS 5.0 in the README of auth: each requirement has a test, or is published as a deviation."""

import ast
import json
import re
from functools import cache
from random import SystemRandom

import pyotp.compat
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, Sql
from tests.support.accounts import log_in, register
from tests.support.processes import ROOT
from tests.support.readme import AUTH, section

HEADING = "OWASP ASVS 5.0"
COUNTS = {
    "6.1": 3,
    "6.2": 12,
    "6.3": 4,
    "6.4": 4,
    "6.5": 5,
    "6.6": 3,
    "6.8": 4,
    "7.1": 3,
    "7.2": 4,
    "7.3": 2,
    "7.4": 5,
    "7.5": 2,
    "7.6": 2,
    "10.1": 2,
    "10.2": 2,
    "10.3": 4,
    "10.4": 11,
    "10.5": 5,
    "10.6": 2,
    "10.7": 3,
}
"""How many requirements of each section are at levels 1 and 2. They are the first ones."""
BEYOND = "6.4.6"
"""It is at level 3."""
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
HTTP_CLIENTS = {"aiohttp", "http", "httpx", "httpx2", "requests", "urllib", "urllib3"}
HARMLESS = {"http.HTTPStatus", "urllib.parse"}


def rows() -> dict[str, tuple[str, str]]:
    """For each number, the text of the requirement and the text that says how it is held."""
    found = re.findall(r"^\| (\d+\.\d+\.\d+) \| (.*?) \| (.*?) \|$", section(HEADING, AUTH), re.MULTILINE)
    return {number: (asked, held) for number, asked, held in found}


@cache
def names(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def imported(file: str) -> set[str]:
    """The modules that a file imports, and the names that it imports from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_each_requirement_has_a_row_in_order() -> None:
    numbers = [f"{part}.{n + 1}" for part, count in COUNTS.items() for n in range(count)]
    numbers.insert(numbers.index("6.4.4") + 1, BEYOND)

    assert [*rows()] == numbers


def test_each_row_is_held_or_a_deviation() -> None:
    for number, (asked, held) in rows().items():
        assert 4 <= len(asked.split()) <= 9, f"{number}: say in five to eight words what it asks"
        assert TEST.search(held) or held.startswith("**deviation**: "), f"{number}: name a test, or say why not"


def test_each_named_test_exists() -> None:
    named = {found for _, held in rows().values() for found in TEST.findall(held)}

    assert [f"{file}::{name}" for file, name in named if name not in names(file)] == []


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Failed logins", "LOGIN_FAILURES LOGIN_WINDOW 429 Retry-After unlock"),
        ("Passwords", "8 128 username e-mail NFC"),
        ("Ways in", "password refresh personal reset second"),
        ("Sessions", "SESSION_TTL SESSION_IDLE_TTL FRESH_LOGIN 100 longest"),
    ],
)
def test_the_readme_documents_the_control(heading: str, words: str) -> None:
    text = section(heading, AUTH)

    assert [word for word in words.split() if word not in text] == []


def test_a_new_service_has_no_account(client: TestClient, sql: Sql) -> None:
    assert client.get("/health/ready").status_code == 200
    assert sql("SELECT count(*) FROM users") == [(0,)]


def test_a_password_of_years_ago_logs_in(client: TestClient, clock: MovableClock) -> None:
    register(client)
    clock.move(days=3653)

    assert log_in(client).access_token


def test_no_secret_comes_from_a_predictable_source() -> None:
    """The two importers of `random` make no secrets, and pyotp takes its own from the system."""
    users = {file.name for file in (ROOT / "app").rglob("*.py") if "random" in imported(file.read_text())}

    assert users == {"demo_data.py", "sqlite_connections.py"}
    assert isinstance(pyotp.compat.random, SystemRandom)


def test_the_service_calls_no_other_service_by_http() -> None:
    """So it is no OAuth client, and no identity provider says who somebody is. The pytest kit calls the service."""
    files = [file for file in (ROOT / "app").rglob("*.py") if file.name != "testing.py"]
    modules = {name for file in files for name in imported(file.read_text())}

    callers = {name for name in modules if name.split(".")[0] in HTTP_CLIENTS}
    assert {name for name in callers if not any(name.startswith(each) for each in HARMLESS)} == set()


def test_nobody_is_asked_for_a_hint_or_a_phone(document: str) -> None:
    assert re.findall(r'"\w*(?:password_hint|question|answer|phone|sms)\w*":', document) == []


def test_there_is_no_code_flow_and_no_consent(document: str) -> None:
    paths = json.loads(document)["paths"]

    assert re.findall(r"authorizationCode|implicit|redirect_uri|code_challenge|\bid_token", document) == []
    assert [path for path in paths if re.search("authorize|consent|register|logout", path)] == []


def test_no_page_needs_a_login(document: str) -> None:
    """The service has no pages but those of its document, so none lacks a link to log out."""
    assert "text/html" not in document


def test_fields_of_passwords_are_masked_and_may_be_pasted(document: str) -> None:
    """A form that is made of the document, as that of Swagger UI, has an input of the type `password`."""
    fields = re.findall(r'"(\w*password|otp)": (\{[^{}]*"type": "string"[^{}]*\})', document)

    assert {name for name, _ in fields} >= {"password", "current_password", "new_password", "otp"}
    assert [name for name, schema in fields if json.loads(schema).get("format") != "password"] == []


@pytest.fixture(scope="module")
def document() -> str:
    return json.dumps(create_app(Settings(secret_key=SecretStr(SECRET)), password_cost=CHEAP).openapi())
