"""A real SMTP server (RFC 5321) on this host, which keeps what it takes."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.message import EmailMessage
from email.parser import Parser
from email.policy import SMTPUTF8
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from socket import create_connection
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.clock import utc_now
from tests.support.processes import free_port, wait_for

USER, PASSWORD = "ada@relay", "p@ss/word:é"


class Letter(NamedTuple):
    """A mail as the server took it: its envelope, its message, and whether it came by TLS."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw: bytes
    is_encrypted: bool

    def token(self) -> str:
        """The token that the mail brings."""
        [token] = re.findall(r"^(eyJ\S+)\s*$", self.message.get_content(), re.MULTILINE)
        return str(token)


class MailServer:
    """Keeps the mails. It refuses recipients while `refusal` is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.letters: list[Letter] = []
        self.connections = 0
        self.refusal: str | None = None
        self.refused = 0

    def url(self, scheme: str = "smtp", credentials: str = "") -> str:
        return f"{scheme}://{credentials}127.0.0.1:{self.port}"

    def take(self, count: int = 1) -> list[Letter]:
        """Wait for that many letters, and take them."""
        wait_for(lambda: len(self.letters) >= count)
        taken, self.letters = self.letters, []
        return taken

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _: SMTP, session: Session, __: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_RCPT(  # noqa: N802
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        if self.refusal:
            self.refused += 1
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = envelope.content
        assert isinstance(raw, bytes)
        message = Parser(policy=SMTPUTF8).parsestr(raw.decode())
        assert isinstance(message, EmailMessage)
        assert server.transport is not None
        is_encrypted = server.transport.get_extra_info("sslcontext") is not None
        self.letters.append(Letter(envelope.mail_from or "", envelope.rcpt_tos, message, raw, is_encrypted))
        return "250 OK"


class Implicit(Controller):
    """TLS from the start. Its look at itself needs no handshake."""

    def _trigger_server(self) -> None:
        create_connection((self.hostname, self.port)).close()


@contextmanager
def mail_server(*, smtps: bool = False, port: int | None = None, **options: Any) -> Iterator[MailServer]:
    """Run a server. `options` are those of aiosmtpd: `tls_context`, `require_starttls`, `authenticator`, …"""
    box = MailServer(port or free_port())
    kind = Implicit if smtps else Controller
    if smtps:
        options["ssl_context"] = server_context()
    controller = kind(box, hostname="127.0.0.1", port=box.port, server_hostname="mail.test", **options)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def authenticate(*args: Any) -> AuthResult:
    """Take the one user's password."""
    data = args[-1]
    is_right = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


class Certificate(NamedTuple):
    """PEM files of a certificate for this host, and its key."""

    certificate: Path
    key: Path


@cache
def _pair() -> tuple[bytes, bytes]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = utc_now()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private


def certificate() -> Certificate:
    """Write the files into the working directory."""
    files = Certificate(Path("mail.pem").absolute(), Path("mail.key").absolute())
    for path, text in zip(files, _pair(), strict=True):
        path.write_bytes(text)
    return files


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate())
    return context
