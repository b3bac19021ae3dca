"""Accounts in plain Python, as the contract has them: what a service must have in its tables after each request."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from pyotp import TOTP

from app.mail.templates import Notice

ACCESS_TTL, SESSION_TTL, IDLE_TTL = 86_400, 30 * 86_400, 7 * 86_400  # seconds
SOMEBODYS_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


@dataclass(eq=False, repr=False)
class Person:
    name: str
    id: str
    password: str
    email: str | None
    is_verified: bool = False
    is_active: bool = True
    is_deleted: bool = False
    changes: int = 0
    """How often the account has changed. Each change voids its reset tokens."""
    reset: "Mailed | None" = None
    """The latest reset token."""
    secret: str | None = None
    step: int | None = None
    """The step of the latest one-time code, while the factor is on."""
    recovery_codes: list[str] = field(default_factory=list)
    used_codes: list[str] = field(default_factory=list)
    sessions: list["Session"] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.name

    @property
    def row(self) -> tuple[Any, ...]:
        factor = self.secret is not None, self.step, len(self.recovery_codes)
        return self.id, self.name, self.email, self.is_verified, self.is_active, *factor

    def record(self, event: str, at: datetime, session: "Session | None" = None, reason: str | None = None) -> None:
        self.events.append((event, session.id if session else None, reason, at))

    def code(self, now: datetime, steps: int) -> str:
        """The code of so many steps later."""
        return TOTP(self.secret or SOMEBODYS_SECRET).at(now + timedelta(seconds=30 * steps))

    def latest_code(self) -> str:
        return TOTP(self.secret or SOMEBODYS_SECRET).generate_otp(self.step or 1)

    def step_of(self, code: str, now: datetime) -> int | None:
        """The latest step beside the present one that has this code, if it is later than that of the code before."""
        present, totp = int(now.timestamp()) // 30, TOTP(self.secret or SOMEBODYS_SECRET)
        steps = [step for step in range(present - 1, present + 2) if totp.generate_otp(step) == code]
        return steps[-1] if steps and steps[-1] > (self.step or 0) else None

    def use(self, code: str, now: datetime) -> str | None:
        """Use a code up. Return what it was, or None if it was nothing."""
        if code in self.recovery_codes:
            self.recovery_codes.remove(code)
            self.used_codes.append(code)
            return "recovery code"
        step = self.step_of(code, now)
        if step is None:
            return None
        self.step = step
        return "one-time code"

    def remove_factor(self) -> bool:
        was_on = self.step is not None
        self.secret, self.step, self.recovery_codes = None, None, []
        self.changes += 1
        return was_on


@dataclass(eq=False, repr=False)
class Session:
    """A login or a personal token."""

    id: str
    person: Person
    kind: str
    scopes: frozenset[str]
    created_at: datetime
    rotated_at: datetime
    expires_at: datetime
    generation: int = 1
    ended_at: datetime | None = None
    end_reason: str | None = None
    keys: list["Key"] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"{self.person}'s {self.kind} {self.person.sessions.index(self)}"

    @property
    def row(self) -> tuple[Any, ...]:
        times = self.created_at, self.rotated_at, self.expires_at
        return (self.id, self.kind, self.generation, self.scopes, *times, self.ended_at, self.end_reason)

    def is_live(self, now: datetime) -> bool:
        """Whether it has not ended and not expired. Whether its user is active is not asked."""
        if self.ended_at is not None or self.expires_at <= now:
            return False
        since_login, since_refresh = now - self.created_at, now - self.rotated_at
        is_short = since_login < timedelta(seconds=SESSION_TTL) and since_refresh < timedelta(seconds=IDLE_TTL)
        return self.kind == "personal" or is_short

    def note_use(self, now: datetime) -> None:
        """A personal token is noted as used once a day."""
        day = datetime.combine(now, time(), UTC)
        if self.ended_at is None and (self.rotated_at < day or self.rotated_at == self.created_at):
            self.rotated_at = day


@dataclass(eq=False, repr=False)
class Key:
    """A token for the header: an access token, which has come with a refresh token, or a personal token."""

    session: Session
    text: str
    scopes: frozenset[str]
    expires_at: float
    refresh: str = ""
    generation: int = 1

    def __repr__(self) -> str:
        return f"{self.session}/{self.generation}"

    def is_known(self, now: datetime) -> bool:
        return now.timestamp() < self.expires_at

    def is_good(self, now: datetime) -> bool:
        return self.is_known(now) and self.session.is_live(now) and self.session.person.is_active


@dataclass(eq=False, repr=False)
class Mailed:
    """A token that went by mail, or that an administrator was shown."""

    person: Person
    text: str
    address: str | None
    changes: int
    expires_at: float

    def __repr__(self) -> str:
        return f"{self.person}'s token for {self.address}"


@dataclass(eq=False)
class People:
    """Everybody, the mails that they must have got, and the counters of mails."""

    by_name: dict[str, Person] = field(default_factory=dict)
    gone: list[Person] = field(default_factory=list)
    mails: list[tuple[str, str, str, Notice | None]] = field(default_factory=list)
    counters: dict[tuple[str, timedelta], tuple[int, datetime]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Person]:
        return iter([*self.by_name.values(), *self.gone])

    def find(self, typed: str) -> Person | None:
        """Find a user by a login name: the username or the verified address, in any letter case."""
        name = typed.strip().lower()
        return self.by_name.get(name) or self.verified(name)

    def verified(self, address: str) -> Person | None:
        owners = [person for person in self.by_name.values() if person.is_verified and person.email]
        found = [person for person in owners if person.email and person.email.lower() == address.lower()]
        assert len(found) <= 1
        return found[0] if found else None

    def notify(self, person: Person, what: Notice) -> None:
        """To the verified address of an active account, and to no other."""
        if person.is_verified and person.email and person.is_active:
            self.mails.append(("notice", person.email, person.name, what))

    def count(self, now: datetime, limits: Collection[tuple[str, timedelta, int]]) -> bool:
        """Count a mail for each limit, unless one is reached. Return whether it may be sent."""
        counters = {(key, window): self.counters.get((key, window), (0, now)) for key, window, _ in limits}
        if any(counters[key, window][0] >= most and counters[key, window][1] > now for key, window, most in limits):
            return False
        for (key, window), (hits, ends_at) in counters.items():
            self.counters[key, window] = (hits + 1, ends_at) if ends_at > now else (1, now + window)
        return True


def mails_of(key: str) -> list[tuple[str, timedelta, int]]:
    """One a minute and five an hour."""
    return [(key, timedelta(minutes=1), 1), (key, timedelta(hours=1), 5)]
