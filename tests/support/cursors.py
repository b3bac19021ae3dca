"""Cursors as somebody could write them who has read our source: their digest has no key."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any


def forge(cursor: str, **changes: Any) -> str:
    """Write a cursor like another one, with another `key` or `id`, in the one spelling that the service has for it."""
    digest, key, id_ = json.loads(urlsafe_b64decode(cursor + "=="))
    return write([digest, changes.get("key", key), changes.get("id", id_)])


def write(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False)
    return urlsafe_b64encode(text.encode(errors="surrogatepass")).decode().rstrip("=")
