"""Bad input against the real server, byte by byte: each row of the table of input limits, and requests at random.

No input is answered with 5xx, hangs or resets the connection. A refused request writes nothing. No error repeats the
input, and the service answers the next request.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import product
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, quote_from_bytes, quote_plus
from uuid import uuid4

import pytest
from sqlalchemy import URL, make_url

from tests.conftest import SECRET, execute, migrate, new_database
from tests.support.accounts import PASSWORD
from tests.support.bad_requests import (
    ADA,
    BEARER,
    CHUNKED,
    CREDENTIALS,
    FORM,
    HEADS,
    JSON,
    LIVE,
    LOGIN,
    MIB,
    MULTIPART,
    READY,
    REFUSED,
    VALID,
    WHOLE,
    chunks,
    form,
    get,
    head,
    multipart,
    part,
    request,
    sized,
    task,
    user,
)
from tests.support.hostile import CANARY
from tests.support.processes import free_port, serving
from tests.support.raw import Answer, Connection

Parser = Literal["httptools", "h11"]

COMMANDS: Mapping[Parser, list[str]] = {"httptools": ["app", "serve"], "h11": ["uvicorn", "app.main:app", "--http=h11"]}
ROWS = """
    SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), (SELECT sum(generation) FROM sessions),
        (SELECT count(*) FROM sessions WHERE ended_at IS NULL), (SELECT count(*) FROM tasks),
        (SELECT sum(version) FROM tasks)
"""
MALFORMED = {  # the answers of the protocol, before any application
    b"Invalid HTTP request received.",  # uvicorn's, with h11
    b'{"detail": "Invalid HTTP request received.", "code": "invalid_http_request"}',
}


def assert_no_traceback(log: str) -> None:
    """None but uvicorn's own with h11, where a request turns out malformed while it is being answered."""
    assert log.count("Traceback") == log.count("\nh11._util.LocalProtocolError: "), log


@dataclass
class Service:
    """One that runs, with a user who is signed in and has a task."""

    parser: Parser
    database: URL
    port: int
    log: BufferedReader
    token: bytes = b""
    task: bytes = b""

    def sign_up(self) -> None:
        assert self.exchange(user(json.dumps({"username": "ada", "password": PASSWORD}).encode())).status == 201
        self.token = json.loads(self.exchange(LOGIN).body)["access_token"].encode()
        self.task = json.loads(self.exchange(task(b'{"title": "Water the plants"}')).body)["id"].encode()

    def fill(self, data: bytes) -> bytes:
        """Put in the token and the task's id where they are wanted."""
        return data.replace(b"<token>", self.token).replace(b"<task>", self.task).replace(b"<TASK>", self.task.upper())

    def exchange(self, data: bytes) -> Answer:
        """Send it and read the answer; the next request is served whatever came of this one."""
        with Connection(self.port) as connection:
            connection.send(self.fill(data))
            answer = connection.answer()
            if not answer.closes:
                connection.send(LIVE)
                assert connection.answer().status == 200
            else:
                assert connection.rest() == b""
                self.check()
        self.check_log()
        return answer

    def shout(self, data: bytes) -> Answer:
        """Send what the service does not read to its end: it answers all the same, and resets the connection."""
        with Connection(self.port) as connection:
            connection.overfill(self.fill(data))
            answer = connection.answer()
        self.check()
        return answer

    def check(self) -> None:
        """The service is ready on a new connection, and has logged no traceback."""
        with Connection(self.port) as connection:
            connection.send(READY)
            assert connection.answer().status == 200
        self.check_log()

    def check_log(self) -> None:
        """There is no traceback in what has been logged since the last time."""
        assert_no_traceback(self.log.read().decode())

    def rows(self) -> list[tuple[Any, ...]]:
        """How many there are of everything, and how often it has changed."""
        return execute(self.database, ROWS)


@contextmanager
def running(parser: Parser, database: URL, folder: Path) -> Iterator[Service]:
    port = free_port()
    settings: dict[str, Any] = {
        "database_url": database.render_as_string(hide_password=False),
        "secret_key": SECRET,
        "allowed_hosts": "tasks.example",
        "login_failures": 1_000_000,
        "registration_limit": 0,
    }
    log = folder / "log"
    log.touch()
    with log.open("rb") as lines, serving(*COMMANDS[parser], port=port, log=log, stdout=log, **settings):
        yield Service(parser, database, port, lines)
    assert_no_traceback(log.read_text())


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    kind, parser = request.param
    folder = tmp_path_factory.mktemp("bad-input")

    @contextmanager
    def database() -> Iterator[URL]:
        if kind == "sqlite":
            yield make_url(f"sqlite:///{folder}/tasks.db")
        else:
            with new_database(request.getfixturevalue("postgres_server")) as url:
                yield url

    with database() as url:
        asyncio.run(migrate(url))
        with running(parser, url, folder) as service:
            service.sign_up()
            yield service


