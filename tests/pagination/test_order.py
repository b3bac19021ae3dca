"""Sort orders: a product's own list sorts by any column that a cursor can hold, and pages stay whole."""

from collections.abc import Iterator
from math import inf, nan
from typing import Annotated, Any, ClassVar, Final

import pytest
from fastapi import APIRouter, Query, Request, Response
from fastapi.testclient import TestClient
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Enum,
    Float,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    case,
    func,
    type_coerce,
)

from app.clock import EPOCH
from app.db.database import Db
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery
from app.tasks.models import Task
from app.tasks.schemas import TaskQuery
from app.tasks.service import PUBLIC_TASKS, list_public
from tests.conftest import MovableClock, Serve
from tests.support.accounts import create_task, faults, sign_up
from tests.support.cursors import forge
from tests.support.task_lists import in_one, walk

TITLES = ["zoo", "Ä ö", "42", "a \N{GRINNING FACE}", "!" + "\x01" * 199, "\N{GRINNING FACE}" * 200, '"\\', "42"]
RANK: Final = case({"todo": 0, "doing": 1, "done": 2}, value=Task.status)
RANKS: Final = {"todo": 0, "doing": 1, "done": 2}
BIG = type_coerce(Task.version, BigInteger)
KEYS: dict[str, dict[str, Any]] = {
    "time": {"key": Task.created_at},
    "time or NULL": {"key": Task.due_at},
    "text": {"key": Task.title},
    "boolean": {"key": Task.is_public},
    "integer": {"key": func.length(Task.title, type_=Integer), "key_of": lambda row: len(row.title)},
    "big integer": {"key": func.length(Task.title, type_=BigInteger), "key_of": lambda row: len(row.title)},
    "small integer": {"key": func.length(Task.title, type_=SmallInteger), "key_of": lambda row: len(row.title)},
    "rank": {"key": RANK, "key_of": lambda row: RANKS[row.status]},
    "UUID": {"key": Task.id},
    "none": {},
}
FORGED: dict[str, list[Any]] = {
    "time": [-(10**17), 10**18, 10**300, 1.5, nan, True, [], {}, "", "2026-11-30T12:00:00"],
    "time or NULL": [10**300, inf, -0.0, "1"],
    "text": ["\0", "\ud800", 1, True, [], {}],
    "boolean": [0, 1, "true", []],
    "integer": [2**31, -(2**31) - 1, 1.0, True, "1", [1]],
    "big integer": [2**63, -(2**63) - 1, 1.0, "1"],
    "small integer": [2**15, -(2**15) - 1],
    "rank": [10**300, 0.0, "todo"],
    "UUID": ["", "x", 1, "{01890000-0000-7000-8000-000000000000}", "01890000-0000-7000-8000-00000000000A"],
    "none": [0, "1"],
}
REFUSED = [["query", "cursor"]]


class SortedQuery(PageQuery):
    by: str = "none"
    descending: bool = False


ORDERS = {
    (name, descending): SortOrder(Task.id, descending=descending, **KEYS[name])
    for name in KEYS
    for descending in (False, True)
}
OF_NO_SHOWN_COLUMN = SortOrder(Task.id, Task.version)


def list_sorted(connection: Any, query: SortedQuery) -> Page:
    order = ORDERS.get((query.by, query.descending), OF_NO_SHOWN_COLUMN)
    return order.page(connection, PUBLIC_TASKS.tasks, query, "sorted", {})


@pytest.fixture
def client(serve: Serve, clock: MovableClock) -> Iterator[TestClient]:
    """A service with a list at /sorted, and with tasks; some are made at one moment."""
    router = APIRouter()

    @router.get("/sorted")
    async def read_sorted(db: Db, query: Annotated[SortedQuery, Query()], request: Request) -> Response:
        return (await db.read(list_sorted, query)).response(request, query)

    client = serve()
    app: Any = client.app
    before = len(app.router.routes)
    app.include_router(router)
    ada = sign_up(client)
    for number, title in enumerate(TITLES):
        clock.move(microseconds=number % 2)
        due_at = None if number % 3 else f"2026-12-0{number % 2 + 1}T12:00:00Z"
        status = ["todo", "doing", "done"][number % 3]
        create_task(client, ada, title, is_public=True, due_at=due_at, status=status)
    yield client
    del app.router.routes[before:]


