"""Fixtures of the tests of auth."""

from collections.abc import Iterator

import pytest

from tests.support.statements import after_each_statement


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that the service runs."""
    seen: list[str] = []
    with after_each_statement(seen.append):
        yield seen
