"""A resource in the plainest style of FastAPI is safe, because its router and its schemas are the service's own."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Form
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field
from sqlalchemy import Column, Connection, MetaData, Table, insert, select

from app.auth.dependencies import AccountDb, CurrentUser
from app.config import Settings
from app.db.database import Db
from app.db.types import Text
from app.http.router import Router, add_routes
from app.http.schema import Schema
from app.main import create_app
from app.testing import assert_bearer_error
from tests.conftest import CHEAP, MovableClock, on_one_database
from tests.support.accounts import Login, sign_up
from tests.support.oauth_errors import assert_oauth_error
from tests.support.transport import quicken

pytestmark = on_one_database

JSON = {"Content-Type": "application/json"}
metadata = MetaData()
notes = Table("notes", metadata, Column("owner_id", Text), Column("text", Text))


class Label(Schema):
    name: Annotated[str, Field(max_length=10)]


class NoteCreate(Schema):
    text: str
    tags: list[str] = Field([])
    label: Label | None = None


class NoteRead(BaseModel):
    text: str


router = Router(prefix="/notes", tags=["notes"])


@router.get("/")
async def list_notes(user: CurrentUser, db: Db) -> list[NoteRead]:
    """List your notes."""

    def run(connection: Connection) -> list[NoteRead]:
        rows = connection.execute(select(notes.c.text).where(notes.c.owner_id == user.user_id))
        return [NoteRead(text=text) for (text,) in rows]

    return await db.read(run)


@router.post("/", status_code=201)
async def create_note(note: NoteCreate, db: AccountDb) -> NoteRead:
    """Create a note."""
    await db.write(
        lambda connection, user: connection.execute(insert(notes).values(owner_id=user.user_id, text=note.text))
    )
    return NoteRead(text=note.text)


@router.get("/{text}")
async def find_note(text: str, user: CurrentUser, db: Db) -> NoteRead:
    query = select(notes.c.text).where(notes.c.owner_id == user.user_id, notes.c.text == text)
    return NoteRead(text=await db.read(lambda connection: connection.execute(query).scalar_one()))


@router.post("/search")
async def search_notes(text: Annotated[str, Form()]) -> list[str]:
    return [text]


@pytest.fixture(scope="module")
def made_app() -> FastAPI:
    """Made once: its first request takes 40 ms."""
    app = create_app(Settings(database_url="sqlite:///./unused.db"), password_cost=CHEAP)
    app.include_router(router)
    return app


@pytest.fixture
def app(made_app: FastAPI, settings: Settings, clock: MovableClock) -> FastAPI:
    made_app.state.settings, made_app.state.clock = settings, clock
    return made_app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        assert client.portal
        quicken(client)
        client.portal.call(app.state.services.database.write, metadata.create_all)
        yield client
        client.portal.call(app.state.services.database.write, metadata.drop_all)


@pytest.fixture
def ada(client: TestClient) -> Login:
    return sign_up(client)


def test_a_path_answers_with_a_slash_and_without(client: TestClient, ada: Login) -> None:
    for path, text in ("/notes", "a"), ("/notes/", "b"):
        created = client.post(path, json={"text": text}, headers=ada.headers)
        assert (created.status_code, created.json()) == (201, {"text": text})
    for path in "/notes", "/notes/":
        assert client.get(path, headers=ada.headers).json() == [{"text": "a"}, {"text": "b"}]
        assert client.put(path).status_code == 405
    assert client.get("/notes/a", headers=ada.headers).json() == {"text": "a"}
    for path in "/notes//", "/notes/a/", "/other/notes":
        assert client.get(path, headers=ada.headers).status_code == 404


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (rb'{"text": "a\u0000b"}', ["body", "text"]),
        (rb'{"text": "a\ud800"}', ["body", "text"]),
        (rb'{"text": "a", "tags": ["b", "\u0000"]}', ["body", "tags"]),
        (rb'{"text": "a", "label": {"name": "\u0000"}}', ["body", "label"]),
        (rb'{"text": "a", "label": {"\u0000": "b"}}', ["body", "label"]),
        (rb'{"text": "a", "text": "b"}', ["body"]),
        (rb'{"text": "a", "txt": "b"}', ["body"]),
        (rb'{"text": "a", "label": {"name": "b", "x": 1}}', ["body", "label"]),
        (rb'{"text": 1}', ["body", "text"]),
        (rb"{'text': 'a'}", ["body"]),
    ],
)
def test_a_bad_body_is_refused(client: TestClient, ada: Login, body: bytes, place: list[str]) -> None:
    response = client.post("/notes", content=body, headers=ada.headers | JSON)

    assert response.status_code == 422
    assert [fault["loc"] for fault in response.json()["detail"]] == [place]
    assert client.get("/notes", headers=ada.headers).json() == []


def test_a_bad_path_or_query_is_refused(client: TestClient, ada: Login) -> None:
    for url, place in ("/notes/a%00b", ["path", "text"]), ("/notes?x=1", ["query"]), ("/notes/a?x=1", ["query"]):
        response = client.get(url, headers=ada.headers)
        assert response.status_code == 422
        assert [fault["loc"] for fault in response.json()["detail"]] == [place]


def test_a_form_is_read_as_fastapi_reads_it(client: TestClient) -> None:
    assert client.post("/notes/search", data={"text": "a"}).json() == ["a"]

    refused = client.post("/notes/search", data={"txt": "a"})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "text"])


def test_the_caller_is_checked_before_the_request(client: TestClient, ada: Login) -> None:
    few = client.post(
        "/auth/token", data={"username": "ada", "password": "correct horse battery", "scope": "tasks:read"}
    )
    reader = {"Authorization": f"Bearer {few.json()['access_token']}"}
    for body in {"text": 1}, {"text": "\0"}, {"txt": "a"}:
        assert_bearer_error(client.post("/notes", json=body), None)
        assert_bearer_error(client.post("/notes", json=body, headers=reader), "insufficient_scope")
    client.post("/auth/revoke", data={"token": ada.refresh_token})
    for body in {"text": 1}, {"text": "\0"}, {"txt": "a"}:
        assert_bearer_error(client.post("/notes", json=body, headers=ada.headers), "invalid_token")
    assert_bearer_error(client.get("/notes/%00?x=1", headers=ada.headers), "invalid_token")


def test_the_document_has_each_path_once_with_its_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert [path for path in document["paths"] if "notes" in path] == ["/notes", "/notes/{text}", "/notes/search"]
    assert set(document["paths"]["/notes"]["post"]["responses"]) >= {"201", "401", "403", "415", "422"}
    properties = document["components"]["schemas"]["NoteCreate"]["properties"]
    assert properties["text"]["pattern"] == properties["tags"]["items"]["pattern"] == r"^[^\x00]*$"


def test_a_router_of_fastapi_works_beside(settings: Settings) -> None:
    app = create_app(settings, password_cost=CHEAP)
    plain = APIRouter(prefix="/plain")

    @plain.post("/")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @plain.get("/")
    async def list_plain(user: CurrentUser) -> list[str]:
        return [user.username]

    nested = Router(prefix="/{part}")
    nested.get("/deep")(lambda part: [part])
    plain.include_router(nested)
    app.include_router(plain)
    with TestClient(app) as client:
        login = sign_up(client)
        assert client.post("/plain/?x=1", content=b'{"a": 1, "a": 2}', headers=JSON).json() == {"a": 2}
        assert client.get("/plain/", headers=login.headers).json() == ["ada"]
        assert_bearer_error(client.get("/plain/"), None)
        assert client.get("/plain").status_code == 404
        assert client.get("/plain/x/deep").json() == client.get("/plain/x/deep/").json() == ["x"]


def test_a_form_endpoint_with_a_slash_keeps_the_errors_of_oauth(client: TestClient) -> None:
    assert_oauth_error(client.post("/auth/token/", data={"username": "ada"}), "invalid_request")


def test_routes_are_declared_on_the_app_as_an_include_would(settings: Settings) -> None:
    included, declared = FastAPI(), create_app(settings, password_cost=CHEAP)
    included.include_router(router)
    add_routes(declared, router)

    ours, theirs = declared.openapi(), included.openapi()
    assert ours["paths"]["/notes"]["post"]["requestBody"] == theirs["paths"]["/notes"]["post"]["requestBody"]
    assert ours["paths"]["/notes"]["post"]["tags"] == theirs["paths"]["/notes"]["post"]["tags"] == ["notes"]
    assert ours["components"]["schemas"]["NoteCreate"] == theirs["components"]["schemas"]["NoteCreate"]


def test_a_mount_cannot_be_declared_on_the_app() -> None:
    mounting = APIRouter()
    mounting.mount("/mounted", FastAPI())

    with pytest.raises(TypeError, match="include_router"):
        add_routes(FastAPI(), mounting)


def test_the_model_of_a_body_must_be_a_schema() -> None:
    class Plain(BaseModel):
        text: str

    router = Router(prefix="/plain")

    with pytest.raises(TypeError, match="Plain: derive the models of request bodies from Schema"):

        @router.post("")
        async def create_plain(body: Plain) -> None: ...
