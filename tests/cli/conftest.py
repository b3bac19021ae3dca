from functools import partial

import pytest

from tests.conftest import SECRET
from tests.support.command_line import Run, run


@pytest.fixture
def app(database_url: str) -> Run:
    """`python -m app …` on the test's database."""
    return partial(run, database_url=database_url, secret_key=SECRET)
