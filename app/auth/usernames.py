"""The one place that says by which names a user may log in."""

from sqlalchemy import bindparam, func

from app.auth.models import User
from app.db.types import Text

HAS_LOGIN_NAME = func.lower(User.username) == bindparam("username", type_=Text)
"""Whether a user has a login name. The name must be normalized."""


def normalize_username(username: str) -> str:
    """Return the name in lower case, if it is ASCII. Usernames are ASCII, and letter case does not tell them apart.

    Other letters stay as they are. Some have an ASCII letter as their lower case, and must not match a username.
    """
    return username.lower() if username.isascii() else username
