"""Canaries: no password, token or key is found in what the service logs, answers or stores, however it is asked.

ASVS 16.2.5. A real process is asked for everything, well and badly, with secrets in all the wrong places, and while its
database breaks. Then all of its output, every answer but those that tokens are for, and every table are searched.
"""

import asyncio
import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, quote_plus, urlencode

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from fastapi.testclient import TestClient
from pyotp import TOTP
from sqlalchemy import URL, make_url

from app.observe.events import Event
from tests.conftest import execute, migrate, new_database
from tests.support.accounts import bearer, sign_up
from tests.support.key_pairs import key, private, written
from tests.support.mail_server import PASSWORD as MAIL_PASSWORD
from tests.support.mail_server import USER, MailServer, authenticate, certificate, mail_server, server_context
from tests.support.processes import serving, wait_for
from tests.support.raw import Connection

Secrets = Mapping[str, bytes]

PASSWORD = 'canary 7q "horse" \\ battery/+&é'
NEW_PASSWORD = 'canary 8r "staple" \\ correct/+&é'
WRONG = 'canary 9s "wrong" \\ horse/+&é'
CLIENT_SECRET = "canary client <secret>/+é"
FORGED = f"eyJhbGciOiJub25lIn0.{'canary' * 30}.canary-forged-signature"
KEY = "canary-key/+0123456789-ABCDEFGHIJKLMN&é"
PREVIOUS_KEY = "canary-previous-key/+9876543210-abcdefghijklmn&é"
DATABASE_PASSWORD = "canary:database@password/+é"
GIVEN = {
    "password": PASSWORD,
    "new password": NEW_PASSWORD,
    "wrong password": WRONG,
    "client secret": CLIENT_SECRET,
    "forged token": FORGED,
    "previous key": PREVIOUS_KEY,
    "mail password": MAIL_PASSWORD,
}
ADDRESS = "ada@example.com"
EVENTS = set(get_args(Event)) - {"export_broken_off"}  # tests/users/test_export.py breaks one off, between two pages
STATUSES = {200, 201, 202, 204, 400, 401, 403, 404, 405, 413, 414, 415, 422, 429, 431, 500, 503}
FAILING = "CREATE TRIGGER failing_{0}_{1} BEFORE {1} ON {0} BEGIN SELECT RAISE(ABORT, 'failing'); END"


