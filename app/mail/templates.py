"""The mails of the service, as plain text. To change their words, edit this module."""

from enum import Enum
from typing import Literal, NamedTuple

from app import NAME


class Notice(Enum):
    """Something that has happened to an account, and how a mail tells its owner."""

    TOKEN_CREATED = "Somebody has made a personal token for your account."
    EMAIL_CHANGED = "Somebody has changed the e-mail address of your account. This was the address before."
    PASSWORD_CHANGED = "Somebody has changed the password of your account."
    TOTP_ENABLED = "Somebody has turned on the second factor of your account."
    TOTP_DISABLED = "Somebody has turned off the second factor of your account."
    RECOVERY_CODE_USED = "Somebody has logged in to your account with a recovery code. The code does not work again."
    TOKEN_REUSED = "A session of your account has ended: somebody used an old refresh token of it, perhaps a thief."


class Mail(NamedTuple):
    """A mail to one user. `MAIL_HOOK` is called with it."""

    kind: Literal["verify_email", "reset_password", "notice"]
    to: str
    username: str
    subject: str
    text: str
    token: str | None = None


def verification(to: str, username: str, token: str, url: str | None) -> Mail:
    """Ask whether the address is the user's. `url` is VERIFY_URL."""
    text = f"Please confirm that this is your e-mail address. {_how(token, url, 'POST /users/verify-email', 'a day')}"
    return Mail("verify_email", to, username, f"{NAME}: confirm your address", _letter(username, text), token)


def password_reset(to: str, username: str, token: str, url: str | None) -> Mail:
    """Bring a reset token to its user. `url` is RESET_URL."""
    text = f"You can set a new password now. {_how(token, url, 'POST /users/reset-password', 'an hour')}"
    return Mail("reset_password", to, username, f"{NAME}: set a new password", _letter(username, text), token)


def notice(to: str, username: str, what: Notice) -> Mail:
    """Tell users what has happened to their account."""
    text = f"{what.value}\n\nIf it was not you, change your password now, and end all other sessions."
    return Mail("notice", to, username, f"{NAME}: your account has changed", _letter(username, text, ignore=False))


def trial(to: str) -> Mail:
    """Show that mail works."""
    return Mail("notice", to, "", f"{NAME}: mail works", f"This is a test. {NAME} can send mail.\n")


def _how(token: str, url: str | None, endpoint: str, time: str) -> str:
    way = f"Open this link:\n\n{url}#{token}" if url else f"Send this token to {endpoint}:\n\n{token}"
    return f"{way}\n\nIt works within {time}."


def _letter(username: str, text: str, *, ignore: bool = True) -> str:
    end = "\n\nIf you did not ask for this mail, ignore it." if ignore else ""
    return f"Hello {username},\n\n{text}{end}\n\n{NAME}\n"
