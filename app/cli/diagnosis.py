"""The doctor finds faults of an installation, and says what to do about them."""

import stat
from collections.abc import AsyncIterator, Iterator
from email.utils import parseaddr
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import fastapi
from sqlalchemy import Connection, bindparam, select

from app.auth.keys import key_pairs, load_tokens, secret_file
from app.auth.models import User
from app.auth.passwords import is_weak
from app.cli.faults import Fault
from app.cli.postgresql_diagnosis import REMEDIES, examine_postgresql
from app.cli.run import is_database_gone, is_secret_gone, with_database
from app.cli.serve import is_in_clear
from app.clock import Clock
from app.config import Settings, read_settings, setting_files, unknown_names
from app.db.connect import connect
from app.db.database import Database
from app.db.errors import DatabaseUnavailable
from app.db.migrations import PATIENCE, SchemaUnknown, SeveralHeads, is_ahead, is_usable
from app.db.replica import connect_standby, find_fault
from app.db.sqlite_file import check_pages
from app.db.types import NO_ID
from app.errors import BadSettings
from app.http.fastapi_internals import IS_KNOWN
from app.tasks.search import has_unindexed

MOUNTS = Path("/proc/mounts")
NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"}
MAX_PUBLIC_ADDRESSES = 256  # that one proxy may have
SHORTEST_PREFIX = {4: 8, 6: 7}  # of the largest private networks
IPV4_MAPPED = ip_network("::ffff:0:0/96")
SELECT_HASHES = (
    select(User.id, User.username, User.password_hash)
    .where(User.id > bindparam("after_id"), User.is_active)
    .order_by(User.id)
    .limit(1000)
)


def diagnose(clock: Clock, processes: int = 1) -> list[Fault]:
    """Examine the libraries, the settings, the files that they name, and the database."""
    try:
        settings = read_settings()
    except BadSettings as error:
        return [Fault(message, "Fix this: the service does not start until then.") for message in error.args]
    return [
        *_examine_settings(settings),
        *_examine_files(settings),
        *_examine_database(settings, clock, processes),
    ]


def _examine_settings(settings: Settings) -> Iterator[Fault]:
    host = urlsplit(settings.public_url).hostname or ""
    if not IS_KNOWN:
        yield Fault(
            f"This version of FastAPI is not known ({fastapi.__version__}): requests take longer, and unknown query "
            "parameters are not refused.",
            "Install an older FastAPI, or a newer version of this service.",
        )
    if is_in_clear(settings.public_url):
        yield Fault(
            "PUBLIC_URL is not https: passwords and tokens cross the network in clear.",
            "Put a proxy with a certificate in front, and set PUBLIC_URL to the address that clients use.",
        )
    if settings.secret_key is not None and settings.secret_key == settings.secret_key_previous:
        yield Fault("SECRET_KEY_PREVIOUS is SECRET_KEY.", "Remove it, or set it to the secret before the present one.")
    if "*" in settings.cors_origins:
        yield Fault(
            "CORS_ORIGINS lets the pages of every origin call the service.",
            "Name the origins of your own pages: https://app.example.com",
        )
    if not _is_private(host) and settings.registration == "open" and "registration" not in settings.model_fields_set:
        yield Fault(
            "Anybody who reaches PUBLIC_URL can make an account.",
            "Set REGISTRATION=closed. If that is what you want, set REGISTRATION=open.",
        )
    if settings.allowed_hosts and host not in [allowed.strip("[]") for allowed in settings.allowed_hosts]:
        yield Fault("ALLOWED_HOSTS lacks the host of PUBLIC_URL: the service answers nobody there.", f"Add {host}.")
    if settings.public_url.startswith("https://") and not settings.trusted_proxies:
        yield Fault(
            "TRUSTED_PROXIES does not name the proxy: the throttle counts all clients as one.",
            "Set it to the address of the proxy, as this host sees it.",
        )
    yield from _examine_mail(settings, host)
    for network in map(ip_network, settings.trusted_proxies):
        is_large = network.prefixlen < SHORTEST_PREFIX[network.version] or network.overlaps(IPV4_MAPPED)
        if is_large or (not network.is_private and network.num_addresses > MAX_PUBLIC_ADDRESSES):
            yield Fault(
                f"TRUSTED_PROXIES trusts {network.num_addresses:,} addresses: each can pretend to be any client.",
                "Name the addresses of your proxies.",
            )


def _examine_mail(settings: Settings, host: str) -> Iterator[Fault]:
    server = urlsplit(settings.smtp_url.get_secret_value() if settings.smtp_url else "")
    if server.scheme == "smtp" and not server.password and not _is_private(server.hostname or ""):
        yield Fault(
            "SMTP_URL does not insist on TLS: mails with tokens may cross the network in clear.",
            "Use smtps://, or give a user and a password: then TLS is required.",
        )
    domain = parseaddr(settings.mail_from or "")[1].rpartition("@")[2]
    if domain and _is_private(domain) and not _is_private(host):
        yield Fault(f"MAIL_FROM is at {domain}, a name that other mail servers refuse.", "Use a domain of yours.")
    for name, url in ("RESET_URL", settings.reset_url), ("VERIFY_URL", settings.verify_url):
        if url and is_in_clear(url):
            yield Fault(f"{name} is not https: tokens could be stolen from that page.", "Use https.")