def on_servers(*short: tuple[str, Parser]) -> pytest.MarkDecorator:
    """Run on these servers, and at length on every one."""
    servers = [
        pytest.param(server, marks=[] if server in short else pytest.mark.long, id="-".join(server))
        for server in product(("sqlite", "postgresql"), COMMANDS)
    ]
    return pytest.mark.parametrize("service", servers, indirect=True)


on_each_server = on_servers(("sqlite", "httptools"))
"""A request that is refused reaches no database, so one is enough."""
on_each_database = on_servers(("sqlite", "httptools"), ("postgresql", "httptools"))


def assert_error(answer: Answer, status: int, data: bytes) -> None:
    """It is an error of that status, in the shape that its endpoint has, and repeats nothing."""
    assert answer.status == status, answer
    assert CANARY not in f"{answer.headers}{answer.body!r}".lower().encode()
    if answer.body in MALFORMED:
        assert answer.closes
        return
    body = json.loads(answer.body)
    is_form = data.split(b" ", 2)[1].startswith(b"/auth/") and b"/sessions" not in data
    assert body.keys() == ({"detail", "code", "error", "error_description"} if is_form else {"detail", "code"})


@on_each_server
@pytest.mark.parametrize("row", REFUSED)
def test_a_bad_request_is_refused_and_leaves_nothing(service: Service, row: str, subtests: pytest.Subtests) -> None:
    before = service.rows()

    for name, (data, status) in REFUSED[row].items():
        with subtests.test(name):
            answer = service.exchange(data)
            assert_error(answer, status, data)
            assert answer.body not in MALFORMED

    assert service.rows() == before


@on_each_server
@pytest.mark.parametrize("row", HEADS)
def test_a_strange_head_is_answered_and_leaves_nothing(service: Service, row: str, subtests: pytest.Subtests) -> None:
    before = service.rows()

    for name, (data, statuses) in HEADS[row].items():
        with subtests.test(name):
            answer, status = service.exchange(data), statuses[service.parser]
            if status < 400:
                assert answer.status == status, answer
            else:
                assert_error(answer, status, data)

    assert service.rows() == before


LARGE = {
    "10 MB of [": (b"/tasks/", JSON, b"[", b"["),
    "a title of 10 MB": (b"/tasks/", JSON, b'{"title": "', b'"}'),
    "a field of 10 MB": (b"/auth/token", FORM, b"&".join(ADA) + b"&canary7q=", b""),
    "a part of 10 MB": (b"/auth/token", MULTIPART, CREDENTIALS + part(b"canary7q", b"")[:-2], b"\r\n--x--\r\n"),
}


@on_each_server
@pytest.mark.parametrize("is_chunked", [False, True], ids=["by its length", "chunked"])
@pytest.mark.parametrize("megabytes", [10, pytest.param(60, marks=pytest.mark.long)])
def test_a_large_body_is_413_and_the_next_request_is_served(
    service: Service, megabytes: int, is_chunked: bool, subtests: pytest.Subtests
) -> None:
    before = service.rows()

    for name, (target, content_type, start, end) in LARGE.items():
        body = start + b"[" * (megabytes * MIB) + end
        with subtests.test(name):
            data = request(b"POST", target, BEARER, content_type, body=body)
            if is_chunked:
                data = head(b"POST", target, BEARER, content_type, CHUNKED) + chunks(body)
            assert_error(service.exchange(data), 413, data)

    assert service.rows() == before


@on_each_server
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"], ids=bytes.decode)
def test_a_large_body_is_413_before_the_connection_closes(service: Service, version: bytes) -> None:
    data = request(b"POST", b"/users", JSON, b"Connection: close", body=b"[" * 10 * MIB, version=version)

    answer = service.shout(data)

    assert_error(answer, 413, data)
    assert answer.closes


@on_each_server
def test_a_head_that_is_far_too_long_is_refused(service: Service, subtests: pytest.Subtests) -> None:
    """Before it is there: 64 KiB are read at most."""
    heads = {
        "a header of 200 kB": get(b"/tasks/", *sized(1, 200_000)),
        "a header of 2 MB": get(b"/tasks/", *sized(1, 2 * MIB)),
        "5,000 headers of 200 B": get(b"/tasks/", *sized(5_000, 200)),
        "a URL of 1 MB": get(b"/tasks/?cursor=" + b"a" * MIB),
    }

    for name, data in heads.items():
        with subtests.test(name):
            assert_error(service.shout(data), 400, data)


