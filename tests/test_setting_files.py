"""Each setting can be read from a file: `NAME_FILE` has its path, in the environment or in `.env`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import Settings, read_settings, unknown_names
from app.config.sources import set_in_environment
from app.errors import BadSettings

SECRET = "a-key-for-tests-only-0123456789abcdef"
GIVEN = {"DATABASE_URL": "postgresql://db.example/tasks", "SECRET_KEY": SECRET[::-1], "MAIL_FROM": "ada@example.com"}
VALUES = [
    "7",
    "false",
    "closed",
    "console",
    SECRET,
    "postgresql://ada:l0velace@db.example/tasks",
    "https://tasks.example",
    "smtp://mail.example",
    "tasks@example.com",
    "10.0.0.1",
    "/api",
    "asyncio:sleep",
]
CANNOT = "the file cannot be read: "
MUST = "must name a file of UTF-8 text, not empty, with at most 64 KiB"


def read(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Settings | None:
    """Read the settings with a variable. Return None where the value is refused."""
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        try:
            return read_settings()
        except BadSettings:
            return None


def written(text: str | bytes) -> Path:
    file = Path("value")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refusal() -> str:
    with pytest.raises(BadSettings) as caught:
        read_settings()
    [message] = caught.value.args
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_from_a_file_is_the_same_as_from_a_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other, given in GIVEN.items():
        monkeypatch.setenv(other, given)
    monkeypatch.delenv(name.upper(), raising=False)
    taken = ((value, read(name.upper(), value, monkeypatch)) for value in VALUES)
    value, expected = next(((value, settings) for value, settings in taken if settings), ("", None))
    assert expected, f"a new setting: add a value that {name} takes to VALUES"

    monkeypatch.setenv(f"{name.upper()}_FILE", str(written(f"{value}\n")))

    assert read_settings() == expected
    assert name in read_settings().model_fields_set


def test_the_env_file_may_name_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link leads to a secret that Docker or Kubernetes mounts. Letter case does not matter."""
    Path("link").symlink_to(written(SECRET).absolute())
    Path(".env").write_text("secret_key_file=link\nSESSION_TTL_FILE=\nREGISTRATION=closed\n")

    settings = read_settings()

    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET
    assert unknown_names() == []


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n", f"{SECRET}\n\n", f"\ufeff{SECRET}\r\n"], ids=ascii
)
def test_line_ends_that_an_editor_adds_do_not_count(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(written(text)))

    settings = read_settings()

    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET


@pytest.mark.parametrize("text", [f" {SECRET}", f"{SECRET} \n", f"{SECRET}\t", f"\n{SECRET}"], ids=ascii)
def test_other_white_space_of_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(written(text)))

    assert refusal() == "SECRET_KEY: must not begin or end with white space or a byte order mark"


@pytest.mark.parametrize(
    ("environment", "env_file", "expected"),
    [
        ({"ROOT_PATH": "/environment"}, "ROOT_PATH_FILE=nowhere", "/environment"),
        ({"ROOT_PATH_FILE": "value"}, "ROOT_PATH=/dotenv", "/file"),
        ({"ROOT_PATH_FILE": "value"}, "ROOT_PATH_FILE=nowhere", "/file"),
        ({"ROOT_PATH": "", "ROOT_PATH_FILE": "value"}, "", "/file"),
        ({"ROOT_PATH": "/environment", "ROOT_PATH_FILE": ""}, "", "/environment"),
        ({"ROOT_PATH_FILE": ""}, "ROOT_PATH_FILE=value", "/file"),
        ({"ROOT_PATH_FILE": ""}, "", ""),
    ],
)
def test_the_environment_wins_in_either_form(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], env_file: str, expected: str
) -> None:
    """An empty value does not count. A file that loses is not read."""
    written("/file\n")
    Path(".env").write_text(env_file)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)

    assert read_settings().root_path == expected


def test_both_forms_in_one_source_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "SECRET_KEY and SECRET_KEY_FILE cannot both be given: choose one"
    Path(".env").write_text(f"SECRET_KEY={SECRET}\nSECRET_KEY_FILE=canary\n")
    assert refusal() == message

    Path(".env").unlink()
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("SECRET_KEY_FILE", "canary")
    assert refusal() == message


def folder() -> None:
    Path("canary").mkdir()


def loop() -> None:
    Path("canary").symlink_to("canary")


def pipe() -> None:
    os.mkfifo("canary")


def holding(content: bytes) -> Callable[[], object]:
    return lambda: Path("canary").write_bytes(content)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: None, f"{CANNOT}No such file or directory"),
        (loop, f"{CANNOT}Too many levels of symbolic links"),
        (folder, MUST),
        (pipe, MUST),
        (holding(b""), MUST),
        (holding(b"\r\n\n"), MUST),
        (holding(b"canary\xff" + SECRET.encode()), MUST),
        (holding(SECRET.encode("utf-16")), MUST),
        (holding(b"canary\0" + SECRET.encode()), MUST),
        (holding(b"canary" * 2**16), MUST),
    ],
    ids=["missing", "loop", "folder", "pipe", "empty", "lines", "bytes", "utf-16", "NUL", "large"],
)
def test_a_file_that_cannot_be_read_is_named_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object], fault: str
) -> None:
    """The message shows neither the path nor the content."""
    make()
    monkeypatch.setenv("SECRET_KEY_FILE", "canary")

    assert refusal() == f"SECRET_KEY_FILE: {fault}"


def test_a_file_that_this_user_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied", "canary")

    written(SECRET)
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setenv("SECRET_KEY_FILE", "value")

    assert refusal() == f"SECRET_KEY_FILE: {CANNOT}Permission denied"


@pytest.mark.parametrize("path", ["canary\0", f"{SECRET}\0", "canary" * 1000], ids=["NUL", "secret", "long"])
def test_a_path_that_is_none_is_not_shown(path: str) -> None:
    """Somebody may have put the secret there."""
    Path(".env").write_text(f"SECRET_KEY_FILE={path}\n")

    message = refusal()

    assert message.startswith("SECRET_KEY_FILE: ")
    assert "canary" not in message
    assert SECRET not in message


def test_a_bad_value_in_a_file_has_the_message_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_TTL_FILE", str(written("canary")))

    assert refusal() == "SESSION_TTL: Input should be a valid integer, unable to parse string as an integer"


@pytest.mark.parametrize("name", ["ROOT_PATH", "root_path", "ROOT_PATH_FILE", "root_path_file", "OTHER"])
def test_a_setting_for_child_processes_replaces_either_form(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "environ", {name: "/nowhere"})

    set_in_environment("root_path", "/api")

    assert read_settings().root_path == "/api"