def forms(secret: bytes) -> set[bytes]:
    """The secret, and its forms in a URL, in hexadecimal, in base64 within other bytes, in JSON, a repr or HTML."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    found |= {spelled.encode() for spelled in (quote(secret), quote(secret, safe=""), quote_plus(secret))}
    for before in range(3):
        begins, ends = -(-8 * before // 6), 8 * (before + len(secret)) // 6
        encoded = b64encode(bytes(before) + secret)[begins:ends]
        found |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    with suppress(UnicodeDecodeError):
        text = secret.decode()
        quoted = [json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), ascii(text)]
        spelled = [*(each[1:-1] for each in quoted), html.escape(text), secret.decode("latin-1")]
        found |= {each.encode() for each in spelled}
    return found


def found(where: bytes, secrets: Secrets) -> set[str]:
    return {name for name, secret in secrets.items() if any(form in where for form in forms(secret))}


@dataclass
class Visitor:
    """Asks the service, and keeps what went either way."""

    url: str
    mails: MailServer
    sent: bytes = b""
    answers: bytes = b""
    token_answers: bytes = b""
    statuses: set[int] = field(default_factory=set)
    tokens: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        anew = httpx2.Limits(max_keepalive_connections=0)  # uvicorn closes the connection behind an unexpected error
        self.client = httpx2.Client(base_url=self.url, event_hooks={"response": [self._keep]}, limits=anew, timeout=30)

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        return self.client.request(method, path, **request)

    def token(self, **form: str) -> httpx2.Response:
        return self.ask("POST", "/auth/token", data=form)

    def log_in(self, password: str = PASSWORD, **form: str) -> dict[str, str]:
        tokens: dict[str, str] = self.token(username="ada", password=password, **form).raise_for_status().json()
        return tokens

    def shout(self, data: bytes) -> None:
        """Send what no client would, and read what comes back."""
        self.sent += data
        with Connection(httpx2.URL(self.url).port or 0) as connection:
            connection.send(data)
            self.answers += repr(connection.answer()).encode()

    def leave(self, data: bytes) -> None:
        """Send a part of a request, and reset the connection."""
        self.sent += data
        with Connection(httpx2.URL(self.url).port or 0) as connection:
            connection.send(data)
            connection.drop()

    def mailed(self, kind: str) -> str:
        """Wait for a mail with a token; the token."""
        [letter] = self.mails.take()
        [token] = re.findall(r"^eyJ\S+", letter.message.get_content(), re.MULTILINE)
        self.token_answers += token.encode()
        _, claims, signature = token.split(".")
        self.tokens |= {f"{kind}: claims": claims.encode(), f"{kind}: signature": signature.encode()}
        return str(token)

    def _keep(self, response: httpx2.Response) -> None:
        request, content = response.request, response.read()
        self.sent += b"\n".join([str(request.url).encode(), *map(b": ".join, request.headers.raw), request.read()])
        self.answers += b"\n".join([str(response.status_code).encode(), *map(b": ".join, response.headers.raw)])
        self.statuses.add(response.status_code)
        if request.url.path.endswith("/reset-token"):
            self.token_answers += content
            _, claims, signature = response.json()["reset_token"].split(".")
            self.tokens |= {"reset token: claims": claims.encode(), "reset token: signature": signature.encode()}
        elif request.url.path == "/users/me/totp" and response.is_success and content:
            self.token_answers += content
            texts = response.json().get("recovery_codes") or [response.json()["secret"]]
            self.tokens |= {f"second factor {len(texts)}: {n}": text.encode() for n, text in enumerate(texts)}
        elif request.url.path == "/auth/tokens" and response.status_code == 201:
            self.token_answers += content
            self.tokens["personal token"] = response.json()["token"].encode()
        elif request.url.path in {"/auth/token", "/users/me/password"} and response.status_code == 200:
            self.token_answers += content
            for kind in "access", "refresh":
                _, claims, signature = response.json()[f"{kind}_token"].split(".")
                self.tokens[f"{kind} token {len(self.tokens)}: claims"] = claims.encode()
                self.tokens[f"{kind} token {len(self.tokens)}: signature"] = signature.encode()
        else:
            self.answers += content


@dataclass
class Stage:
    """A database, what its service is told, and how the database breaks and mends."""

    url: URL
    settings: dict[str, str]
    secrets: dict[str, bytes]
    failing: list[str]
    whole: list[str]
    away: Callable[[], object]
    back: Callable[[], object]

    def run(self, statements: list[str]) -> None:
        for statement in statements:
            execute(self.url, statement)

    def dump(self) -> bytes:
        if self.url.drivername == "sqlite":
            files = [path.read_bytes() for path in Path.cwd().glob("tasks.db*") if path.suffix != ".secret"]
            readable = "type = 'table' AND name <> 'task_words'"  # it keeps no text
            tables = execute(self.url, f"SELECT name FROM sqlite_master WHERE {readable}")
            rows = [execute(self.url, f'SELECT * FROM "{name}"') for (name,) in tables]
            return b"\n".join([*files, repr(rows).encode()])
        tables = execute(self.url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return repr([execute(self.url, f'SELECT t::text FROM "{name}" AS t') for (name,) in tables]).encode()


@pytest.fixture
def sqlite_stage(sqlite_url: str) -> Stage:
    """With the secret that the service keeps itself."""
    url = make_url(sqlite_url)
    changes = [(table, verb) for table in ("sessions", "tasks") for verb in ("INSERT", "UPDATE")]
    return Stage(
        url,
        {"database_url": sqlite_url},
        {},
        failing=[FAILING.format(table, verb) for table, verb in changes],
        whole=[f"DROP TRIGGER failing_{table}_{verb}" for table, verb in changes],
        away=lambda: execute(url, "ALTER TABLE users RENAME TO people"),
        back=lambda: execute(url, "ALTER TABLE people RENAME TO users"),
    )


@pytest.fixture
def postgresql_stage(postgres_server: URL) -> Iterator[Stage]:
    """With a secret that is given, a password of the database's, and a key pair."""
    pair = key("ES256")
    assert isinstance(pair, EllipticCurvePrivateKey)
    with new_database(postgres_server) as url:
        asyncio.run(migrate(url))

        def away() -> None:
            execute(postgres_server, f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
            where = f"datname = '{url.database}'"
            execute(postgres_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}")

        password = url.password or DATABASE_PASSWORD  # the throwaway server takes any
        yield Stage(
            url,
            {
                "database_url": url.set(password=password).render_as_string(hide_password=False),
                "secret_key": KEY,
                "jwt_private_key_file": str(written(private(pair))),
            },
            {
                "key": KEY.encode(),
                "database password": password.encode(),
                "private key": pair.private_numbers().private_value.to_bytes(32),
            },
            failing=[
                f"ALTER TABLE {name} ADD CONSTRAINT failing CHECK (false) NOT VALID" for name in ("sessions", "tasks")
            ],
            whole=[f"ALTER TABLE {name} DROP CONSTRAINT failing" for name in ("sessions", "tasks")],
            away=away,
            back=lambda: execute(postgres_server, f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true'),
        )


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.long), "postgresql"])
def stage(request: pytest.FixtureRequest) -> Stage:
    stage: Stage = request.getfixturevalue(f"{request.param}_stage")
    return stage


