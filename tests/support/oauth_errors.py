"""The errors of the form endpoints."""

import re
from typing import Final

from httpx2 import Response

from app.testing import json_object, require

DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §5.2
OAUTH_KEYS: Final = {"detail", "code", "error", "error_description"}


def assert_oauth_error(response: Response, error: str, status: int = 400) -> None:
    """Assert that a form endpoint, such as /auth/token, answered this error of RFC 6749 §5.2."""
    __tracebackhide__ = True
    body = json_object(response)
    description = str(body.get("error_description"))
    rules = {
        f"the status must be {status}": response.status_code == status,
        f"the error must be {error}": body.get("error") == error,
        "the body must be detail, code, error and error_description, all text": body.keys() == OAUTH_KEYS
        and all(isinstance(value, str) for value in body.values()),
        "error_description must keep to RFC 6749's characters": DESCRIPTION.fullmatch(description),
        "Cache-Control must be no-store": response.headers.get("Cache-Control") == "no-store",
        "Pragma must be no-cache": response.headers.get("Pragma") == "no-cache",
    }
    require(response, rules)
