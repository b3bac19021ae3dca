"""How mails leave: by an SMTP server, or by a function of the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime, make_msgid, parseaddr
from urllib.parse import unquote, urlsplit

import aiosmtplib

from app.config import Settings
from app.mail.outbox import Outbox
from app.mail.templates import Mail

POLICY = SMTP.clone(max_line_length=990)  # RFC 5322 §2.1.1: a token stays on one line
SECONDS = 10


@dataclass(frozen=True, slots=True)
class SMTPServer:
    """Sends mails by the server of SMTP_URL, from the address of MAIL_FROM.

    `smtps` begins with TLS. `smtp` changes to TLS (STARTTLS) where the server offers it. With a password it must: the
    password never crosses the network in clear.
    """

    url: str
    sender: str

    async def __call__(self, mail: Mail) -> None:
        """Raises aiosmtplib.SMTPException, OSError."""
        parts = urlsplit(self.url)
        is_tls = parts.scheme == "smtps"
        await aiosmtplib.send(
            self._message(mail),
            hostname=parts.hostname,
            port=parts.port or (465 if is_tls else 587),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            use_tls=is_tls,
            start_tls=None if is_tls or not parts.username else True,
            timeout=SECONDS,
        )

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage(POLICY)
        message["From"], message["To"], message["Subject"] = self.sender, mail.to, mail.subject
        message["Date"] = localtime()
        message["Message-ID"] = make_msgid(domain=parseaddr(self.sender)[1].rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: nobody's holiday answers it
        message.set_content(mail.text)
        return message


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
