"""Mails leave by a real SMTP server, as the settings say."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import aiosmtplib
import pytest

from app.config import Settings
from app.mail.outbox import Outbox, cause
from app.mail.smtp import SMTPServer, open_outbox
from app.mail.templates import Mail, Notice, notice, password_reset, verification
from tests.support.mail_hook import HOOK, mails
from tests.support.mail_server import PASSWORD, USER, authenticate, certificate, mail_server, server_context
from tests.support.processes import free_port

SENDER = "Tasks <tasks@example.com>"
TOKEN = "T" * 900
TO_ADA = verification("ada@example.com", "ada", TOKEN, "https://tasks.example.com/verify")
TWO_LINES = "ada@example.com\r\nBcc: eve@example.com"
CREDENTIALS = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"


def send(url: str, mail: Mail = TO_ADA, sender: str = SENDER) -> None:
    asyncio.run(SMTPServer(url, sender)(mail))


def refusal(url: str, mail: Mail = TO_ADA) -> str:
    """The class and code of the error that sending raises."""
    with pytest.raises((aiosmtplib.SMTPException, OSError, ValueError)) as caught:
        send(url, mail)
    return cause(caught.value)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """A loop that ends does not wait until the other side has taken leave of a TLS connection."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of a server that offers STARTTLS. This process trusts its certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate().certificate))
    return {"tls_context": server_context()}


def test_a_mail_arrives_as_plain_text_with_its_link_on_one_line() -> None:
    with mail_server() as server:
        send(server.url())
        [letter] = server.take()

    assert (letter.sender, letter.recipients, letter.is_encrypted) == ("tasks@example.com", ["ada@example.com"], False)
    message = letter.message
    assert message["From"] == SENDER
    assert message["To"] == "ada@example.com"
    assert message["Subject"] == "Bearer Tasks: confirm your address"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"].datetime is not None
    assert message.get_content_type() == "text/plain"
    assert f"\r\nhttps://tasks.example.com/verify#{TOKEN}\r\n".encode() in letter.raw
    assert message.get_content().splitlines() == TO_ADA.text.splitlines()


def test_a_mail_without_a_url_has_the_token_itself() -> None:
    mail = password_reset("ada@example.com", "ada", TOKEN, None)

    assert f"\n\n{TOKEN}\n\n" in mail.text
    assert "POST /users/reset-password" in mail.text
    assert mail.token == TOKEN


@pytest.mark.rfc("6531", "3.3")
def test_an_address_in_any_script_is_written_to() -> None:
    """A domain travels in ASCII (RFC 5891). A local part needs a server with SMTPUTF8."""
    mail = notice("ädä@exämple.com", "ada", Notice.PASSWORD_CHANGED)._replace(subject="Aufgäben: geändert")
    with mail_server() as server:
        send(server.url(), mail, "Aufgäben <tasks@exämple.com>")
        send(server.url(), mail._replace(to="ada@straße.example"))
        other, plain = server.take(2)
    with mail_server(enable_SMTPUTF8=False) as server:
        assert refusal(server.url(), mail) == "SMTPNotSupported"

    assert (other.sender, other.recipients) == ("tasks@xn--exmple-cua.com", ["ädä@xn--exmple-cua.com"])
    assert other.message["Subject"] == plain.message["Subject"] == "Aufgäben: geändert"
    assert other.message["From"].addresses[0].display_name == "Aufgäben"
    assert plain.recipients == ["ada@xn--strae-oqa.example"]
    assert plain.raw.partition(b"\r\n\r\n")[0].isascii()


@pytest.mark.parametrize("mail", [TO_ADA._replace(to=TWO_LINES), TO_ADA._replace(subject=TWO_LINES)])
def test_a_line_break_adds_no_header(mail: Mail) -> None:
    with mail_server() as server:
        refused = refusal(server.url(), mail)

    assert refused == "ValueError"
    assert server.letters == []


def test_with_a_password_tls_is_required(tls: dict[str, Any]) -> None:
    with mail_server(**tls, require_starttls=True, auth_required=True, authenticator=authenticate) as server:
        send(server.url(credentials=CREDENTIALS))
        [letter] = server.take()
        assert refusal(server.url(credentials="ada:wrong@")) == "SMTPAuthenticationError 535"
    with mail_server(auth_require_tls=False, authenticator=authenticate) as server:
        assert refusal(server.url(credentials=CREDENTIALS)) == "SMTPException"
        assert server.letters == []

    assert letter.is_encrypted


def test_a_password_goes_to_no_server_with_a_false_certificate() -> None:
    with mail_server(tls_context=server_context(), authenticator=authenticate) as server:
        refused = refusal(server.url(credentials=CREDENTIALS))

    assert refused == "SMTPServerDisconnected" or "SSL" in refused


def test_without_a_password_tls_is_used_with_any_certificate() -> None:
    with mail_server(tls_context=server_context()) as server:
        send(server.url())
        [letter] = server.take()

    assert letter.is_encrypted


def test_smtps_begins_with_tls_and_checks_the_certificate(tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(smtps=True) as server:
        send(server.url("smtps"))
        [letter] = server.take()
        monkeypatch.delenv("SSL_CERT_FILE")
        assert refusal(server.url("smtps")) == "SMTPConnectError"

    assert letter.is_encrypted
    assert server.letters == []


@pytest.mark.parametrize("code", [450, 550])
def test_a_refused_recipient_is_named_by_its_code(code: int) -> None:
    with mail_server() as server:
        server.refusal = f"{code} no"
        assert refusal(server.url()) == f"SMTPRecipientRefused {code}"


def test_a_server_that_is_away_or_silent_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.mail.smtp.SECONDS", 0.01)
    assert refusal(f"smtp://127.0.0.1:{free_port()}") == "SMTPConnectError"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert refusal(f"smtp://127.0.0.1:{silent.getsockname()[1]}") == "SMTPConnectTimeoutError"


def test_a_server_that_does_not_say_goodbye_has_the_mail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try would send it twice."""

    async def fall_silent(*_: object, **__: object) -> None:
        raise aiosmtplib.SMTPReadTimeoutError("no answer")

    monkeypatch.setattr(aiosmtplib.SMTP, "quit", fall_silent)
    with mail_server() as server:
        send(server.url())
        assert len(server.take()) == 1


def test_the_settings_choose_the_way() -> None:
    async def use(**settings: Any) -> bool:
        async with open_outbox(Settings(**settings)) as outbox:
            if outbox:
                outbox.send(TO_ADA)
            return isinstance(outbox, Outbox)

    with mail_server() as server:
        assert asyncio.run(use(smtp_url=server.url(), mail_from=SENDER))
        assert len(server.take()) == 1
    assert asyncio.run(use(mail_hook=HOOK))
    assert mails() == [TO_ADA]
    assert not asyncio.run(use())
    assert not asyncio.run(use(mail_from=SENDER))
