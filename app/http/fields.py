"""The types of fields in requests."""

import re
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, BeforeValidator, Field

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

PathId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", json_schema_extra={"format": "uuid"})
]
"""An id in a URL, spelled as the service spells it."""
