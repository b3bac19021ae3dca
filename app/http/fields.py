"""The types of fields in requests."""

import re
from typing import Annotated, Final

from fastapi import Path
from pydantic import BeforeValidator, Field

WITHOUT_NUL: Final = r"^[^\x00]*$"
StorableText = Annotated[str, Field(pattern=WITHOUT_NUL)]
"""Text that the databases can store."""


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