@on_each_server
def test_pipelined_requests_are_each_answered(service: Service) -> None:
    large = b"[" * (MIB // 4)
    data = {
        user(b"canary7q"): 422,
        form(b"canary7q=%FF"): 400,
        user(large): 413,
        head(b"POST", b"/users", JSON, CHUNKED) + chunks(large): 413,
        get(b"/canary7q"): 404,
        head(b"PUT", b"/tasks/"): 405,
        get(b"/tasks/", *sized(1, 20_000)): 431,
        get(b"/tasks/?" + b"a" * 9_000): 414,
        request(b"GET", b"/tasks/mine", body=b"canary7q"): 401,
        get(b"/tasks/mine"): 200,
    }

    with Connection(service.port) as connection:
        connection.send(service.fill(b"".join(data)))
        answers = [connection.answer() for _ in data]

    assert [answer.status for answer in answers] == list(data.values())
    assert not any(answer.closes for answer in answers)
    service.check()


@on_each_server
def test_a_client_that_waits_for_a_go_ahead_gets_it(service: Service) -> None:
    with Connection(service.port) as connection:
        connection.send(head(b"POST", b"/auth/token", FORM, b"Expect: 100-continue", b"Content-Length: 8"))
        go_ahead = connection.answer()
        connection.send(b"canary7q")
        answer = connection.answer()

    assert (go_ahead.status, go_ahead.body) == (100, b"")
    assert answer.status == 400


@on_each_server
def test_too_large_a_body_is_refused_before_it_is_sent(service: Service) -> None:
    with Connection(service.port) as connection:
        connection.send(head(b"POST", b"/users", JSON, b"Expect: 100-continue", b"Content-Length: 10000000"))
        answer = connection.answer()

    assert answer.status == 413
    service.check()


@on_each_server
def test_garbage_behind_an_answered_request_is_refused(service: Service) -> None:
    with Connection(service.port) as connection:
        connection.send(LIVE)
        first = connection.answer()
        connection.send(b"canary7q canary7q\r\n\r\n")
        second = connection.answer()
        rest = connection.rest()

    assert first.status == 200
    assert_error(second, 400, LIVE)
    assert rest == b""
    service.check()


@on_each_server
def test_a_request_with_garbage_behind_it_is_answered(service: Service) -> None:
    with Connection(service.port) as connection:
        connection.send(LIVE + b"canary7q canary7q\r\n\r\n")
        answers = [connection.answer() for _ in range(2)]
        rest = connection.rest()

    assert [answer.status for answer in answers] == [200, 400]
    assert_error(answers[-1], 400, LIVE)
    assert rest == b""
    service.check()


@on_each_server
def test_a_client_that_closes_its_sending_side_is_answered(service: Service) -> None:
    if service.parser == "h11":
        pytest.skip("uvicorn with h11 takes it for gone")
    with Connection(service.port) as connection:
        connection.send(service.fill(LIVE + task(b'{"title": "Water the plants"}') + get(b"/canary7q")))
        connection.end()
        answers = [connection.answer() for _ in range(3)]
        rest = connection.rest()

    assert [answer.status for answer in answers] == [200, 201, 404]
    assert rest == b""
    service.check()


@on_each_server
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    service: Service, is_reset: bool, subtests: pytest.Subtests
) -> None:
    before = service.rows()

    for name, whole in WHOLE.items():
        with subtests.test(name):
            data = service.fill(whole)
            body = data.index(b"\r\n\r\n")
            for cut in [*range(1, body, 40), *range(body, len(data), 3), len(data) - 1]:
                with Connection(service.port) as connection:
                    connection.send(data[:cut])
                    if is_reset:
                        connection.drop()
            service.check()

    assert service.rows() == before


TEXTS = [
    "\N{GRINNING FACE}" * 200,
    "  spaces around  ",
    "line\r\nline\ttab\x01\x1b\x7f\x85",
    "e\u0301 is not \u00e9",
    "\N{ZERO WIDTH SPACE}\N{RIGHT-TO-LEFT OVERRIDE}a\N{LINE SEPARATOR}",
    "\ufeff, \ufffd, \ufffe, \uffff, \U0010ffff",
    "[" * 200,
    r"%00 %FF + & \u0000 \ud800 NaN 1e999",
    "'; DROP TABLE tasks; --",
]


@on_each_database
@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "raw"])
def test_accepted_text_is_read_back_exactly(service: Service, is_ascii: bool) -> None:
    for text in TEXTS:
        fields = {"title": text, "description": text}
        created = service.exchange(task(json.dumps(fields, ensure_ascii=is_ascii).encode()))
        read = service.exchange(get(created.headers["location"].encode()))

        task_id = json.loads(created.body)["id"]
        assert (created.status, read.status) == (201, 200)
        assert created.body == read.body
        assert json.loads(read.body).items() >= fields.items()
        stored = f"SELECT title, description FROM tasks WHERE id = '{task_id}'"
        assert execute(service.database, stored) == [(text, text)]


