from functools import partial

import pytest

from tests.cli.runner import Run, run
from tests.conftest import SECRET


@pytest.fixture
def app(database_url: str) -> Run:
    """`python -m app …` on the test's database."""
    return partial(run, database_url=database_url, secret_key=SECRET)