def test_page_after_page_is_the_whole_list(client: TestClient, subtests: pytest.Subtests) -> None:
    for by, descending in ORDERS:
        with subtests.test(by, descending=descending):
            url = f"/sorted?by={by}&descending={descending}"
            whole = client.get(f"{url}&limit=100").json()
            titles = [task["title"] for task in whole["items"]]

            for limit in 1, 3:
                assert in_one(walk(client, f"{url}&limit={limit}")) == titles
            assert sorted(titles) == sorted(TITLES)
            ranks = [RANKS[task["status"]] for task in whole["items"]]
            assert by != "rank" or ranks == sorted(ranks, reverse=descending)


def test_a_forged_key_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    for by, keys in FORGED.items():
        cursor = client.get("/sorted", params={"by": by, "limit": 1}).json()["next_cursor"]
        ids = "", 1, None, [cursor], cursor.upper()
        for forged in *({"key": key} for key in keys), *({"id": id_} for id_ in ids):
            with subtests.test(by, **forged):
                response = client.get("/sorted", params={"by": by, "cursor": forge(cursor, **forged)})
                assert faults(response) == REFUSED


def test_the_first_and_the_last_time_are_positions(client: TestClient) -> None:
    cursor = client.get("/sorted", params={"by": "time", "limit": 1}).json()["next_cursor"]
    ends = [EPOCH.min.replace(tzinfo=EPOCH.tzinfo), EPOCH.max.replace(tzinfo=EPOCH.tzinfo)]
    keys = [(end - EPOCH) // (EPOCH.resolution) for end in ends]

    counts = [
        len(client.get("/sorted", params={"by": "time", "cursor": forge(cursor, key=key)}).json()["items"])
        for key in keys
    ]

    assert counts == [len(TITLES), 0]


TABLE = Table(
    "things",
    MetaData(),
    Column("long", String(10_000)),
    Column("endless", String()),
    Column("price", Float()),
    Column("kind", Enum("a", "b")),
    Column("data", JSON()),
    Column("flag", Boolean()),
)


@pytest.mark.parametrize("column", [Task.description, *TABLE.c[:-1], func.lower(Task.title)], ids=str)
def test_an_order_that_no_cursor_can_hold_is_refused_at_once(column: ColumnElement[Any]) -> None:
    for orders in {"id": Task.id, "key": column}, {"id": column}:
        with pytest.raises(TypeError, match=r"a list cannot be sorted by .*(lower|things|Task).*: a cursor holds"):
            SortOrder(**orders)


def test_an_expression_says_how_to_read_it_from_a_row() -> None:
    with pytest.raises(TypeError, match=r"a row has no value of CASE .*: say how to read it, by `key_of`"):
        SortOrder(Task.id, RANK)


def test_a_key_that_the_rows_lack_is_an_error_at_once(client: TestClient) -> None:
    with pytest.raises(TypeError, match=r"the list is sorted by Task\.version, and does not select it"):
        client.get("/sorted?by=missing&limit=100")


class ColourQuery(TaskQuery):
    """A product's list, which has got one more filter."""

    colour: str | None = None
    is_bright: bool = False
    unused: ClassVar[int] = 0


def test_cursors_stay_good_where_a_list_gets_a_filter(client: TestClient) -> None:
    router = APIRouter()

    @router.get("/coloured")
    async def read_coloured(db: Db, query: Annotated[ColourQuery, Query()], request: Request) -> Response:
        return (await db.read(list_public, query)).response(request, query)

    app: Any = client.app
    app.include_router(router)
    for parameters in {}, {"sort": "due_at", "status": "done"}, {"q": "42"}, {"sort": "-created_at"}:
        page = client.get("/tasks/public", params={"limit": 1, **parameters}).json()
        rest = client.get("/coloured", params={"cursor": page["next_cursor"], **parameters})
        again = client.get("/coloured", params={"cursor": page["next_cursor"], "is_bright": False, **parameters})
        other = client.get("/tasks/public", params={"cursor": page["next_cursor"], **parameters})
        assert rest.json() == again.json() == other.json()
        for added in {"colour": "red"}, {"colour": ""}, {"is_bright": True}:
            asked = {"cursor": page["next_cursor"], **parameters, **added}
            assert faults(client.get("/coloured", params=asked)) == REFUSED


def test_cursors_of_the_version_before_stay_good() -> None:
    before = '{"sort":"-created_at","status":null,"due_before":null,"due_after":null}'

    contexts = [query.context("public") for query in (TaskQuery(), TaskQuery(sort="-created_at"), TaskQuery(q=""))]

    assert contexts == [f"public{before}"] * 3
