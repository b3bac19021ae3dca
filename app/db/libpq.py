"""URLs of PostgreSQL, as libpq reads them: https://www.postgresql.org/docs/18/libpq-connect.html, 32.1.

Some parameters are for the driver, some are translated, some are dropped with a warning. All others are refused: the
driver would send them to the server as settings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote

from sqlalchemy import URL

from app import SLUG

URI = re.compile(
    r"postgres(?:ql)?://(?:(?P<username>[^:/]*)(?::(?P<password>[^/]*))?@)?(?P<hosts>[^/?]*)"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::(.*))?", re.DOTALL)
MAX_PORT = 65_535
NOT_A_HOST = "a host must be a name, an IP address, or the folder of a socket"
NOT_A_URL = "must be postgresql://USER:PASSWORD@HOST:PORT/NAME"
NOT_ENCODED = "a / or ? in the user's name or the password must be written %2F or %3F"
ANY = ".*"
FLAG = "[01]"
NUMBER = r"\d{1,6}"
PLACES = {"host": ANY, "hostaddr": ANY, "port": ANY, "user": ANY, "password": ANY, "dbname": ANY}
FOR_DRIVER = {
    "gsslib": "gssapi|sspi",
    "krbsrvname": ANY,
    "passfile": ANY,
    "service": ANY,
    "ssl_max_protocol_version": r"TLSv1(\.[123])?",
    "ssl_min_protocol_version": r"TLSv1(\.[123])?",
    "sslcert": ANY,
    "sslcrl": ANY,
    "sslkey": ANY,
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "sslnegotiation": "postgres|direct",
    "sslpassword": ANY,
    "sslrootcert": ANY,
}
FILES = {"sslcert", "sslcrl", "sslkey", "sslrootcert"}
TRANSLATED = {
    "application_name": ANY,
    "fallback_application_name": ANY,
    "keepalives": FLAG,
    "keepalives_count": NUMBER,
    "keepalives_idle": NUMBER,
    "keepalives_interval": NUMBER,
    "options": ANY,
    "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
    "tcp_user_timeout": r"\d{1,9}",
}
DROPPED = {
    "channel_binding": "disable|prefer|require",
    "client_encoding": "(?i:auto|utf-?8|unicode)",
    "connect_timeout": r"-?\d{1,9}",
    "gssdelegation": FLAG,
    "gssencmode": "disable|prefer",
    "load_balance_hosts": "disable|random",
    "max_protocol_version": r"latest|3\.[02]",
    "min_protocol_version": r"3\.0",
    "replication": "(?i:false|off|no|0)",
    "sslcertmode": "allow",
    "sslcompression": FLAG,
    "sslkeylogfile": ANY,
    "sslsni": FLAG,
}
"""Parameters that the driver lacks. The service can do without them if they have one of these values."""

KNOWN = PLACES | FOR_DRIVER | TRANSLATED | DROPPED
NOT_SUPPORTED = {
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "sslcrldir",
}
"""Parameters of libpq that the driver does not have, and without which a connection would fail or be less safe."""


class Host(NamedTuple):
    """A server. Without a name it is where the driver looks by default: PGHOST, a service, or this host's sockets."""

    name: str | None
    port: int | None
    address: str | None
    """libpq's `hostaddr`: the name is not looked up."""

    def __str__(self) -> str:
        name = self.name or self.address or "this host"
        return f"{f'[{name}]' if is_address(name) and ':' in name else name}:{self.port or 5432}"


class Servers(NamedTuple):
    """The servers of a URL, and how to connect to them."""

    hosts: tuple[Host, ...]
    target: str
    """libpq's `target_session_attrs`."""
    account: dict[str, str | None]
    driver: dict[str, str]
    """The parameters that the driver reads in a URL."""
    verifies_by_system: bool
    """Whether the certificates of this host verify the server's, as `sslrootcert=system` asks for."""
    settings: dict[str, str]
    sockets: dict[str, int]
    dropped: tuple[str, ...]

    @classmethod
    def of(cls, url: URL) -> Self:
        """Raises ValueError, which names a parameter and never its value."""
        given = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
        for name, value in given.items():
            _check(name, value)
        verifies_by_system = given.get("sslrootcert") == "system"
        if verifies_by_system:
            _check_system_certificates(given)
        settings = {"application_name": given.get("fallback_application_name", SLUG)}
        return cls(
            hosts=tuple(_hosts(given, url)),
            target=given.get("target_session_attrs", "read-write"),
            account={
                "user": given.get("user", url.username),
                "password": given.get("password", url.password),
                "database": given.get("dbname", url.database),
            },
            driver={name: given[name] for name in FOR_DRIVER if name in given},
            verifies_by_system=verifies_by_system,
            settings=settings | {name: given[name] for name in ("application_name", "options") if name in given},
            sockets={name: int(given[name]) for name in given if name.startswith(("keepalives", "tcp_"))},
            dropped=tuple(name for name in DROPPED if name in given),
        )


