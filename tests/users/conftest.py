from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.testing import LogIn, User
from tests.conftest import Serve
from tests.support.accounts import Login
from tests.support.mail_hook import HOOK, mails


@pytest.fixture
def root(login: LogIn, admin: User) -> Login:
    """An administrator, the only one, who is logged in."""
    return login(admin)


@pytest.fixture
def mailing(serve: Serve) -> Iterator[TestClient]:
    """A client of a service that sends mail. `mails(client)` takes what it has sent."""
    client = serve(mail_hook=HOOK, registration_limit=0)
    yield client
    mails(client)
