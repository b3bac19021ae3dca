"""Swagger UI and ReDoc: nothing from elsewhere, nothing inline, and a browser that reaches the service alone."""

import os
import re
import shutil
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET
from tests.support.accounts import PASSWORD
from tests.support.processes import services

PAGES = ["/docs", "/redoc"]
FLAGS = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync", "host-resolver-rules=MAP tasks.example 127.0.0.1"]
REFUSED = "Failed to load resource: the server responded with a status of 40"
LOGO = "Loading the image 'https://cdn.redoc.ly/redoc/logo-mini.svg' violates the following Content Security Policy"


@pytest.fixture
def unstarted() -> TestClient:
    settings = Settings(database_url="sqlite:///./unused.db", root_path="/api")
    return TestClient(create_app(settings, password_cost=CHEAP))


@pytest.mark.parametrize("prefix", ["/api", ""])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_made_of_the_services_own_files(unstarted: TestClient, path: str, prefix: str) -> None:
    page = unstarted.get(prefix + path)
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    answers = {file: unstarted.get(f"{prefix}/{file}") for file in files}

    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "//" not in page.text
    assert len(answers) == {"/docs": 4, "/redoc": 2}[path]
    for file, answer in answers.items():
        kind = {"png": "image/png", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind[file.rpartition(".")[2]])
    for answer in page, *answers.values():
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("prefix", ["/api", ""])
def test_the_root_leads_to_the_docs(unstarted: TestClient, prefix: str) -> None:
    for method in "GET", "HEAD":
        answer = unstarted.request(method, f"{prefix}/?x=1", follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (307, "/api/docs")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_forbids_what_is_inline_and_what_is_elsewhere(unstarted: TestClient, path: str) -> None:
    page = unstarted.get(path)
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers["Content-Security-Policy"].split(";"))

    assert re.findall(r"<style|<script>|<script[^>]*>[^<]|\bstyle=|\bon\w+=", page.text) == []
    assert policy.pop("style-src").startswith("'s")
    assert policy.pop("worker-src", "blob:") == "blob:"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert "unsafe" not in page.headers["Content-Security-Policy"]


def test_an_unknown_file_of_the_docs_is_not_found(unstarted: TestClient) -> None:
    for name in "", "x", "../core.py", "..%2fcore.py", "%00", "x" * 300:
        response = unstarted.get(f"/docs/files/{name}")
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found", "code": "not_found"})


@pytest.mark.parametrize("name", ["favicon.png", "none"])
def test_the_files_of_the_docs_answer_get_only(unstarted: TestClient, name: str) -> None:
    response = unstarted.post(f"/docs/files/{name}")

    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("chromium is not installed")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[f"--{flag}" for flag in FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that reaches the service alone, and asks for nothing else."""
    outside = []

    def refuse(route: Route) -> None:
        outside.append(route.request.url)
        route.abort()

    with browser.new_context(reduced_motion="reduce") as context:
        context.route(re.compile(r"^(?!http://tasks\.example:)"), refuse)
        yield context.new_page()
    assert outside == []


@pytest.fixture
def errors(page: Page) -> list[str]:
    """The errors that the page logs, with those of its policy."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(error.message))
    return errors


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL, by a name: Swagger UI makes exceptions for 127.0.0.1."""
    database = f"sqlite:///{tmp_path_factory.mktemp('docs')}/tasks.db"
    with services(1, database_url=database, secret_key=SECRET, root_path=request.param) as (url,):
        assert httpx2.post(f"{url}/users", json={"username": "ada", "password": PASSWORD}).status_code == 201
        yield url.replace("127.0.0.1", "tasks.example") + request.param


@pytest.mark.parametrize("service", ["/api", pytest.param("", marks=pytest.mark.long)], indirect=True)
def test_swagger_ui_logs_in_and_calls(service: str, page: Page, errors: list[str]) -> None:
    page.goto(f"{service}/docs")
    dialog = page.locator(".auth-container")
    operation = page.locator(".opblock", has=page.locator("[data-path='/tasks/mine']"))
    answer = operation.locator(".live-responses-table .response")
    operation.locator(".opblock-summary-control").click()

    def log_in(password: str, *, scope: str | None = None) -> Request:
        page.locator(".btn.authorize").first.click()
        dialog.get_by_label("username:").fill("ada")
        dialog.get_by_label("password:").fill(password)
        if scope:
            dialog.locator("label", has_text=scope).click()
        with page.expect_request(f"{service}/auth/token") as request:
            dialog.locator("button.authorize").click()
        return request.value

    def execute() -> None:
        dialog.get_by_text("Logout").wait_for()
        dialog.get_by_role("button", name="Close").click()
        operation.get_by_role("button", name="Execute").click()

    log_in("wrong horse battery")
    expect(dialog.locator(".errors")).to_contain_text("error: invalid_grant")
    dialog.get_by_role("button", name="Close").click()

    login = log_in(PASSWORD)
    execute()
    expect(answer).to_contain_text('"next_cursor": null')
    expect(answer).to_contain_text("200")
    assert (login.headers["authorization"], "scope" in str(login.post_data)) == ("Basic Og==", False)

    page.locator(".btn.authorize").first.click()
    dialog.get_by_text("Logout").click()
    dialog.get_by_role("button", name="Close").click()
    login = log_in(PASSWORD, scope="tasks:write")
    execute()
    expect(answer).to_contain_text("insufficient_scope")
    expect(answer).to_contain_text("403")
    assert "scope=tasks%3Awrite" in str(login.post_data)
    assert [error for error in errors if not error.startswith(REFUSED)] == []


@pytest.mark.parametrize("service", ["/api"], indirect=True)
def test_redoc_shows_the_operations_and_searches(service: str, page: Page, errors: list[str]) -> None:
    page.goto(f"{service}/redoc")
    page.get_by_placeholder("Search").fill("tasks")

    expect(page.get_by_role("heading", name="Create a task")).to_be_visible()
    expect(page.locator("[data-role='search:results'] li").first).to_be_visible()
    assert [error for error in errors if not error.startswith(LOGO)] == []
