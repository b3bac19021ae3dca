"""python -m app mail-test."""

from typing import Annotated

import typer

from app.cli.terminal import failure, validate


def mail_test(address: Annotated[str, typer.Argument(help="The e-mail address to write to.")]) -> None:
    """Send one mail now, and say whether the mail server has taken it."""
    import asyncio

    from app.config import Settings, read_settings
    from app.mail.outbox import cause
    from app.mail.smtp import open_outbox
    from app.mail.templates import trial
    from app.users.errors import MailNotConfigured
    from app.users.schemas import Recipient

    recipient: Recipient = validate(Recipient, address=address)

    async def send(settings: Settings) -> None:
        async with open_outbox(settings) as outbox:
            if outbox is None:
                raise MailNotConfigured
            await outbox.send_now(trial(recipient.address))

    settings = read_settings()
    try:
        asyncio.run(send(settings))
    except MailNotConfigured:
        raise
    except Exception as error:
        raise failure(f"the mail was not sent: {cause(error)}") from error
    typer.echo(f"The mail server has taken a mail to {recipient.address}.")
