"""The base of the models that request bodies are read into."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.http.fields import WITHOUT_NUL

SURROGATE = re.compile("[\ud800-\udfff]")
OTHER_TEXT = {"pattern", "format", "enum", "const"}
"""With one of these keywords, a schema says already which text is valid."""


class Schema(BaseModel):
    """A request body. It refuses unknown fields, and text that a database cannot store: NUL and lone surrogates."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_unstorable_text(cls, value: object) -> object:
        if not _is_storable(value):
            raise ValueError("must not contain NUL or a lone surrogate")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        _add_pattern(handler.resolve_ref_schema(schema)["properties"])
        return schema


def _is_storable(value: object) -> bool:
    match value:
        case str():
            return "\0" not in value and (value.isascii() or not SURROGATE.search(value))
        case list():
            return all(map(_is_storable, value))
        case dict():
            return all(map(_is_storable, value)) and all(map(_is_storable, value.values()))
    return True


def _add_pattern(part: Any) -> None:
    """Describe the text in a part of a JSON schema."""
    if isinstance(part, dict):
        if part.get("type") == "string" and not part.keys() & OTHER_TEXT:
            part["pattern"] = WITHOUT_NUL
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            _add_pattern(each)
