"""The settings come from the environment or a .env file. A bad value is refused in one line."""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config import Settings, read_settings, unknown_names
from app.errors import BadSettings

SECRET = "a-key-for-tests-only-0123456789abcdef"
POSTGRESQL = "postgresql://ada:l0velace@db.example/tasks"
DEFAULTS = {
    "database_url": "sqlite:///./tasks.db",
    "pool_size": 10,
    "database_replica_url": None,
    "secret_key": None,
    "secret_key_previous": None,
    "jwt_private_key_file": None,
    "public_url": "http://127.0.0.1:8000",
    "access_token_ttl": 1800,
    "session_ttl": 2_592_000,
    "session_idle_ttl": 0,
    "refresh_grace": 10,
    "fresh_login": 300,
    "login_failures": 10,
    "login_window": 900,
    "registration": "open",
    "registration_limit": 60,
    "tasks_limit": 100_000,
    "smtp_url": None,
    "mail_from": None,
    "mail_hook": None,
    "reset_url": None,
    "verify_url": None,
    "trusted_proxies": (),
    "allowed_hosts": (),
    "cors_origins": (),
    "root_path": "",
    "drain_seconds": 0,
    "log_format": "json",  # standard error is no terminal here
    "log_requests": True,
    "metrics": False,
}
AROUND = [("", "\n"), ("", "\r\n"), (" ", ""), ("", "\t"), ("\ufeff", ""), ("", "\xa0"), ("", "\u3000")]
BAD = {
    "DATABASE_URL": [
        "canary",
        "mysql://ada:canary@db.example/tasks",
        "postgresql+asyncpg://ada:canary@db.example/tasks",
        "postgresql+psycopg://ada:canary@db.example/tasks",
        "sqlite+aiosqlite:///./canary.db",
        "postgresql://ada:secret@db.example:canary/tasks",
        "POSTGRESQL://ada:canary@db.example/tasks",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://canary/tasks.db",
    ],
    "SECRET_KEY": [
        "canary",
        "canary-x0123456789abcdefghijklm",
        "canarycanarycanarycanarycanarycanary",
        "canary-changethis-0123456789abcdef-x",
        "canary-CHANGE_ME-0123456789abcdefgh",
        "canary-change-it-0123456789abcdefgh",
        "canary-your-secret-key-0123456789abcdef",
        "canary-very-insecure-0123456789abcdef",
        "canary-placeholder-0123456789abcdef",
        "-----BEGIN PUBLIC KEY----- canary 0123456789",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 canary",
        os.fsdecode(b"canary-0123456789-0123456789-abcdef-\xff"),
        *(f"{before}canary-0123456789-0123456789-abcdef{after}" for before, after in AROUND),
    ],
    "SECRET_KEY_PREVIOUS": [
        "canary",
        "canary-changethis-0123456789abcdef-x",
        "canary-0123456789-0123456789-abcdef\n",
    ],
    "PUBLIC_URL": [
        "canary",
        "canary.example",
        "ftp://canary.example",
        "//canary.example",
        "https://",
        "https:///canary",
        "https://canary.example/?q=1",
        "https://canary.example/#top",
        "https://canary .example",
    ],
    "ACCESS_TOKEN_TTL": ["canary", "0", "-1", "1.5", "1e3", "30m", "99999999999999999"],
    "SESSION_TTL": ["canary", "0", "-1", "1.5", "30d", "99999999999999999"],
    "REFRESH_GRACE": ["canary", "-1", "0.5", "99999999999999999"],
    "FRESH_LOGIN": ["canary", "-1", "5m", "99999999999999999"],
    "LOGIN_FAILURES": ["canary", "0", "-1", "99999999999999999"],
    "LOGIN_WINDOW": ["canary", "0", "15m", "99999999999999999"],
    "REGISTRATION": ["canary", "true", "invite"],
    "REGISTRATION_LIMIT": ["canary", "-1", "99999999999999999"],
    "TASKS_LIMIT": ["canary", "-1", "99999999999999999"],
    "DRAIN_SECONDS": ["canary", "-1", "0.5", "3601"],
    "SMTP_URL": [
        "canary",
        "canary.example:587",
        "http://canary.example",
        "smtp://",
        "smtp://:canary@mail.example",
        "smtp://ada@canary.example",
        "smtp://ada:secret@mail.example:canary",
        "smtp://ada:secret@mail.example:0",
        "smtp://canary.example/path",
        "smtp://canary.example?tls=no",
        "smtps://[canary",
    ],
    "MAIL_FROM": [
        "canary",
        "canary@",
        "@canary.example",
        "ada@canary.example, bob@canary.example",
        "Canary, Tasks <ada@canary.example>",
        "Tasks <ada@canary.example> x",
        "Tasks\nBcc: canary@example.com <ada@example.com>",
        "a canary@example.com",
    ],
    "RESET_URL": ["canary", "canary.example/reset", "ftp://canary.example", "https://canary.example/#/reset"],
    "VERIFY_URL": ["canary", "javascript:canary", "https://canary.example/a b"],
    "MAIL_HOOK": [
        "canary",
        "canary:send",
        "tests.support.accounts:canary",
        "tests.support.accounts",
        "tests.support.accounts:PASSWORD",
    ],
    "TRUSTED_PROXIES": ["canary", "*", "canary.example", "10.0.0.1/8", "10.0.0.0/33", "127.0.0.1, canary"],
    "ALLOWED_HOSTS": ["https://canary.example", "canary.example:8000", "*.canary.example", "a, canary/b"],
    "CORS_ORIGINS": ["canary.example", "https://canary.example/", "https://*.canary.example", "null, canary"],
    "ROOT_PATH": ["canary", "api", "//canary", "/canary?x", "/can ary", "https://canary.example/api", "/canary/{id}"],
}


