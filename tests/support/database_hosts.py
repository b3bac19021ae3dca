"""Hosts of a database, as sockets of this process: some serve, others are silent, or close what they accept."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import URL

SSL_REQUEST = 8  # bytes: PostgreSQL's manual, 53.7
READY_FOR_QUERY = b"Z\0\0\0\5I"

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Place:
    """A port of this host where something listens."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.accepted = asyncio.Semaphore(0)
        """Released for each connection."""
        self.met = 0


@asynccontextmanager
async def listening(
    handle: Handle, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Place]:
    """Listen until the end of the block, which waits until every client has left."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place.met += 1
        place.accepted.release()
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(accept(reader, writer)))

    server = await asyncio.start_server(start, host, port, ssl=tls)
    place = Place(server.sockets[0].getsockname()[1])
    yield place
    server.close()
    await asyncio.gather(*tasks)


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def close_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    pass


def hand_to(
    url: URL,
    gate: asyncio.Event | None = None,
    edit: Callable[[bytes], bytes] = bytes,
    is_lost: Callable[[], bool] = bool,
) -> Handle:
    """Hand what comes to a server by its socket, once the gate is open. Answers may be edited, and all may be lost."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if gate:
            await gate.wait()
        theirs, to_them = await asyncio.open_unix_connection(f"{url.query['host']}/.s.PGSQL.5432")
        ways = [
            asyncio.create_task(copy(reader, to_them, lambda asked: b"" if is_lost() else asked)),
            asyncio.create_task(copy(theirs, writer, lambda answer: b"" if is_lost() else edit(answer))),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        to_them.close()
        writer.close()
        await asyncio.wait(ways)

    return handle


def greet(url: URL) -> Handle:
    """Hand over what a client and a server say until the server is ready for a query, and close then."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_them = await asyncio.open_unix_connection(f"{url.query['host']}/.s.PGSQL.5432")
        to_them.write(await reader.read(65_536))
        writer.write(await theirs.readuntil(READY_FOR_QUERY))
        to_them.close()

    return handle


class Lines:
    """Hands what comes to a server. Lines may be cut, or lose all that is sent on them from then on."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._writers: list[asyncio.StreamWriter] = []
        self._lost = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self._writers)
        self._writers.append(writer)
        await hand_to(self._url, is_lost=lambda: number < self._lost)(reader, writer)

    def lose_all(self) -> None:
        self._lost = len(self._writers)

    def cut(self, number: int) -> None:
        self._writers[number].transport.abort()


def after_starttls(handle: Handle, tls: ssl.SSLContext) -> Handle:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(SSL_REQUEST)
        writer.write(b"S")
        await writer.start_tls(tls)
        await handle(reader, writer)

    return upgrade


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edit: Callable[[bytes], bytes]) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(edit(data))
            await writer.drain()


def certificate(name: str, folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate that vouches for itself. Return its file, and the server's side of TLS."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, both = folder / "root.crt", folder / "server.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind) + file.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    context.set_alpn_protocols(["postgresql"])
    return file, context
