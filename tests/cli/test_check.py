"""python -m app check finds each planted fault, and nothing else."""

import re
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.cli import diagnosis
from app.clock import Clock, utc_now
from tests.conftest import SECRET, Sql
from tests.support.accounts import create_task, log_in, register
from tests.support.command_line import Run, run
from tests.support.processes import ROOT

LOCAL = {"secret_key": SECRET, "trusted_proxies": "127.0.0.1"}
GOOD = LOCAL | {"public_url": "https://tasks.example.com", "registration": "closed"}
BCRYPT = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW"


@pytest.fixture
def app(database_url: str) -> Run:
    return partial(run, database_url=database_url)


def faults(app: Run, **settings: str) -> list[str]:
    """The faults that `check` prints, each with its remedy."""
    result = app("check", **settings)
    lines = result.stdout.splitlines()
    if result.exit_code == 0:
        assert lines == ["Nothing is wrong."]
        return []
    assert result.exit_code == 1
    assert all(line.startswith("- ") for line in lines[::2])
    assert all(re.match(r"  \S", line) for line in lines[1::2])
    return [line.removeprefix("- ") for line in lines[::2]]


def test_a_good_installation_has_none(app: Run, client: TestClient, sql: Sql) -> None:
    assert app("users", "add", "root", stdin="correct horse battery\n", **GOOD).exit_code == 0
    Path(".env").write_text("ACCESS_TOKEN_TTL=60\n")
    Path(".env").chmod(0o640)

    assert faults(app, **GOOD) == []
    assert faults(app, **GOOD | {"registration": "open", "trusted_proxies": "10.0.0.0/8, fd00::/8, 192.0.2.1"}) == []
    assert faults(app, **GOOD | {"cors_origins": "https://app.example.com"}) == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "https://tasks.local"]
)
def test_so_has_one_for_this_host_alone(app: Run, url: str) -> None:
    assert faults(app, **LOCAL, public_url=url) == []


def test_an_installation_that_never_ran_stays_untouched() -> None:
    """The command makes no database and no secret."""
    assert faults(run) == []
    assert list(Path.cwd().iterdir()) == []


def test_a_weak_secret(app: Run) -> None:
    assert faults(app, secret_key="changethis")[0].startswith("SECRET_KEY: must have at least 32 bytes")


def test_a_secret_that_is_its_own_predecessor(app: Run) -> None:
    assert faults(app, **GOOD, secret_key_previous=SECRET) == ["SECRET_KEY_PREVIOUS is SECRET_KEY."]


def test_a_dotenv_that_cannot_be_read(app: Run) -> None:
    Path(".env").write_text("REGISTRATION closed\n")

    assert faults(app, **GOOD) == [".env: line 1 is not NAME=value"]


