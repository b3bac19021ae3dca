"""The OpenAPI document, as tools read it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import validate

CONFIG = """
post_hooks: []  # it would format the code, with a ruff from the PATH
content_type_overrides:
  application/x-ndjson: text/plain
"""
USE = """
import sys

from generated import AuthenticatedClient, Client
from generated.api.auth import issue_token
from generated.api.tasks import list_own_tasks
from generated.models import IssueTokenDataBody

url, username, password = sys.argv[1:]
with Client(url) as client:
    tokens = issue_token.sync(client=client, body=IssueTokenDataBody(username=username, password=password))
with AuthenticatedClient(url, tokens.access_token) as client:
    print([task.title for task in list_own_tasks.sync(client=client).items])
"""


@pytest.fixture
def document(url: str) -> dict[str, Any]:
    body: dict[str, Any] = httpx2.get(f"{url}/openapi.json").json()
    return body


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_a_generated_client_logs_in_and_lists_tasks(
    document: dict[str, Any], tmp_path: Path, url: str, ada: dict[str, str]
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "config.yml").write_text(CONFIG)

    python(
        tmp_path,
        *["-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "config.yml"],
        *["--output-path", "generated", "--meta", "none", "--fail-on-warning"],
    )
    shown = python(tmp_path, "-c", USE, url, ada["username"], ada["password"])

    assert shown == "['Water the plants']\n"
    models = {path.stem for path in (tmp_path / "generated" / "models").glob("*.py")}
    assert {name for name in models if "status" in name or "sort" in name} == {"task_status", "task_sort"}


def python(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