def refusal() -> tuple[str, ...]:
    """Return the messages with which the settings are refused."""
    with pytest.raises(BadSettings) as caught:
        read_settings()
    return caught.value.args


@pytest.mark.rfc("8725", "3.5")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_with_the_name_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The message is one line, and does not show the value."""
    monkeypatch.setenv(name, value)

    [message] = refusal()

    assert re.fullmatch(rf"{name}: [^\n]+", message)
    assert "canary" not in message


def test_each_of_several_bad_values_has_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRATION", "invite")
    monkeypatch.setenv("SESSION_TTL", "30d")

    assert [message.split(":")[0] for message in refusal()] == ["SESSION_TTL", "REGISTRATION"]


@pytest.mark.parametrize("url", [POSTGRESQL, POSTGRESQL.replace("postgresql", "postgres")])
def test_postgresql_needs_a_secret_that_is_given(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SECRET_KEY_PREVIOUS", SECRET)

    assert refusal() == ("SECRET_KEY must be given with PostgreSQL, the same to every process",)


def test_nothing_given_is_the_defaults() -> None:
    assert Settings.model_fields.keys() == DEFAULTS.keys(), "a new setting: add its default to DEFAULTS"
    assert read_settings().model_dump() == DEFAULTS


def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "DATABASE_URL": POSTGRESQL,
        "POOL_SIZE": "5",
        "DATABASE_REPLICA_URL": POSTGRESQL,
        "SECRET_KEY": SECRET,
        "SECRET_KEY_PREVIOUS": SECRET[::-1],
        "JWT_PRIVATE_KEY_FILE": "keys/jwt.pem",
        "PUBLIC_URL": "https://tasks.example/api",
        "ACCESS_TOKEN_TTL": "1",
        "SESSION_TTL": "2",
        "SESSION_IDLE_TTL": "7",
        "REFRESH_GRACE": "0",
        "FRESH_LOGIN": "60",
        "LOGIN_FAILURES": "3",
        "LOGIN_WINDOW": "4",
        "REGISTRATION": "closed",
        "REGISTRATION_LIMIT": "0",
        "TASKS_LIMIT": "6",
        "SMTP_URL": "smtp://ada:l0ve@mail.example",
        "MAIL_FROM": "Tasks <tasks@example.com>",
        "RESET_URL": "https://tasks.example/reset",
        "VERIFY_URL": "https://tasks.example/verify",
        "TRUSTED_PROXIES": "10.1.2.3, 10.2.0.0/16, fd00::/8",
        "ALLOWED_HOSTS": "Tasks.example,[::1]",
        "CORS_ORIGINS": "https://tasks.example,http://localhost:5173",
        "ROOT_PATH": "/api",
        "DRAIN_SECONDS": "8",
        "LOG_FORMAT": "console",
        "LOG_REQUESTS": "False",
        "METRICS": "True",
    }
    assert given.keys() == {name.upper() for name in DEFAULTS} - {"MAIL_HOOK"}, "a new setting: give it a value here"
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    settings = read_settings()

    secrets = {"secret_key": SECRET, "secret_key_previous": SECRET[::-1]}
    read = settings.model_dump(exclude={"mail_hook"}) | secrets | {"smtp_url": given["SMTP_URL"]}
    lists = {
        "TRUSTED_PROXIES": ("10.1.2.3/32", "10.2.0.0/16", "fd00::/8"),
        "ALLOWED_HOSTS": ("tasks.example", "[::1]"),
        "CORS_ORIGINS": ("https://tasks.example", "http://localhost:5173"),
    }
    spelled = {name.upper(): value if isinstance(value, tuple) else str(value) for name, value in read.items()}
    assert spelled == given | lists
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET
    assert settings.secret_key_previous is not None
    assert settings.secret_key_previous.get_secret_value() == SECRET[::-1]


def test_a_mail_hook_is_imported_and_excludes_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_HOOK", "asyncio:sleep")
    assert read_settings().mail_hook is asyncio.sleep

    monkeypatch.setenv("SMTP_URL", "smtp://localhost:25")
    monkeypatch.setenv("MAIL_FROM", "tasks@example.com")
    assert refusal() == ("SMTP_URL and MAIL_HOOK cannot both be given: choose one",)


def test_a_mail_server_needs_a_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://localhost:25")

    assert refusal() == ("MAIL_FROM must be given with SMTP_URL: it is the sender of the mails",)


@pytest.mark.parametrize(
    "sender", ['"Tasks, Inc." <tasks@example.com>', "Aufgäben <tasks@exämple.com>", " a@b.example "]
)
def test_a_sender_may_have_a_name(sender: str) -> None:
    assert Settings(mail_from=sender).mail_from == sender.strip()


def test_the_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty value does not count."""
    Path(".env").write_text(
        "# a comment\nSECRET_KEY=\nJWT_PRIVATE_KEY_FILE=\nPUBLIC_URL=\nACCESS_TOKEN_TTL=\n"
        "REGISTRATION=closed\nREGISTRATION=\nSESSION_TTL=60\nOTHERS=x\n"
    )
    monkeypatch.setenv("SESSION_TTL", "90")
    monkeypatch.setenv("REFRESH_GRACE", "")

    assert read_settings().model_dump() == DEFAULTS | {"registration": "closed", "session_ttl": 90}