def use(visitor: Visitor) -> None:
    """Use every endpoint in the right way, and some in a wrong way."""
    ask = visitor.ask
    ask("POST", "/users", json={"username": "ada", "password": PASSWORD, "email": ADDRESS})
    read_mail(visitor)
    ask("POST", "/users", json={"username": "ADA", "password": PASSWORD})
    first = visitor.log_in(client_id="cli", client_secret=CLIENT_SECRET)
    ask("POST", "/auth/token", files={"username": (None, "ada"), "password": (None, PASSWORD)})
    ask("POST", "/auth/token", data={"username": "ada", "password": PASSWORD}, auth=("cli", CLIENT_SECRET))
    mine = bearer(first["access_token"])

    for username in "ada", "nobody", PASSWORD, WRONG:
        visitor.token(username=username, password=WRONG)
    second = visitor.token(grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    for token in second["refresh_token"], first["refresh_token"], second["refresh_token"], FORGED:
        visitor.token(grant_type="refresh_token", refresh_token=token)

    other = visitor.log_in()
    mine = bearer(other["access_token"])
    for token in other["access_token"], other["refresh_token"], first["refresh_token"], FORGED, PASSWORD:
        ask("POST", "/auth/introspect", data={"token": token}, headers=mine)
    for token in first["access_token"], visitor.log_in()["refresh_token"], FORGED:
        ask("POST", "/auth/revoke", data={"token": token})

    personal = ask("POST", "/auth/tokens", json={"name": "Backup"}, headers=mine).json()
    for token in personal["token"], f"{personal['token'][:-1]}-":
        ask("GET", "/tasks/mine", headers=bearer(token))
        ask("POST", "/auth/introspect", data={"token": token}, headers=mine)
    ask("GET", "/auth/tokens", headers=mine)
    ask("DELETE", f"/auth/tokens/{personal['id']}", headers=mine)

    task = ask("POST", "/tasks/", json={"title": "Water"}, headers=mine | {"Idempotency-Key": "one"}).json()
    for path in "/tasks/", "/tasks/mine", "/tasks/public", f"/tasks/{task['id']}", "/auth/sessions", "/users/me":
        ask("GET", path, headers=mine)
        ask("GET", path, headers=bearer(FORGED))
        ask("GET", path, headers=bearer(visitor.log_in(scope="tasks:write")["access_token"]))
    ask("PATCH", f"/tasks/{task['id']}", json={"status": "done"}, headers=mine)
    ask("DELETE", f"/tasks/{task['id']}", headers=mine)
    ask("PATCH", "/users/me", json={"email": None}, headers=mine)
    changes = [(WRONG, NEW_PASSWORD), (PASSWORD, "password123"), (PASSWORD, NEW_PASSWORD)]
    bodies = [{"current_password": current, "new_password": new} for current, new in changes]
    *_, changed = [ask("PUT", "/users/me/password", json=body, headers=mine) for body in bodies]
    mine = bearer(changed.json()["access_token"])
    for path in "/users/me/events", "/users/me/export", "/auth/sessions?ended=true":
        ask("GET", path, headers=mine)
    ask("DELETE", "/auth/sessions", headers=mine)
    for path in "/docs", "/redoc", "/metrics", "/health/ready", "/.well-known/jwks.json":
        ask("GET", path)
    ask("GET", "/.well-known/oauth-authorization-server")


def read_mail(visitor: Visitor) -> None:
    """Verify the address, log in with it, and forget the password. The mail server refuses one mail."""
    for token in FORGED, visitor.mailed("verification token"):
        visitor.ask("POST", "/users/verify-email", json={"verification_token": token})
    visitor.token(username=ADDRESS, password=PASSWORD)
    for name in ADDRESS, WRONG:
        visitor.ask("POST", "/users/forgot-password", json={"username": name})
    reset = {"reset_token": visitor.mailed("mailed reset token"), "new_password": "password123"}
    visitor.ask("POST", "/users/reset-password", json=reset)
    visitor.mails.refusal = f"550 {ADDRESS} {reset['reset_token']} is refused"
    other = {"username": "bob", "password": PASSWORD, "email": "bob@example.com"}
    visitor.ask("POST", "/users", json=other)
    wait_for(lambda: visitor.mails.refused)
    visitor.mails.refusal = None


def administer(visitor: Visitor, stage: Stage) -> None:
    """Look after a user, who forgets her password and is disabled and deleted."""
    ask = visitor.ask
    for username in "chief", "eve":
        ask("POST", "/users", json={"username": username, "password": PASSWORD})
    stage.run(["UPDATE users SET is_admin = TRUE WHERE username = 'chief'"])
    root = bearer(visitor.token(username="chief", password=PASSWORD).json()["access_token"])
    [eve] = ask("GET", "/users/", params={"username": "eve"}, headers=root).json()["items"]
    url = f"/users/{eve['id']}"
    reset_token = ask("POST", f"{url}/reset-token", headers=root).json()["reset_token"]
    for token in reset_token, reset_token, FORGED:
        ask("POST", "/users/reset-password", json={"reset_token": token, "new_password": NEW_PASSWORD})
    theirs = bearer(visitor.token(username="eve", password=NEW_PASSWORD).json()["access_token"])
    secret = ask("POST", "/users/me/totp", headers=theirs).json()["secret"]
    ask("PUT", "/users/me/totp", json={"code": WRONG[:32]}, headers=theirs)
    codes = ask("PUT", "/users/me/totp", json={"code": TOTP(secret).now()}, headers=theirs).json()["recovery_codes"]
    typed = codes[1].replace("-", "")
    visitor.tokens["recovery code as typed"] = typed.encode()
    for code in "", WRONG, secret, codes[0], codes[0], typed:
        visitor.token(username="eve", password=NEW_PASSWORD, otp=code)
    visitor.token(username="eve", password=NEW_PASSWORD, client_secret=codes[2])
    ask("POST", "/auth/token", data={"username": "eve", "password": NEW_PASSWORD}, auth=("cli", CLIENT_SECRET))
    task = ask("POST", "/tasks/", json={"title": "Buy pills", "is_public": True}, headers=theirs).json()
    ask("DELETE", f"/tasks/{task['id']}", headers=root)
    ask("DELETE", f"{url}/sessions", headers=root)
    visitor.token(username="eve", password=NEW_PASSWORD, scope="admin")
    ask("POST", f"{url}/unlock", headers=root)
    ask("DELETE", f"{url}/totp", headers=root)
    for is_active in False, True:
        ask("PATCH", url, json={"is_active": is_active}, headers=root)
    ask("GET", url, headers=root)
    ask("DELETE", url, headers=root)


def misuse(visitor: Visitor, secrets: Secrets) -> None:
    """Each operation, and what is none, with secrets where they do not belong."""
    login, spare = visitor.log_in(NEW_PASSWORD), visitor.log_in(NEW_PASSWORD)
    mine = bearer(login["access_token"])
    texts = [spare["access_token"], spare["refresh_token"]]
    texts += [secret.decode() for name, secret in secrets.items() if name != "private key"]
    unread = {"access_token": spare["access_token"], "token": spare["refresh_token"]}
    unread |= {f"x{n}": text for n, text in enumerate(texts)}
    query = dict(zip(("limit", "sort", "status", "cursor", "due_before", "due_after"), texts, strict=False))
    body = dict.fromkeys(("username", "password", "email", "title", "current_password", "new_password"), texts)
    broken = json.dumps(body | dict.fromkeys(texts, texts))
    form = dict(zip(("refresh_token", "client_id", "username", "password", "scope", "grant_type"), texts, strict=False))
    places = "Cookie", "If-Match", "If-None-Match", "Idempotency-Key", "Referer", "X-Request-ID", "Origin", "Accept"
    headers = {name.encode(): text.encode() for name, text in zip(places, texts, strict=False)}
    paths = visitor.ask("GET", "/openapi.json").json()["paths"]

    for method, path in [(method, path) for path, methods in paths.items() for method in methods]:
        url = path.partition("{")[0]
        if url != path:
            for text in texts:
                visitor.ask(method, url + quote(text, safe=""), params=unread)
            url += "01a208f7-1a8a-7be3-842c-3f4269f2551d"
        visitor.ask(method, url, params=unread)
        visitor.ask(method, url, params=query)
        visitor.ask(method, url, headers=headers | {b"Authorization": b"Bearer " + texts[2].encode()})
        if "requestBody" in paths[path][method]:
            visitor.ask(method, url, headers=headers | {b"Authorization": b"Basic " + texts[2].encode()})
            visitor.ask(method, url, data=form)
            visitor.ask(method, url, data=form | {"grant_type": "password"})
            visitor.ask(method, url, data=form | {"grant_type": "refresh_token"} | unread)
            visitor.ask(method, url, json=body, headers=mine)
            visitor.ask(method, url, json=body | dict.fromkeys(texts, texts), headers=mine)
            visitor.ask(method, url, content=broken[:-9], headers=mine | {"Content-Type": "application/json"})
            visitor.ask(method, url, content=broken, headers=mine | {"Content-Type": "text/plain"})

    visitor.ask("OPTIONS", "/tasks/", params=unread)
    visitor.ask("GET", "/" + quote(PASSWORD) * 200)
    visitor.ask("GET", "/tasks/", headers={b"X-Filler": PASSWORD.encode() * 600})
    visitor.ask("POST", "/auth/token", content=PASSWORD.encode() * 5000)
    for n in range(6):
        visitor.token(username="eve", password=texts[n])
    target = f"{quote(PASSWORD)}?access_token={spare['access_token']}".encode()
    visitor.shout(b"GET /%b HTTP/9.9\r\n\r\n" % target)
    visitor.shout(b"GET /%b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" % target)
    visitor.leave(
        b"POST /auth/token HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 999\r\n\r\nusername=ada&password=" + quote(PASSWORD).encode()
    )


def insist(visitor: Visitor, login: Mapping[str, str]) -> None:
    """Ask for what needs the database."""
    mine = bearer(login["access_token"])
    for username, password in ("ada", NEW_PASSWORD), ("ada", WRONG), (WRONG, WRONG):
        visitor.token(username=username, password=password)
    visitor.token(grant_type="refresh_token", refresh_token=login["refresh_token"])
    visitor.ask("POST", "/auth/revoke", data={"token": login["refresh_token"]})
    visitor.ask("POST", "/tasks/", json={"title": "Water"}, headers=mine)
    visitor.ask("GET", "/users/me", headers=mine, params={"access_token": login["access_token"]})
    visitor.ask("GET", "/health/ready")


def test_no_secret_is_logged_answered_or_stored(stage: Stage, tmp_path: Path) -> None:
    log, kept = tmp_path / "output.log", Path("tasks.db.secret")
    settings: dict[str, Any] = {
        "secret_key_previous": PREVIOUS_KEY,
        "refresh_grace": 0,
        "login_failures": 5,
        "metrics": "true",
        "mail_from": "tasks@example.com",
        "ssl_cert_file": certificate().certificate,
    }
    options: dict[str, Any] = {"tls_context": server_context(), "authenticator": authenticate, "auth_required": True}

    with (
        mail_server(**options) as mails,
        serving(
            log=log,
            stdout=log,
            log_requests=True,
            smtp_url=mails.url(credentials=f"{quote(USER)}:{quote(MAIL_PASSWORD, safe='')}@"),
            **settings | stage.settings,
        ) as url,
    ):
        secrets = {name: text.encode() for name, text in GIVEN.items()} | stage.secrets
        secrets |= {"kept key": kept.read_bytes()} if kept.exists() else {}
        visitor = Visitor(url, mails)
        use(visitor)
        administer(visitor, stage)
        misuse(visitor, secrets)
        login = visitor.log_in(NEW_PASSWORD)
        stage.run(stage.failing)
        insist(visitor, login)
        stage.run(stage.whole)
        stage.away()
        insist(visitor, login)
        stage.back()
        login = visitor.log_in(NEW_PASSWORD)
        stored = stage.dump()
        visitor.ask("DELETE", "/users/me", headers=bearer(login["access_token"]))
        stored += stage.dump()
    output, secrets = log.read_bytes(), secrets | visitor.tokens

    assert found(output, secrets) == set()
    assert found(visitor.answers, secrets) == set()
    assert found(stored, secrets) == set()
    # and there was something to find, in what has been searched as well as in what has not
    assert found(visitor.sent + visitor.token_answers, secrets) == secrets.keys() - {"private key"}
    assert len(visitor.tokens) > 20
    assert visitor.statuses >= STATUSES
    assert [name for name in EVENTS if f'"event": "{name}"'.encode() not in output] == []
    assert b"Traceback" in output
    assert b"database unavailable" in output or stage.url.drivername == "sqlite"  # there a table is missing
    assert b"a mail is lost" in output
    assert ADDRESS.encode() in visitor.answers
    assert ADDRESS.encode() not in output
    assert b"$argon2id$" in stored


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "JSON": lambda text: json.dumps({"password": text}),
    "JSON in UTF-8": lambda text: json.dumps({"password": text}, ensure_ascii=False),
    "repr": lambda text: repr(({"password": text},)),
    "ascii": lambda text: ascii(({"password": text},)),
    "form": lambda text: urlencode({"password": text}),
    "query": lambda text: str(httpx2.URL("http://a", params={"password": text})),
    "path": lambda text: f"/tasks/{quote(text)}",
    "HTML": lambda text: f"<b>{html.escape(text)}</b>",
    "Latin-1": lambda text: text.encode().decode("latin-1"),
    "hexadecimal": lambda text: text.encode().hex(),
    "upper case": lambda text: text.encode().hex().upper(),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64 behind one": lambda text: b64encode(f"a{text}".encode()).decode(),
    "base64 behind two": lambda text: b64encode(f"ab{text}abc".encode()).decode(),
    "credentials": lambda text: urlsafe_b64encode(f"ada:{text}".encode()).decode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_secret_is_found_in_each_spelling(name: str) -> None:
    secrets = {"password": PASSWORD.encode(), "wrong password": WRONG.encode()}
    spell = SPELLINGS[name]

    assert found(f"before {spell(PASSWORD)} after".encode(), secrets) == {"password"}
    assert found(f"before {spell(NEW_PASSWORD)} after".encode(), secrets) == set()


def test_a_token_in_the_query_string_is_an_unknown_parameter(client: TestClient) -> None:
    login = sign_up(client)

    response = client.get("/tasks/", params={"access_token": FORGED}, headers=login.headers)

    assert response.status_code == 422
    assert FORGED not in f"{response.text}{response.headers}"
