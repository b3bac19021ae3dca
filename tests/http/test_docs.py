"""Swagger UI and ReDoc: nothing from elsewhere, nothing inline, and a browser that reaches the service alone."""

import json
import os
import re
import shutil
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Locator, Page, Request, Response, Route, expect, sync_playwright

from app.clock import utc_now
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET
from tests.support import races
from tests.support.processes import services
from tests.support.second_factor import Factor, protect

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
        yield url.replace("127.0.0.1", "tasks.example") + request.param


class Swagger:
    """Swagger UI in the hands of a user."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.login, self.token = (
            page.locator(".auth-container", has_text=text) for text in ("OAuth2", "PersonalToken")
        )

    def authorize(self, scheme: Locator, **fields: str) -> None:
        """Fill in a form of the Authorize dialog, and send it. Its labels are the names of the fields."""
        self.open()
        for name, value in fields.items():
            scheme.locator(f"label:text-is('{name}:') + section input").fill(value)
        scheme.locator("button.authorize").click()

    def log_in(self, **fields: str) -> Request:
        """Authorize with the password grant. Return the request for the token."""
        with self.page.expect_request("**/auth/token") as request:
            self.authorize(self.login, **fields)
        return request.value

    def close(self, scheme: Locator) -> None:
        """Close the dialog, once the scheme is authorized."""
        scheme.get_by_text("Logout").wait_for()
        self.page.locator(".dialog-ux .close-modal").click()

    def log_out(self, scheme: Locator) -> None:
        self.open()
        scheme.get_by_text("Logout").click()

    def call(self, tag: str, operation: str, status: int, **body: str) -> Response:
        """Execute an operation, and wait until the page shows the answer."""
        block = self.page.locator(f"#operations-{tag}-{operation}")
        if not block.get_by_role("button", name="Execute").is_visible():
            block.locator(".opblock-summary-control").click()
        if body:
            block.locator("textarea").fill(json.dumps(body))
        with self.page.expect_response(lambda response: response.request.resource_type == "fetch") as answer:
            block.get_by_role("button", name="Execute").click()
        expect(self.answer(tag, operation).locator(".response-col_status")).to_contain_text(str(status))
        return answer.value

    def answer(self, tag: str, operation: str) -> Locator:
        return self.page.locator(f"#operations-{tag}-{operation} .live-responses-table .response")

    def open(self) -> None:
        """Open the dialog, if it is closed."""
        if not self.page.locator(".dialog-ux").is_visible():
            self.page.locator(".btn.authorize").first.click()


@pytest.fixture
def swagger(service: str, page: Page) -> Swagger:
    page.goto(f"{service}/docs")
    return Swagger(page)


@pytest.fixture
def url(service: str) -> str:
    """The service's URL for httpx2, which does not know its name."""
    return service.replace("tasks.example", "127.0.0.1")


@pytest.mark.parametrize("service", ["/api", pytest.param("", marks=pytest.mark.long)], indirect=True)
def test_swagger_ui_logs_in_and_calls(swagger: Swagger, url: str, errors: list[str]) -> None:
    """With a code of the second factor, with a personal token, and for one scope."""
    user = races.register(url)
    factor = protect(url, races.log_in(url, user)["access_token"])
    refusal = swagger.login.locator(".errors")

    swagger.authorize(swagger.login, **user | {"password": "wrong horse battery"})
    expect(refusal).to_contain_text("error: invalid_grant")
    without_code = swagger.log_in(**user)
    expect(refusal).to_contain_text("error: mfa_required")
    swagger.log_in(**user, client_secret=factor.code(utc_now()))
    swagger.close(swagger.login)
    token = swagger.call("auth", "create_personal_token", 201, name="script").json()["token"]
    assert (without_code.headers["authorization"], "scope" in str(without_code.post_data)) == ("Basic Og==", False)

    swagger.log_out(swagger.login)
    swagger.authorize(swagger.token, Value=token)
    swagger.close(swagger.token)
    answer = swagger.call("tasks", "list_own_tasks", 200)
    expect(swagger.answer("tasks", "list_own_tasks")).to_contain_text('"next_cursor": null')
    assert answer.request.headers["authorization"] == f"Bearer {token}"

    swagger.log_out(swagger.token)
    swagger.login.locator("label", has_text="tasks:write").click()
    login = swagger.log_in(**user, client_secret=factor.recovery_codes[0])
    swagger.close(swagger.login)
    swagger.call("tasks", "list_own_tasks", 403)
    expect(swagger.answer("tasks", "list_own_tasks")).to_contain_text("insufficient_scope")
    assert "scope=tasks%3Awrite" in str(login.post_data)
    assert [error for error in errors if not error.startswith(REFUSED)] == []


@pytest.mark.long
@pytest.mark.parametrize("service", ["/api"], indirect=True)
def test_swagger_ui_calls_what_guards_an_account(swagger: Swagger, url: str, errors: list[str]) -> None:
    user = races.register(url)
    factor = protect(url, races.log_in(url, user)["access_token"])

    swagger.open()
    swagger.login.get_by_label("Client credentials location:").select_option("Request body")
    login = swagger.log_in(**user, client_secret=factor.recovery_codes[0])
    swagger.close(swagger.login)
    assert "authorization" not in login.headers

    swagger.call("users", "remove_totp", 204)
    secret = swagger.call("users", "set_up_totp", 201).json()["secret"]
    swagger.call("users", "activate_totp", 200, code=Factor(secret, []).code(utc_now()))
    events = [event["event"] for event in swagger.call("users", "list_events", 200).json()["items"]]
    assert events[:2] == ["totp_enabled", "totp_disabled"]
    assert [error for error in errors if not error.startswith(REFUSED)] == []


@pytest.mark.parametrize("service", ["/api"], indirect=True)
def test_redoc_shows_the_operations_and_searches(service: str, page: Page, errors: list[str]) -> None:
    page.goto(f"{service}/redoc")
    page.get_by_placeholder("Search").fill("tasks")

    expect(page.get_by_role("heading", name="Create a task")).to_be_visible()
    expect(page.locator("[data-role='search:results'] li").first).to_be_visible()
    assert [error for error in errors if not error.startswith(LOGO)] == []
