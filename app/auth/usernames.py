"""The normal form of a username."""


def normalize_username(username: str) -> str:
    """Names are ASCII, and the same in either letter case. No other letter is one of theirs in lower case."""
    return username.lower() if username.isascii() else username