TIMES = {
    "2026-11-23T09:00:00Z": "2026-11-23T09:00:00",
    "2026-11-23T00:30:00+14:00": "2026-11-22T10:30:00",
    "2026-11-23T23:30:00-12:00": "2026-11-24T11:30:00",
    "2026-11-23T09:00:00.000001+05:45": "2026-11-23T03:15:00.000001",
    "1970-01-01T14:00:00+14:00": "1970-01-01T00:00:00",
    "9998-12-31T11:59:59.999999-12:00": "9998-12-31T23:59:59.999999",
}


@on_each_server
def test_an_aware_time_is_kept_as_the_same_instant(service: Service) -> None:
    sql = {
        "sqlite": "SELECT due_at FROM tasks WHERE id = '{}'",
        "postgresql": """SELECT to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            FROM tasks WHERE id = '{}'""",
    }[service.database.drivername]

    for time, utc in TIMES.items():
        created = json.loads(service.exchange(task(json.dumps({"title": "Due", "due_at": time}).encode())).body)

        assert created["due_at"] == utc + "Z"
        assert execute(service.database, sql.format(created["id"])) == [(utc.ljust(20, ".").ljust(26, "0") + "Z",)]


@on_each_database
def test_a_password_is_the_same_in_every_form_encoding(service: Service) -> None:
    """No other password is."""
    name, password = f"ada-{uuid4().hex}", "p+q %&=;# \u00e9\N{EURO SIGN}\N{MUSICAL SYMBOL G CLEF}"
    accepted = {
        "plus": quote_plus(password),
        "escaped": quote(password, safe=""),
        "every byte escaped": "".join(f"%{byte:02x}" for byte in password.encode()),
        "raw": password.translate({ord(char): quote_plus(char) for char in "+%&=;# "}),
    }
    refused = {
        "spaces": quote_plus(password.replace("+", " ")),
        "replacement characters": quote_plus(password.replace("\u00e9", "\ufffd")),
        "escaped twice": quote_plus(quote_plus(password)),
        "a newline more": quote_plus(password + "\n"),
    }
    assert service.exchange(user(json.dumps({"username": name, "password": password}).encode())).status == 201

    def log_in(spelling: str) -> int:
        return service.exchange(form(f"username={name}&password={spelling}".encode())).status

    parts = part(b"username", name.encode()), part(b"password", password.encode())
    assert {spelling: log_in(value) for spelling, value in accepted.items()} == dict.fromkeys(accepted, 200)
    assert {spelling: log_in(value) for spelling, value in refused.items()} == dict.fromkeys(refused, 401)
    assert service.exchange(multipart(*parts)).status == 200


PIECES = [bytes([byte]) for byte in b'\0\n\xff" :;,=&/{\\']
PIECES += [b"\r\n", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"%00", b"%FF", b"\\u0000", b"\\ud800", b"-1", b"1e999", b"NaN"]
PIECES += [b"[" * 100, b"9" * 100, b"A" * 10_000]
TARGET = "/?&=%;:,+-"  # an escape would change the meaning of these
LENGTH = re.compile(rb"(Content-Length: )\d+")
FILL = b"\r\n\r\n" + b" " * 140_000  # ends a head that has no end, and is more than a body may have


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double or insert something, up to three times, mostly where the parser lets it pass."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        target, head_end, end = data.find(b" ") + 1, data.find(b"\r\n\r\n"), len(data)
        spans = [(target, data.find(b" ", target)), (head_end + 4, end), (head_end + 4, end), (0, head_end), (0, end)]
        start, stop = chance.choice([span for span in spans if 0 <= span[0] < span[1]] or [(0, end)])
        at, size = chance.randint(start, stop), chance.choice([1, 1, 1, 2, 8, 50])
        piece = data[at : at + size]
        match chance.randrange(4):
            case 0:
                piece = bytes(byte ^ 1 << chance.randrange(8) for byte in piece)
            case 1:
                piece = b""
            case 2:
                piece *= 2
            case _:
                piece = chance.choice(PIECES) + piece
        if (start, stop) == spans[0]:
            piece = quote_from_bytes(piece, safe=TARGET).encode()
        data = data[:at] + piece + data[at + size :]
    lines, _, body = data.partition(b"\r\n\r\n")
    return data if chance.randrange(4) == 0 else LENGTH.sub(b"\\g<1>%d" % len(body), lines) + b"\r\n\r\n" + body


@on_each_server
@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=pytest.mark.long)])
def test_randomly_mutated_requests_are_answered(service: Service, count: int) -> None:
    chance = random.Random(count)

    for _ in range(count):
        data = mutate(service.fill(chance.choice(VALID)), chance)
        with Connection(service.port) as connection:
            connection.send(data)
            if not connection.hears_within(0.1):
                connection.overfill(FILL)
            answer = connection.answer()
        assert answer.status < 500, data
        service.check_log()

    service.check()
