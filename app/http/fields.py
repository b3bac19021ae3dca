"""The types of fields in requests."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ](\d\d):\d\d:(\d\d))(?:(\.\d{1,6})\d*)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
UNENCODED: Final = re.compile(r"\S+ \d\d:\d\d", re.ASCII)  # a `+` in a URL is a space
FIRST_YEAR, LAST_YEAR = 1970, 9998  # in any zone, both databases can hold a time of these in UTC

WITHOUT_NUL: Final = r"^[^\x00]*$"
StorableText = Annotated[str, Field(pattern=WITHOUT_NUL)]
"""Text that the databases can store."""

# White space, control and format characters, fillers, variation selectors, and the empty braille pattern. The OpenAPI
# document does without those beyond the BMP: a JSON schema cannot spell them as Python does.
INVISIBLE: Final = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    r"\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
BEYOND: Final = (
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
VISIBLE: Final = re.compile(f"[^{INVISIBLE}{BEYOND}]")
HAS_VISIBLE: Final = {"pattern": rf"^[^\x00]*[^{INVISIBLE}][^\x00]*$"}


def _has_something_visible(value: str) -> str:
    if not VISIBLE.search(value):
        raise ValueError("must have a visible character")
    return value


VisibleText = Annotated[
    StorableText, Field(min_length=1, json_schema_extra=HAS_VISIBLE), AfterValidator(_has_something_visible)
]


def _is_decimal(value: object) -> object:
    """Refuse underscores, spaces and `1.0`, which pydantic takes for whole numbers."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("must be a whole number, in digits")
    return value


Digits = Annotated[int, BeforeValidator(_is_decimal)]
"""A whole number in a URL."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
"""A whole number in JSON, also one that is spelled `3600.0` (JSON Schema 2020-12, validation, §6.1.1)."""


def _is_flag(value: object) -> object:
    """Refuse `1`, `yes` and `on`, which pydantic takes for true."""
    if isinstance(value, str) and value not in {"true", "false"}:
        raise ValueError("must be true or false")
    return value


Flag = Annotated[bool, BeforeValidator(_is_flag)]
"""A true or false in a URL."""

PathId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", json_schema_extra={"format": "uuid"})
]
"""An id in a URL, spelled as the service spells it."""


def _in_microseconds(value: object) -> object:
    """Check the form, and cut digits beyond microseconds.

    Pydantic would read numbers, and text of digits, as seconds since the epoch. It refuses digits beyond microseconds.
    """
    if not isinstance(value, str) or not (match := RFC3339.fullmatch(value)):
        hint = "; a + in a URL must be written as %2B" if isinstance(value, str) and UNENCODED.fullmatch(value) else ""
        raise ValueError(f"must be an RFC 3339 time with a zone: 2026-11-23T09:00:00Z{hint}")
    time, hour, second, fraction, zone = match.groups()
    if hour == "24":
        raise ValueError("must have an hour from 00 to 23: midnight is 00:00:00 of the next day")
    if second == "60":
        raise ValueError("must have a second from 00 to 59: a leap second cannot be stored")
    return time + (fraction or "") + zone


def _in_utc(value: datetime) -> datetime:
    if FIRST_YEAR <= value.year <= LAST_YEAR:  # for other years the conversion may overflow
        value = value.astimezone(UTC)
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"must be in the years {FIRST_YEAR} to {LAST_YEAR} in UTC")
    return value


Time = Annotated[
    AwareDatetime,
    Field(
        description="RFC 3339 with a zone, without leap seconds. Digits beyond microseconds are cut off. "
        f"In the years {FIRST_YEAR} to {LAST_YEAR} in UTC."
    ),
    BeforeValidator(_in_microseconds),
    AfterValidator(_in_utc),
]
"""A time in UTC, in years that both databases can hold."""