def parse(text: str) -> URL:
    """Read a URL as libpq does, and several `host=` as SQLAlchemy does. The last of other equal parameters counts.

    Raises ValueError, without the URL, which may have a password.
    """
    match = URI.fullmatch(text)
    if not match or "\0" in unquote(text):
        raise ValueError(NOT_A_URL)
    if match["username"] is None and "@" in (match["database"] or ""):
        raise ValueError(NOT_ENCODED)
    username, password, database, hosts = (
        unquote(match[part] or "") or None for part in ("username", "password", "database", "hosts")
    )
    query: dict[str, Sequence[str]] = {}
    pairs = [pair.partition("=") for pair in (match["query"] or "").split("&") if pair]
    for name, _, value in pairs:
        if name == "host":
            query["host"] = [*query.get("host", []), unquote(value)]
        elif (name, value) == ("ssl", "true"):  # JDBC's, which libpq knows too
            query["sslmode"] = "require"
        elif value or name not in KNOWN:
            query[unquote(name)] = unquote(value)
    if not any(query.get("host", [])):
        query["host"] = [hosts or ""]
    url = URL.create("postgresql", username, password, database=database, query=query)
    try:
        _check_pairs(pairs)
        Servers.of(url)
    except ValueError as error:
        if "@" in text[match.end("hosts") :]:  # a part of the password may follow
            raise ValueError(NOT_ENCODED) from None
        raise error from None
    return url


def _check_pairs(pairs: Iterable[tuple[str, str, str]]) -> None:
    """Refuse a text that is no parameter: it may be a part of a password with a &."""
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("each parameter must be NAME=VALUE, and a & in a value must be written %26")


def _check(name: str, value: str) -> None:
    if name in NOT_SUPPORTED:
        raise ValueError(f"{name} is not supported: the driver does not know it, and to leave it out would be unsafe")
    if name not in KNOWN:
        shown = name if re.fullmatch(r"\w{1,63}", name, re.ASCII) else "one of the parameters"
        near = get_close_matches(name, KNOWN, 1, 0.8)
        hint = f"did you mean {near[0]}?" if near else "a setting of the server is written options=-c%20NAME%3DVALUE"
        raise ValueError(f"{shown} is not a parameter of PostgreSQL's URLs: {hint}")
    if not re.fullmatch(KNOWN[name], value, re.DOTALL):
        raise ValueError(f"{name} has a value that libpq does not know, or that the driver cannot comply with")
    if name in FILES and (name, value) != ("sslrootcert", "system") and not Path(value).is_file():
        raise ValueError(f"{name} names a file that does not exist")


def _check_system_certificates(given: dict[str, str]) -> None:
    """Remove what asks for the certificates of this host: the driver is told in another way, and takes no files."""
    del given["sslrootcert"]
    if given.pop("sslmode", "verify-full") != "verify-full":
        raise ValueError("sslmode must be verify-full where sslrootcert is system")
    others = given.keys() & {name for name in FOR_DRIVER if name.startswith("ssl")}
    for name in sorted(others - {"sslnegotiation"}):
        raise ValueError(f"{name} is not supported where sslrootcert is system")


def _hosts(given: Mapping[str, str], url: URL) -> Iterator[Host]:
    addresses = given["hostaddr"].split(",") if "hostaddr" in given else []
    texts = (given.get("host") or url.host or "," * (len(addresses) - 1)).split(",")
    ports = given.get("port", str(url.port or "")).split(",")
    if len(addresses) not in {0, len(texts)} or len(ports) not in {1, len(texts)}:
        raise ValueError("must have as many ports as hosts, or one, and as many addresses in hostaddr as hosts")
    addresses, ports = addresses or [""] * len(texts), ports * (len(texts) // len(ports))
    for text, address, given_port in zip(texts, addresses, ports, strict=True):
        name, own_port = _split(text)
        port = given_port or own_port
        if port and not (re.fullmatch(r"\d{1,5}", port, re.ASCII) and 0 < int(port) <= MAX_PORT):
            raise ValueError("a port must be a number from 1 to 65535")
        if len(texts) > 1 and not (name or address):
            raise ValueError("one of several hosts has no name")
        try:
            _ = name if name.startswith("/") else name.encode("idna")
        except UnicodeError:
            raise ValueError(NOT_A_HOST) from None
        if address and not is_address(address):
            raise ValueError("hostaddr must be an IP address")
        is_overridden = address and name.startswith("/")  # a socket, which is no name that TLS could verify
        yield Host(None if is_overridden else name or None, int(port) if port else None, address or None)


def _split(host: str) -> tuple[str, str]:
    """Split a host into its name and its port, where it has one. An IPv6 address may have brackets."""
    if host.startswith("/") or is_address(host):
        return host, ""
    match = HOST.fullmatch(host)
    if not match:
        raise ValueError(NOT_A_HOST)
    return match[1] or match[2], match[3] or ""


def is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