def test_a_dotenv_file_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users who start the service, or run a command, must have one secret."""
    secret = "Zk3m${HOME}Qp9xW4vR8tB1nL6cJ3hG5fD0sA"
    Path(".env").write_text(f"SECRET_KEY='{secret}'\nDATABASE_URL=sqlite:///${{HOME}}.db\n")
    monkeypatch.setenv("HOME", "/home/ada")

    settings = read_settings()

    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == secret
    assert settings.database_url == "sqlite:///${HOME}.db"


@pytest.mark.parametrize(
    "text", ["\ufeffREGISTRATION=closed\n", "export REGISTRATION = 'closed'\r\n", "registration=closed"]
)
def test_a_dotenv_file_may_come_from_any_editor(text: str) -> None:
    Path(".env").write_text(text)

    assert read_settings().registration == "closed"


def test_a_bad_value_in_a_dotenv_file_ends_the_start_too() -> None:
    Path(".env").write_text("SECRET_KEY=changethis\n")

    assert refusal()[0].startswith("SECRET_KEY: must have at least 32 bytes: ")


def test_a_dotenv_file_that_is_not_text_ends_the_start_too() -> None:
    """Windows' PowerShell 5 writes UTF-16 when `>` makes a file."""
    Path(".env").write_text("REGISTRATION=closed\n", encoding="utf-16")

    assert refusal() == (".env: must be UTF-8 text",)


