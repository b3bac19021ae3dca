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
        writer.transport.abort()

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


def hand_to(url: URL, gate: asyncio.Event | None = None, edit: Callable[[bytes], bytes] = bytes) -> Handle:
    """Hand what comes to a server by its socket, once the gate is open. Its answers may be edited."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if gate:
            await gate.wait()
        theirs, to_them = await asyncio.open_unix_connection(f"{url.query['host']}/.s.PGSQL.5432")
        answers = asyncio.create_task(copy(theirs, writer, edit))
        await copy(reader, to_them, bytes)
        to_them.transport.abort()
        await answers

    return handle


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
