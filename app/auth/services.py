"""The objects that all requests of a running service share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from app.auth.keys import load_tokens, signing_secrets
from app.auth.one_time_codes import OneTimeCodes
from app.auth.passwords import Cost, Passwords
from app.auth.personal_tokens import PersonalTokens
from app.auth.refresh import Uses
from app.auth.throttle import Limiter
from app.auth.tokens import Tokens
from app.clock import Clock
from app.config import Settings
from app.db.batches import Background
from app.db.database import Database
from app.db.replica import PublicReads
from app.mail.outbox import Outbox
from app.mail.smtp import open_outbox


@dataclass(frozen=True, slots=True)
class Services:
    """The start of the service makes one, at `app.state.services`, and each command that acts on accounts.

    Dependencies take it as `AppServices`. `Db`, `Now` and `AppSettings` are short ways to three of its fields.
    """

    settings: Settings
    clock: Clock
    database: Database
    public_reads: PublicReads
    """The database, or its replica, for statements without a session in them."""
    tokens: Tokens
    passwords: Passwords
    one_time_codes: OneTimeCodes
    limiter: Limiter
    uses: Uses
    personal_tokens: PersonalTokens
    deletions: Background
    """Deletes the rows of accounts that have ended."""
    mail: Outbox | None
    """None if neither SMTP_URL nor MAIL_HOOK is set."""


@asynccontextmanager
async def open_services(
    settings: Settings,
    clock: Clock,
    database: Database,
    deletions: Background,
    cost: Cost,
    public_reads: PublicReads | None = None,
) -> AsyncIterator[Services]:
    """Load the keys, start the threads that hash passwords, and send mail. Raises BadSettings."""
    tokens, secrets = load_tokens(settings), signing_secrets(settings)
    async with open_outbox(settings) as mail:
        with closing(Passwords(cost)) as passwords:
            yield Services(
                settings=settings,
                clock=clock,
                database=database,
                public_reads=public_reads or database,
                tokens=tokens,
                passwords=passwords,
                one_time_codes=OneTimeCodes(secrets),
                limiter=Limiter(settings, secrets[0]),
                uses=Uses(settings.refresh_grace),
                personal_tokens=PersonalTokens(tokens.issuer),
                deletions=deletions,
                mail=mail,
            )
