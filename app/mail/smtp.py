"""How mails leave: by an SMTP server, or by a function of the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime, make_msgid, parseaddr
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
import idna

from app.config import Settings
from app.mail.outbox import Outbox
from app.mail.templates import Mail

POLICY = SMTP.clone(max_line_length=990)  # RFC 5322 §2.1.1: a token stays on one line
SECONDS: Final = 10  # for each step
GOODBYE_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class SMTPServer:
    """Sends mails by the server of SMTP_URL, from the address of MAIL_FROM.

    `smtps` begins with TLS. `smtp` changes to TLS (STARTTLS) where the server offers it. With a password it must: the
    password never crosses the network in clear. Then the server's certificate is checked, as with `smtps`. Without a
    password it is not: whoever can forge a certificate could also hide the offer.
    """

    url: str
    sender: str

    async def __call__(self, mail: Mail) -> None:
        """Raises aiosmtplib.SMTPException, OSError, ValueError."""
        parts = urlsplit(self.url)
        is_tls, has_password = parts.scheme == "smtps", bool(parts.username)
        client = aiosmtplib.SMTP(
            hostname=parts.hostname,
            port=parts.port or (465 if is_tls else 587),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            use_tls=is_tls,
            start_tls=None if is_tls or not has_password else True,
            validate_certs=is_tls or has_password,
            timeout=SECONDS,
        )
        message = self._message(mail)
        try:
            await client.connect()
            await client.send_message(message)
            with suppress(aiosmtplib.SMTPException):  # the mail has gone, and must not go again
                await client.quit(timeout=GOODBYE_SECONDS)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise error.recipients[0] from None
        finally:
            client.close()

    def _message(self, mail: Mail) -> EmailMessage:
        message, (name, sender) = EmailMessage(POLICY), parseaddr(self.sender)
        message["From"] = self.sender.replace(sender, _ascii_domain(sender)) if name else _ascii_domain(sender)
        message["To"], message["Subject"] = _ascii_domain(mail.to), mail.subject
        message["Date"] = localtime()
        message["Message-ID"] = make_msgid(domain=_ascii_domain(sender).rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: nobody's holiday answers it
        message.set_content(mail.text)
        return message


def _ascii_domain(address: str) -> str:
    """Return an address with its domain in ASCII (RFC 5891), so that only a local part may need SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{idna.encode(domain).decode()}"


@asynccontextmanager
async def open_outbox(settings: Settings) -> AsyncIterator[Outbox | None]:
    """Send mails by the settings while this runs. Without SMTP_URL and MAIL_HOOK there is no outbox."""
    if settings.smtp_url and settings.mail_from:
        outbox = Outbox(SMTPServer(settings.smtp_url.get_secret_value(), settings.mail_from))
    elif settings.mail_hook:
        outbox = Outbox(settings.mail_hook)
    else:
        yield None
        return
    async with outbox.running():
        yield outbox
