"""The objects that all requests of a running service share."""

from dataclasses import dataclass

from app.auth.passwords import Passwords
from app.auth.refresh import Uses
from app.auth.throttle import Limiter
from app.auth.tokens import Tokens
from app.clock import Clock
from app.config import Settings
from app.db.background import Background
from app.db.database import Database


@dataclass(frozen=True, slots=True)
class Services:
    """The start of the service makes one, at `app.state.services`.

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
