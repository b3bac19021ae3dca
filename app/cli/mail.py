"""python -m app mail-test."""

from typing import Annotated

import typer

from app.cli.terminal import failure, validate


def mail_test(address: Annotated[str, typer.Argument(help="The e-mail address to write to.")]) -> None:
    """Send one mail now, and say whether the mail server has taken it."""
    import asyncio

    from app.config import read_settings
    from app.mail.outbox import cause
    from app.mail.smtp import open_outbox
    from app.mail.templates import trial
    from app.users.errors import MailNotConfigured
    from app.users.schemas import Recipient

    recipient: Recipient = validate(Recipient, address=address)

    async def send() -> None:
        async with open_outbox(read_settings()) as outbox:
            if outbox is None:
                raise MailNotConfigured
            try:
                await outbox.send_now(trial(recipient.address))
            except Exception as error:
                raise failure(f"the mail was not sent: {cause(error)}") from error

    asyncio.run(send())
    typer.echo(f"The mail server has taken a mail to {recipient.address}.")
