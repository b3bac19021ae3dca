"""Notices: mails that tell users what has happened to their account."""

from sqlalchemy import bindparam, select

from app.auth.models import User
from app.auth.services import Services
from app.mail.outbox import Outbox
from app.mail.templates import Notice, notice

SELECT_VERIFIED_ADDRESS = select(User.email, User.username).where(
    User.id == bindparam("user_id"), User.email_verified, User.is_active
)


def notify(services: Services, user_id: str, what: Notice) -> None:
    """Write to the user's verified address after the answer, if there is one and mail is configured.

    A disabled user gets no mail.
    """

    async def write(mail: Outbox) -> None:
        parameters = {"user_id": user_id}
        account = await services.database.read(
            lambda connection: connection.execute(SELECT_VERIFIED_ADDRESS, parameters).one_or_none()
        )
        if account:
            mail.send(notice(account.email, account.username, what))

    if mail := services.mail:
        mail.after_answer(lambda: write(mail))
