"""Tokens that go by mail: they verify an e-mail address, or reset a forgotten password."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping

from app.auth.access import CallerDatabase
from app.auth.errors import TooManyAttempts
from app.auth.logins import find_account
from app.auth.networks import LoginOrigin
from app.auth.services import Services
from app.db.types import NO_ID
from app.mail import templates
from app.mail.outbox import Outbox
from app.observe.events import log_event
from app.users import addresses, errors, recovery, service


@dataclass(frozen=True, slots=True)
class Mailing:
    """The mails that somebody asks for."""

    services: Services
    origin: LoginOrigin
    now: datetime

    async def send_verification(self, db: CallerDatabase) -> None:
        """Mail a token to the caller's address. Raises MailNotConfigured, NothingToVerify, TooManyAttempts."""
        profile = await db.read(service.get_profile)
        self.outbox()
        if not profile["email"] or profile["email_verified"]:
            raise errors.NothingToVerify
        limiter = self.services.limiter
        await limiter.count(self.services.database, self.now, *limiter.mails("verification", profile["id"]))
        mail_verification(self.services, profile, self.now)

    async def verify_address(self, token: str) -> None:
        """Verify the address of a token. Raises MailNotConfigured, InvalidVerificationToken, EmailTaken."""
        self.outbox()
        claims = addresses.read_verification_token(self.services.tokens, token, self.now)
        if await self.services.database.write(addresses.verify_address, claims, self.origin, self.now):
            log_event("email_verified", user_id=claims.sub)

    async def send_reset(self, username: str) -> None:
        """Mail a reset token soon. Called after the answer, so that its time tells nothing of the account."""
        self.outbox().after_answer(lambda: self._send_reset(username))

    async def _send_reset(self, username: str) -> None:
        """Mail a reset token to a verified address. Only the log says why there is no mail."""
        db, limiter = self.services.database, self.services.limiter
        account = await db.read(find_account, username)
        user_id, reason = account.id if account else None, None
        try:
            await limiter.count(db, self.now, *limiter.forgotten(username, self.origin.network, user_id))
            asked = self.services.tokens, user_id or NO_ID, self.now, self.origin
            mail_reset(self.services, await db.write(recovery.issue_reset, *asked))
        except (TooManyAttempts, errors.UserNotFound, errors.UserDisabled, errors.NoVerifiedAddress) as refusal:
            reason = refusal.code
        log_event("password_reset_requested", user_id=user_id, reason=reason)

    def outbox(self) -> Outbox:
        """Raises MailNotConfigured."""
        if self.services.mail is None:
            raise errors.MailNotConfigured
        return self.services.mail


def mail_verification(services: Services, profile: RowMapping, now: datetime) -> None:
    """Mail a token to the address of a profile, if it has one and the service sends mail."""
    if services.mail and (to := profile["email"]):
        token = addresses.issue_verification(services.tokens, profile, now)
        services.mail.send(templates.verification(to, profile["username"], token, services.settings.verify_url))


def mail_reset(services: Services, reset: recovery.Reset) -> bool:
    """Mail a token to the verified address of its user. Return whether there is one, and the service sends mail."""
    if services.mail is None or reset.address is None:
        return False
    url = services.settings.reset_url
    services.mail.send(templates.password_reset(reset.address, reset.username, reset.token, url))
    return True
