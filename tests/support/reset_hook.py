"""A RESET_HOOK that keeps what it is given."""

from app.users.recovery import Reset

sent: list[Reset] = []


async def send(reset: Reset) -> None:
    """A hook, as `RESET_HOOK` names one."""
    sent.append(reset)


async def fail(reset: Reset) -> None:
    """A hook that cannot reach its mail server."""
    raise OSError(f"no route to host for {reset.reset_token}")