@pytest.mark.parametrize("url", ["postgres://ada:l%40ve@db.example/tasks", "postgresql://ada:l%40ve@db.example/tasks"])
def test_both_names_of_postgresql_are_one(url: str) -> None:
    settings = Settings(database_url=url, secret_key=SECRET)

    assert settings.database.drivername == "postgresql"
    assert settings.database.password == "l@ve"


def test_a_sqlite_url_is_a_relative_path_or_an_absolute_one() -> None:
    Path("data").mkdir()

    assert Settings(database_url="sqlite:///./data/tasks.db").database.database == "./data/tasks.db"
    assert Settings(database_url="sqlite:////tasks.db").database.database == "/tasks.db"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("canary/tasks.db", "the folder of the SQLite file does not exist"),
        ("data", "the SQLite file cannot be read"),
        ("canary.txt", "the file is not a SQLite database"),
    ],
)
def test_an_impossible_sqlite_path_ends_the_start(monkeypatch: pytest.MonkeyPatch, path: str, fault: str) -> None:
    Path("data").mkdir()
    Path("canary.txt").write_text("SQLite")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")

    assert refusal() == (f"DATABASE_URL: {fault}",)


def test_an_unreadable_line_of_the_env_file_ends_the_start() -> None:
    Path(".env").write_text('REGISTRATION=closed\nSECRET_KEY="canary\nROOT_PATH=/api\n')

    assert refusal() == (".env: line 2 is not NAME=value",)


@pytest.mark.parametrize(
    "secret",
    [
        "a-string-secret-at-least-256-bits-long",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "replace-this-with-a-random-string-of-32-bytes",
        "your-very-long-secret-key-0123456789",
    ],
)
def test_a_secret_that_everybody_knows_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="must be random text, not a placeholder"):
        Settings(secret_key=secret)


@pytest.mark.parametrize(("given", "kept"), [("/", ""), ("/api/", "/api"), ("/a/b-c", "/a/b-c")])
def test_a_trailing_slash_of_prefix_or_public_url_is_dropped(given: str, kept: str) -> None:
    settings = Settings(root_path=given, public_url=f"https://tasks.example{given}")

    assert settings.root_path == kept
    assert settings.public_url == f"https://tasks.example{kept}"


@pytest.mark.parametrize("text", ["ключ-в-семнадцать", "my-secret-password-example-0123"], ids=["bytes", "words"])
def test_a_secret_of_32_bytes_is_taken_as_it_is(text: str) -> None:
    settings = Settings(secret_key=text + "x" * (32 - len(text.encode())))

    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value().startswith(text)
    assert len(settings.secret_key.get_secret_value().encode()) == 32


def test_neither_a_secret_nor_the_databases_password_is_shown() -> None:
    mail: dict[str, Any] = {"smtp_url": "smtp://ada:l0velace@mail.example", "mail_from": "tasks@example.com"}
    settings = Settings(database_url=POSTGRESQL, secret_key=SECRET, secret_key_previous=SECRET[::-1], **mail)

    for shown in repr(settings), str(settings), f"{settings.database}", repr(settings.database):
        assert "l0velace" not in shown
        assert SECRET not in shown
        assert SECRET[::-1] not in shown


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.session_ttl = 1  # type: ignore[misc]


def test_the_example_names_exactly_the_settings() -> None:
    example = Path(__file__).parent.parent.joinpath(".env.example").read_text()

    named = re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE)

    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("REGISTRATON", ".env: REGISTRATON is not a setting: did you mean REGISTRATION?"),
        ("tasks_limits", ".env: tasks_limits is not a setting: did you mean TASKS_LIMIT?"),
        ("SECRET_KEY_FLIE", ".env: SECRET_KEY_FLIE is not a setting: did you mean SECRET_KEY_FILE?"),
        ("JWT_PRIVATE_KEY", ".env: JWT_PRIVATE_KEY is not a setting: did you mean JWT_PRIVATE_KEY_FILE?"),
        ("ZZZ", ".env: ZZZ is not a setting"),
    ],
)
def test_an_unknown_name_in_the_env_file_is_named(name: str, message: str) -> None:
    Path(".env").write_text(f"\ufeffMETRICS=true\n# REGISTRATIONS=open\n{name}=closed\nsession_ttl=60\n")

    assert unknown_names() == [message]


def test_without_an_env_file_no_name_is_unknown() -> None:
    assert unknown_names() == []