def test_a_dotenv_that_this_user_cannot_read(app: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError

    Path(".env").touch()
    monkeypatch.setattr(Path, "read_text", refuse)  # root reads everything

    assert faults(app, **GOOD) == [".env: this user may not read it"]


def test_a_dotenv_that_everybody_can_read(app: Run) -> None:
    Path(".env").write_text("ACCESS_TOKEN_TTL=60\n")
    Path(".env").chmod(0o644)

    assert faults(app, **GOOD) == [".env is open to every user of this host."]


def test_a_file_of_a_setting_that_is_open_to_every_user(app: Run, client: TestClient) -> None:
    """A secret that Docker or Kubernetes mounts is a link."""
    secret = Path("secret")
    secret.write_text(SECRET)
    secret.chmod(0o640)
    Path("link").symlink_to(secret)
    given = GOOD | {"secret_key": "", "secret_key_file": "link"}
    assert faults(app, **given) == []

    secret.chmod(0o644)

    assert faults(app, **given) == ["link is open to every user of this host."]


def test_a_name_in_a_dotenv_that_no_setting_has(app: Run) -> None:
    Path(".env").write_text("REGISTRATON=closed\n")
    Path(".env").chmod(0o600)

    assert faults(app, **GOOD) == [".env: REGISTRATON is not a setting: did you mean REGISTRATION?"]


def test_a_key_file_that_everybody_can_read(app: Run) -> None:
    pem = {"jwt_private_key_file": "jwt.pem"}
    app("keys", "new", **GOOD, **pem)
    Path("jwt.pem").chmod(0o644)

    [fault] = faults(app, **GOOD, **pem)

    assert fault.startswith("JWT_PRIVATE_KEY_FILE: jwt.pem is open to every user of this host: chmod o= jwt.pem")


def test_a_kept_secret_that_everybody_can_read(sqlite_url: str) -> None:
    settings = {"database_url": sqlite_url, "registration": "closed"}
    assert faults(run, **settings) == []
    assert not Path("tasks.db.secret").exists()
    run("keys", "list", **settings)
    Path("tasks.db.secret").chmod(0o644)

    [fault] = faults(run, **settings)

    assert "tasks.db.secret is open to every user of this host" in fault


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_kept_secret_that_is_gone(sqlite_url: str, sql: Sql) -> None:
    """Unless there is no session that would end."""
    settings = {"database_url": sqlite_url}
    for name in "ada", "bob":
        run("users", "add", name, stdin="correct horse battery\n", **settings)
    Path("tasks.db.secret").unlink()
    assert faults(run, **settings) == []
    sql(
        "INSERT INTO sessions (id, user_id, scope, created_at, rotated_at, expires_at, user_agent, ip)"
        " SELECT id, id, '', created_at, created_at, created_at, '', '' FROM users"
    )

    [fault] = faults(run, **settings)

    assert fault.endswith("tasks.db.secret is gone: the service would make a new one, and end every session.")
    refused = run("users", "disable", "ada", **settings)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "tasks.db.secret is gone: put it back, or let python -m app serve make a new one" in refused.stderr
    assert not Path("tasks.db.secret").exists()


def test_a_bad_key_file_on_an_installation_that_never_ran() -> None:
    Path("jwt.pem").touch(0o600)

    assert faults(run, jwt_private_key_file="jwt.pem") == [
        "JWT_PRIVATE_KEY_FILE: jwt.pem must begin with a private key: it signs."
    ]


@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_database_that_is_open_to_everybody(sqlite_url: str, mode: int) -> None:
    Path("tasks.db").chmod(mode)

    assert faults(run, **GOOD | {"database_url": sqlite_url}) == [
        f"{Path.cwd()}/tasks.db is open to every user of this host."
    ]


def test_hosts_that_are_not_the_public_one(app: Run) -> None:
    [fault] = faults(app, **GOOD, allowed_hosts="other.example.com")

    assert fault == "ALLOWED_HOSTS lacks the host of PUBLIC_URL: the service answers nobody there."
    assert faults(app, **GOOD, allowed_hosts="other.example.com, TASKS.example.com") == []
    assert faults(app, **LOCAL, public_url="http://[::1]:8000", allowed_hosts="[::1]") == []


def test_a_proxy_that_is_not_named(app: Run) -> None:
    [fault] = faults(app, **GOOD | {"trusted_proxies": ""})

    assert fault.startswith("TRUSTED_PROXIES does not name the proxy")


def test_the_example_of_a_dotenv_on_a_public_address(sqlite_url: str) -> None:
    Path(".env").write_text((ROOT / ".env.example").read_text())
    Path(".env").chmod(0o600)

    found = faults(run, database_url=sqlite_url, public_url="https://tasks.example.com", trusted_proxies="10.0.0.5")

    assert found == ["Anybody who reaches PUBLIC_URL can make an account."]


def test_migrations_that_are_behind(app: Run, sql: Sql) -> None:
    [(current,)] = sql("SELECT version_num FROM alembic_version")
    sql("UPDATE alembic_version SET version_num = '0001'")

    found = faults(app, **GOOD)

    sql(f"UPDATE alembic_version SET version_num = '{current}'")
    assert found == ["The database's schema is not this version's."]


def test_tasks_that_no_search_finds(app: Run, client: TestClient, sql: Sql) -> None:
    app("users", "add", "root", stdin="correct horse battery\n", **GOOD)
    ada = log_in(client, "root")
    create_task(client, ada)
    sql("UPDATE tasks SET words = NULL")

    assert faults(app, **GOOD) == ["Searches do not find every task: an older version wrote some of them."]

    assert app("migrate", **GOOD).exit_code == 0
    assert faults(app, **GOOD) == []


def test_a_database_that_is_away() -> None:
    settings = GOOD | {"database_url": "postgresql://ada:l0velace@127.0.0.1:1/tasks"}

    result = run("check", **settings)

    assert result.exit_code == 1
    assert "The database is not available: 127.0.0.1:1: Connection refused." in result.stdout
    assert "l0velace" not in result.output


def test_sqlite_on_a_network_file_system(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = Path("mounts")
    monkeypatch.setattr(diagnosis, "MOUNTS", mounts)
    settings = GOOD | {"database_url": sqlite_url}
    for kind, is_found in ("ext4", False), ("nfs4", True), ("cifs", True):
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/tasks {Path.cwd()} {kind} rw 0 0\n")
        assert [fault.endswith("where several hosts would damage it.") for fault in faults(run, **settings)] == (
            [True] if is_found else []
        )
    mounts.unlink()
    assert faults(run, **settings) == []


def test_cors_for_every_origin(app: Run) -> None:
    assert faults(app, **GOOD, cors_origins="*") == ["CORS_ORIGINS lets the pages of every origin call the service."]


@pytest.mark.parametrize("host", ["tasks.example.com", "8.8.8.8:8000"])
def test_open_registration_is_warned_of_unless_it_is_set(app: Run, host: str) -> None:
    settings = LOCAL | {"public_url": f"https://{host}"}

    assert faults(app, **settings) == ["Anybody who reaches PUBLIC_URL can make an account."]
    assert faults(app, **settings, registration="open") == []


def test_a_public_url_in_clear(app: Run) -> None:
    [fault] = faults(app, **GOOD | {"public_url": "http://tasks.example.com"})

    assert fault.startswith("PUBLIC_URL is not https")


@pytest.mark.parametrize("networks", ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "8.0.0.0/9", "10.0.0.1, 203.0.0.0/16"])
def test_proxies_that_are_trusted_too_widely(app: Run, networks: str) -> None:
    [fault] = faults(app, **GOOD | {"trusted_proxies": networks})

    assert re.match(r"TRUSTED_PROXIES trusts [\d,]+ addresses", fault)


def test_a_clock_that_is_off(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (GOOD | {"database_url": postgres_url}).items():
        monkeypatch.setenv(name.upper(), value)

    assert diagnosis.diagnose(utc_now) == []
    clocks: list[Clock] = [lambda: utc_now() - timedelta(minutes=1), lambda: utc_now() + timedelta(minutes=1)]
    for clock in clocks:
        [fault] = diagnosis.diagnose(clock)
        assert re.fullmatch(r"This host's clock and the database's are (59|60|61) seconds apart\.", fault.what)


def test_hashes_that_are_weak_or_old_until_they_are_made_anew(app: Run, client: TestClient, sql: Sql) -> None:
    for name in "ada", "bob", "dan", "eve":
        register(client, name)  # with a cheaper hash than the command makes
    app("users", "add", "root", stdin="correct horse battery\n", **GOOD)
    sql(f"UPDATE users SET password_hash = '{BCRYPT}' WHERE username = 'eve'")

    assert faults(app, **GOOD) == ["4 passwords are hashed more weakly than today's: ada, bob, dan, …."]

    log_in(client, "ada")  # the test's cost makes no stronger hash
    sql("DELETE FROM users WHERE username = 'bob'")
    sql("UPDATE users SET is_active = FALSE WHERE username = 'dan'")
    assert faults(app, **GOOD) == ["2 passwords are hashed more weakly than today's: ada, eve."]
    app("users", "set-password", "ada", stdin="another long one\n", **GOOD)
    app("users", "delete", "eve", "--yes", **GOOD)
    assert faults(app, **GOOD) == []


def test_several_are_all_named(app: Run) -> None:
    bad = {"public_url": "http://tasks.example.com", "cors_origins": "*", "trusted_proxies": "0.0.0.0/0"}

    found = faults(app, **LOCAL | bad)

    assert len(found) == 4


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"smtp_url": "smtp://mail.example.com", "mail_from": "tasks@example.com"}, "SMTP_URL does not insist on TLS"),
        ({"mail_from": "tasks@localhost"}, "MAIL_FROM is at localhost, a name that other mail servers refuse."),
        ({"reset_url": "http://tasks.example.com/reset"}, "RESET_URL is not https"),
        ({"verify_url": "http://tasks.example.com/verify"}, "VERIFY_URL is not https"),
    ],
)
def test_mail_that_is_unsafe_or_refused(app: Run, settings: dict[str, str], fault: str) -> None:
    [found] = faults(app, **GOOD, **settings)

    assert found.startswith(fault)


def test_mail_that_is_safe(app: Run) -> None:
    mail = {"mail_from": "Tasks <tasks@example.com>", "reset_url": "https://tasks.example.com/reset"}

    for url in "smtps://mail.example.com", "smtp://ada:secret@mail.example.com", "smtp://localhost", "smtp://10.0.0.7":
        assert faults(app, **GOOD, **mail, smtp_url=url) == []
    assert faults(app, **LOCAL, mail_from="tasks@localhost", reset_url="http://localhost/reset") == []
