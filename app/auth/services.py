"""The objects that all requests of a running service share."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from app.auth.keys import load_tokens, signing_secrets
from app.auth.passwords import Cost, Passwords
from app.auth.refresh import Uses
from app.auth.throttle import Limiter
from app.auth.tokens import Tokens
from app.clock import Clock
from app.config import Settings
from app.db.batches import Background
from app.db.database import Database


@dataclass(frozen=True, slots=True)
class Services:
    """The start of the service makes one, at `app.state.services`, and each command that acts on accounts.

    Dependencies take it as `AppServices`. `Db`, `Now` and `AppSettings` are short ways to three of its fields.
    """

    settings: Settings
    clock: Clock
    database: Database
    tokens: Tokens
    passwords: Passwords
    limiter: Limiter
    uses: Uses
    deletions: Background
    """Deletes the rows of accounts that have ended."""


@contextmanager
def open_services(
    settings: Settings, clock: Clock, database: Database, deletions: Background, cost: Cost
) -> Iterator[Services]:
    """Load the keys, and start the threads that hash passwords. Raises BadSettings."""
    tokens, limiter = load_tokens(settings), Limiter(settings, signing_secrets(settings)[0])
    with closing(Passwords(cost)) as passwords:
        yield Services(settings, clock, database, tokens, passwords, limiter, Uses(settings.refresh_grace), deletions)