def _is_private(host: str) -> bool:
    """Whether the name is known only on this host or in its own network."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".localhost", ".local", ".internal"))


def _examine_files(settings: Settings) -> Iterator[Fault]:
    for message in unknown_names():
        yield Fault(message, "Correct the name, or remove the line: the service ignores it.")
    file = Path(settings.database.database or "") if settings.database.drivername == "sqlite" else None
    for path in filter(None, [*setting_files(), file]):
        if path.is_file() and path.stat().st_mode & stat.S_IRWXO:
            yield Fault(f"{path} is open to every user of this host.", f"chmod o= {path}")
    try:
        if settings.secret_key or secret_file(settings).exists():
            load_tokens(settings)
        else:  # load_tokens would make a secret
            key_pairs(settings.jwt_private_key_file)
    except BadSettings as error:
        yield Fault(f"{error}.", "Fix this: the service does not start until then.")
    if file and _file_system(file.resolve()) in NETWORKED:
        yield Fault(
            f"{file} is on a network file system, where several hosts would damage it.",
            "Keep SQLite's file on a disk of this host, or use PostgreSQL.",
        )


def _file_system(path: Path) -> str:
    """Return the kind of file system that a path is on, or an empty text if the host does not say."""
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()] if MOUNTS.exists() else []
    around = [(len(where), kind) for where, kind in mounts if path.is_relative_to(where)]
    return max(around, default=(0, ""))[1]


def _examine_database(settings: Settings, clock: Clock, processes: int) -> list[Fault]:
    if settings.database.drivername == "sqlite" and not Path(settings.database.database or "").exists():
        if is_database_gone(settings):
            lost = f"{settings.database.database} is gone, though its secret is there."
            return [Fault(lost, "Put it back, or restore a backup. Otherwise the service makes an empty database.")]
        return []  # to open the file would make it

    async def look(database: Database) -> list[Fault]:
        try:
            await database.check_writable()
            if database.dialect == "sqlite":
                async with connect(settings.database, PATIENCE) as patient:
                    await patient.read(check_pages)
                of_database = []
            else:
                of_database = [fault async for fault in examine_postgresql(database, settings, clock, processes)]
            return [
                *of_database,
                *[fault async for fault in _examine_rows(database, settings)],
                *[fault async for fault in _examine_replica(database, settings)],
            ]
        except DatabaseUnavailable as error:
            usual = "Check that it runs, and that DATABASE_URL is right."
            if database.dialect == "sqlite":
                usual = "The service answers 503 until that is mended."
            return [Fault(f"{error}.", REMEDIES.get(type(error), usual))]
        except SeveralHeads as error:
            return [Fault(f"{error.detail}.", "Then run python -m app migrate.")]
        except SchemaUnknown as error:
            return [Fault(f"{error.detail}.", "If the database is another program's, set DATABASE_URL to your own.")]

    return with_database(settings, look, migrates=False)


async def _examine_rows(database: Database, settings: Settings) -> AsyncIterator[Fault]:
    if not await database.read(is_usable):
        yield Fault("The database's schema is not this version's.", "python -m app migrate")
        return
    if await database.read(is_ahead):
        yield Fault(
            "The database's schema is newer than this version. This version works with it.",
            "Upgrade this host too. If you have gone back to this version on purpose, leave it so.",
        )
    if await is_secret_gone(database, settings):
        yield Fault(
            f"{secret_file(settings)} is gone: the service would make a new one, and end every session.",
            "Put it back, from the backup of the database.",
        )
    if await database.read(has_unindexed):
        yield Fault("Searches do not find every task: an older version wrote some of them.", "python -m app migrate")
    if names := sorted(await database.read(_weakly_hashed)):
        some = ", ".join(names[:3]) + (", …" if names[3:] else "")
        yield Fault(
            f"{len(names)} passwords are hashed more weakly than today's: {some}.",
            "The next login fixes it. For users who do not log in: python -m app users set-password, or disable.",
        )


async def _examine_replica(database: Database, settings: Settings) -> AsyncIterator[Fault]:
    if settings.database_replica is None:
        return
    async with connect_standby(settings.database_replica, settings.pool_size) as standby:
        try:
            fault = await find_fault(database, standby)
        except DatabaseUnavailable as error:
            fault = f"cannot be read: {error}"
    if fault:
        yield Fault(f"The server of DATABASE_REPLICA_URL {fault}.", "Until that is mended, the primary does its work.")


def _weakly_hashed(connection: Connection) -> list[str]:
    """Return the names of the users whose passwords are hashed weakly. A read looks at a part of the users."""
    names: list[str] = []
    after_id = NO_ID
    while users := connection.execute(SELECT_HASHES, {"after_id": after_id}).all():
        names += [user.username for user in users if is_weak(user.password_hash)]
        after_id = users[-1].id
    return names
