"""URLs of PostgreSQL: the servers that they name, and the parameters that are taken, dropped or refused."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import SLUG
from app.config import Settings
from app.db.libpq import DROPPED, KNOWN, NOT_SUPPORTED, Servers
from app.db.url import dropped_parameters
from tests.conftest import SECRET
from tests.support.command_line import run
from tests.support.readme import DEPLOY, blocks, section

PLAIN = "postgresql://ada:l0velace@db.example/tasks"


def servers(url: str) -> Servers:
    return Servers.of(Settings(database_url=url, secret_key=SECRET).database)


def refusal(url: str) -> str:
    with pytest.raises(ValidationError) as caught:
        servers(url)
    (fault,) = caught.value.errors()
    return fault["msg"]


@pytest.mark.parametrize(
    ("rest", "hosts"),
    [
        ("/tasks", ["this host:5432"]),
        (":5433/tasks", ["this host:5433"]),
        ("a/tasks", ["a:5432"]),
        ("a:5433/tasks", ["a:5433"]),
        ("a:/tasks", ["a:5432"]),
        ("a", ["a:5432"]),
        ("a,b/tasks", ["a:5432", "b:5432"]),
        ("a:5433,b:5434/tasks", ["a:5433", "b:5434"]),
        ("a:5433,b/tasks", ["a:5433", "b:5432"]),
        ("127.0.0.1,[::1]:5433,[::2]/tasks", ["127.0.0.1:5432", "[::1]:5433", "[::2]:5432"]),
        ("%2Ftmp,b/tasks", ["/tmp:5432", "b:5432"]),
        ("/tasks?host=a,b&port=5433,5434", ["a:5433", "b:5434"]),
        ("/tasks?host=a,b&port=5433", ["a:5433", "b:5433"]),
        ("/tasks?host=a:5433,b:5434", ["a:5433", "b:5434"]),
        ("/tasks?host=a:5433&host=b:5434", ["a:5433", "b:5434"]),
        ("/tasks?host=%2Ftmp%2Fa..b", ["/tmp/a..b:5432"]),
        ("/tasks?host=/tmp,::1&port=5433", ["/tmp:5433", "[::1]:5433"]),
        ("/tasks?host=&port=", ["this host:5432"]),
        ("a:1,b:2/tasks?port=5433", ["a:5433", "b:5433"]),
        ("a/tasks?host=b", ["b:5432"]),
        ("/tasks?hostaddr=10.0.0.1,10.0.0.2", ["10.0.0.1:5432", "10.0.0.2:5432"]),
        ("a,b/tasks?hostaddr=10.0.0.1,::1", ["a:5432", "b:5432"]),
    ],
)
@pytest.mark.parametrize("start", ["postgresql://ada:l0velace@", "postgres://"])
def test_the_hosts_of_a_url(start: str, rest: str, hosts: list[str]) -> None:
    assert [str(host) for host in servers(start + rest).hosts] == hosts


def test_an_address_takes_the_place_of_a_look_up() -> None:
    (host,) = servers(f"{PLAIN}?hostaddr=10.0.0.1").hosts

    assert host == ("db.example", None, "10.0.0.1")


@pytest.mark.parametrize(
    ("url", "account"),
    [
        (PLAIN, ("ada", "l0velace", "tasks")),
        ("postgresql://", (None, None, None)),
        ("postgresql://ada@db.example", ("ada", None, None)),
        ("postgresql://ada%40org:l%40v%2Fe%3F%25@db.example/my%20tasks", ("ada@org", "l@v/e?%", "my tasks")),
        ("postgresql://ada@org:l@ve?#@db.example/tasks", ("ada@org", "l@ve?#", "tasks")),
        ("postgresql://ada:l+ve@db.example/tasks", ("ada", "l+ve", "tasks")),
        (f"{PLAIN}?user=bob&password=b%2Bb+b&dbname=other", ("bob", "b+b+b", "other")),
    ],
)
def test_the_account_of_a_url(url: str, account: tuple[str | None, ...]) -> None:
    assert tuple(servers(url).account.values()) == account


def test_the_parameters_of_a_url(tmp_path: Path) -> None:
    pem = tmp_path / "root.crt"
    pem.touch()
    found = servers(
        f"{PLAIN}?sslmode=verify-full&sslrootcert={pem}&target_session_attrs=primary&options=-c%20a%3Db+c&options=-cd%3De"
        "&application_name=one&fallback_application_name=other&keepalives_idle=7&tcp_user_timeout=8000&krbsrvname="
    )

    assert found.driver == {"sslmode": "verify-full", "sslrootcert": str(pem)}
    assert found.target == "primary"
    assert found.settings == {"application_name": "one", "options": "-cd=e"}
    assert found.sockets == {"keepalives_idle": 7, "tcp_user_timeout": 8000}
    assert found.dropped == ()


def test_a_plain_url_wants_the_primary_and_names_the_service() -> None:
    found = servers(PLAIN)

    assert (found.target, found.settings, found.driver) == ("read-write", {"application_name": SLUG}, {})
    assert servers(f"{PLAIN}?fallback_application_name=other").settings == {"application_name": "other"}
    assert servers(f"{PLAIN}?ssl=true").driver == {"sslmode": "require"}


def test_certificates_of_this_host_verify_the_servers_name() -> None:
    found = servers(f"{PLAIN}?sslrootcert=system&sslnegotiation=direct")

    assert (found.verifies_by_system, found.driver) == (True, {"sslnegotiation": "direct"})
    assert servers(f"{PLAIN}?sslrootcert=system&sslmode=verify-full").verifies_by_system
    assert "sslmode must be verify-full" in refusal(f"{PLAIN}?sslrootcert=system&sslmode=require")
    assert "sslpassword is not supported" in refusal(f"{PLAIN}?sslrootcert=system&sslpassword=canary")


HARMLESS = {
    "channel_binding": "require",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "gssdelegation": "0",
    "gssencmode": "disable",
    "load_balance_hosts": "random",
    "max_protocol_version": "latest",
    "min_protocol_version": "3.0",
    "replication": "false",
    "sslcertmode": "allow",
    "sslcompression": "0",
    "sslkeylogfile": "keys",
    "sslsni": "1",
}


@pytest.mark.parametrize(("name", "value"), HARMLESS.items())
def test_a_harmless_parameter_is_dropped_with_a_warning(name: str, value: str) -> None:
    settings = Settings(database_url=f"{PLAIN}?sslmode=require&{name}={value}", secret_key=SECRET)

    hint = "; sslmode=verify-full makes sure of the server" if name == "channel_binding" else ""
    message = f"DATABASE_URL: {name} has no effect, because the driver does not know it{hint}"
    assert dropped_parameters("DATABASE_URL", settings.database) == [message]
    assert Servers.of(settings.database).settings == {"application_name": SLUG}


def test_every_parameter_that_is_dropped_has_an_example() -> None:
    assert HARMLESS.keys() == DROPPED.keys()


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        *(
            (f"{name}=canary", f"{name} is not supported: the driver does not know it")
            for name in sorted(NOT_SUPPORTED)
        ),
        ("gssencmode=require", "gssencmode has a value that"),
        ("replication=database", "replication has a value that"),
        ("client_encoding=latin1", "client_encoding has a value that"),
        ("sslmode=canary", "sslmode has a value that"),
        ("target_session_attrs=canary", "target_session_attrs has a value that"),
        ("keepalives_idle=canary", "keepalives_idle has a value that"),
        ("sslrootcert=canary", "sslrootcert names a file that does not exist"),
        ("sslkey=canary", "sslkey names a file that does not exist"),
        (
            "schema=canary",
            "schema is not a parameter of PostgreSQL's URLs: a setting of the server is written options=",
        ),
        ("pgbouncer=true", "pgbouncer is not a parameter"),
        ("password=l0velace&canary", "each parameter must be NAME=VALUE"),
        ("connection_limit=5", "connection_limit is not a parameter"),
        ("search_path=canary", "search_path is not a parameter"),
        ("statement_timeout=1", "statement_timeout is not a parameter"),
        ("sslmod=canary", "sslmod is not a parameter of PostgreSQL's URLs: did you mean sslmode?"),
        ("%0Acanary%20=canary", "one of the parameters is not a parameter"),
        ("hostaddr=canary", "hostaddr must be an IP address"),
        ("hostaddr=10.0.0.1,10.0.0.2", "must have as many ports as hosts"),
        ("port=5432,5433", "must have as many ports as hosts"),
        ("port=99999", "a port must be a number from 1 to 65535"),
        ("port=0", "a port must be a number from 1 to 65535"),
        ("host=a,,canary", "one of several hosts has no name"),
        ("host=canary..example", "a host must be a name"),
        ("host=[canary", "a host must be a name"),
        ("application_name=canary%00", "must be postgresql://"),
    ],
)
def test_any_other_parameter_is_refused_without_its_value(parameter: str, reason: str) -> None:
    result = run("migrate", database_url=f"{PLAIN}?{parameter}", secret_key=SECRET)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: DATABASE_URL: {reason}")
    assert result.stderr.count("\n") == 1
    assert "canary" not in result.stderr
    assert "l0velace" not in result.stderr


@pytest.mark.parametrize("password", ["1/ca?nary=1", "1/canary", "x/ca?nary"])
def test_a_password_that_is_not_encoded_is_not_repeated(password: str) -> None:
    said = refusal(f"postgresql://ada:{password}@db.example/tasks")

    assert not any(part in said for part in ("nary", "canary"))


def test_the_readme_has_a_url_with_several_hosts() -> None:
    [line] = blocks("ini", "High availability", DEPLOY)
    found = servers(line.partition("=")[2].strip())

    assert [str(host) for host in found.hosts] == ["db1.example.com:5432", "db2.example.com:5433"]
    assert found.target == "read-write"
    text = section("High availability", DEPLOY)
    assert {name for name in KNOWN if f"`{name}`" in text} >= {"connect_timeout", "channel_binding", "tcp_user_timeout"}
    assert servers(f"{PLAIN}?{re.findall('`(options=.*?)`', text)[0]}").settings["options"] == "-csearch_path=tasks"
