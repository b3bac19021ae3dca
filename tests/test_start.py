"""Start-up refusals: either way to start ends with exit code 2 and one line that shows nothing of what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app import main
from app.auth.keys import load_tokens, secret_file
from app.config import Settings, read_settings
from app.errors import BadSettings
from tests.conftest import SECRET
from tests.support.key_pairs import key, private, written
from tests.support.processes import PATIENCE, forked, free_port

CANARY = "canary"
KEPT = f"{CANARY}-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COMMANDS = {"serve": ["app", "serve"], "uvicorn": ["uvicorn", "app.main:app"]}


def key_file(text: str, mode: int) -> Path:
    path = written(text)
    path.chmod(mode)
    return path


def kept_secret(text: str, mode: int) -> Path:
    """Write the secret file of the test's SQLite database."""
    path = Path("tasks.db.secret").absolute()
    path.write_text(text)
    path.chmod(mode)
    return path


def with_key_file(text: str, mode: int) -> dict[str, str]:
    return {"jwt_private_key_file": str(key_file(text, mode))}


def with_lost_secret() -> dict[str, str]:
    """Make the secret file a link that leads nowhere."""
    Path("tasks.db.secret").symlink_to("nowhere")
    return {}


def with_kept_secret(text: str, mode: int) -> dict[str, str]:
    kept_secret(text, mode)
    return {}


REFUSED: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "weak secret": (lambda: {"secret_key": CANARY}, "SECRET_KEY: must have at least 32 bytes"),
    "default secret": (
        lambda: {"secret_key": f"{CANARY}-changethis-0123456789abcdef"},
        "SECRET_KEY: must be random text, not a placeholder",
    ),
    "missing secret": (
        lambda: {"database_url": f"postgresql://ada:{CANARY}@db.example/tasks"},
        "SECRET_KEY must be given with PostgreSQL",
    ),
    "open key file": (lambda: with_key_file(private(key("ES256")), 0o644), "is open to every user of this host"),
    "damaged key file": (lambda: with_key_file(private(key("ES256"))[:-40] + CANARY, 0o600), "must hold PEM keys"),
    "lost kept secret": (with_lost_secret, "cannot be read or made: No such file or directory"),
    "open kept secret": (lambda: with_kept_secret(KEPT, 0o644), "is open to every user of this host"),
    "damaged kept secret": (lambda: with_kept_secret(CANARY, 0o600), "is damaged: it must have at least 32 bytes"),
    "bad database": (lambda: {"database_url": f"mysql://ada:{CANARY}@db.example/tasks"}, "DATABASE_URL: must be"),
    "lost file of a secret": (lambda: {"secret_key_file": CANARY}, "SECRET_KEY_FILE: the file cannot be read"),
    "bad number": (lambda: {"session_ttl": CANARY}, "SESSION_TTL: "),
    "bad origin": (lambda: {"cors_origins": f"https://{CANARY}/x"}, "CORS_ORIGINS: must be"),
}
SHORT = {
    ("serve", "default secret"),
    ("serve", "lost file of a secret"),
    ("serve", "open kept secret"),
    ("serve", "lost kept secret"),
    ("uvicorn", "weak secret"),
    ("uvicorn", "lost file of a secret"),
    ("uvicorn", "open key file"),
}
EACH = [
    pytest.param(command, name, marks=[] if (command, name) in SHORT else pytest.mark.long)
    for command in COMMANDS
    for name in REFUSED
]


def assert_refused(code: object, stderr: str, words: str) -> None:
    assert code == 2
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert words in stderr
    assert CANARY not in stderr.lower()


@pytest.mark.parametrize(("command", "name"), EACH)
def test_a_process_ends_with_one_line(sqlite_url: str, command: str, name: str) -> None:
    settings, words = REFUSED[name]
    given = {"database_url": sqlite_url} | settings()
    output = Path("stdout"), Path("stderr")

    with forked(*COMMANDS[command], port=free_port(), stdout=output[0], stderr=output[1], **given) as process:
        code = process.wait(PATIENCE)

    stdout, stderr = [file.read_text() for file in output]
    assert_refused(code, stderr, words)
    assert CANARY not in stdout
    assert "Serving" not in stdout


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o777], ids=oct)
def test_a_file_of_keys_that_is_open_to_every_user_is_refused(sqlite_url: str, mode: int) -> None:
    opened = key_file(private(key("ES256")), mode), kept_secret(KEPT, mode)
    names = f"JWT_PRIVATE_KEY_FILE: {opened[0]}", f"{opened[1]}"
    for name, settings in zip(names, ({"jwt_private_key_file": opened[0], "secret_key": SECRET}, {}), strict=True):
        with pytest.raises(ValueError, match="is open to every user") as caught:
            load_tokens(Settings.model_validate({"database_url": sqlite_url} | settings))

        assert str(caught.value).startswith(f"{name} is open")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440], ids=oct)
def test_a_file_of_keys_may_be_open_to_its_owner_and_group(sqlite_url: str, mode: int) -> None:
    settings = Settings(database_url=sqlite_url, jwt_private_key_file=key_file(private(key("ES256")), mode))
    kept_secret(KEPT, mode)

    load_tokens(settings)

    assert secret_file(settings).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{CANARY}@127.0.0.1:99999/tasks",
        f"postgresql://ada:{CANARY}@/tasks?host=/tmp&port=x",
        f"postgresql://ada:{CANARY}@[db.example/tasks",
        f"postgresql://ada:{CANARY}@..example/tasks",
        f"sqlite:///{CANARY}%00.db",
    ],
    ids=["port", "port of a socket", "bracket", "empty label", "NUL"],
)
def test_a_database_url_that_nothing_can_connect_to_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SECRET_KEY", SECRET)

    with pytest.raises(BadSettings, match=r"^DATABASE_URL: ") as caught:
        read_settings()

    assert CANARY not in str(caught.value)


def test_each_bad_setting_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SESSION_TTL", CANARY)
    monkeypatch.setenv("REGISTRATION", CANARY)

    with pytest.raises(SystemExit) as caught:
        _ = main.app

    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(":")[0] for line in lines] == ["error: SESSION_TTL", "error: REGISTRATION"]
