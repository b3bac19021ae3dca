"""A fault of an installation, as the doctor tells it."""

from typing import NamedTuple


class Fault(NamedTuple):
    what: str
    remedy: str
